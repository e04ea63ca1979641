"""What to do, whole: one frozen dataclass is the command line, the TOML file, the manifest and the unit of a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from facednerf_core.errors import InputError, UnknownName

Task = Literal["edit", "invert"]
RECIPES = ("default", "paper")
SMALLEST = 16  # pixels, of a rendering's height


@dataclass(frozen=True)
class Weights:
    """Factors on what the stages give each term, in every stage that has it: 2 doubles it, 0 leaves it out, None is 1.

    What the stages give, and how the paper's lambdas map onto it, is in docs/architecture.md.
    """

    reconstruction: float | None = None  # VGG16 features against the photo, Eq. 2
    identity: float | None = None  # Eq. 3
    guidance: float | None = None  # Eq. 4 and 5
    latent: float | None = None  # the pull towards where the stage began; the paper's recipe has none
    locality: float | None = None  # how strongly tuning is kept to the photo's neighbourhood

    def given(self) -> dict[str, float]:
        """The factors that were set, by term."""
        return {item.name: value for item in fields(self) if (value := getattr(self, item.name)) is not None}


@dataclass(frozen=True)
class Recipe:
    """One run: which photo and sentence, which plugins, which weights of terms, how long, and with which seed."""

    task: Task = "edit"
    photo: str = ""  # path
    prompt: str = ""
    source_prompt: str | None = None  # what the photo shows, for guidance by difference; "" for none; None: by the domain
    negative: str = ""  # what the result should not show
    recipe: Literal["default", "paper"] = "default"
    backbone: str = "eg3d"
    guidance: str = "sds"
    identity: str | None = None  # None: the default one where it fits; "none": without
    detector: str = "starter"
    inverter: str = "w-plus"
    tuner: str = "pti"  # "none": the generator is left as it is
    weights_pack: str = "auto"  # a pack's name; auto: official where complete, else starter
    weights_cards: Mapping[str, str] = field(default_factory=dict)  # kind -> weights card, to mix packs by name
    weights: Weights = field(default_factory=Weights)
    stage_weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # stage -> term -> a factor there alone
    steps: Mapping[str, int] = field(default_factory=dict)  # stage -> steps, where not the recipe's own
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # plugin -> its options
    strength: float = 1.0  # 0 is the inversion, 1 the edit, more goes beyond
    camera: tuple[float, float] | None = None  # (yaw, pitch) in radians, where the estimate should not be used
    crop: tuple[float, float, float] | None = None  # (centre x, centre y, side) in pixels, instead of a found face
    face: int | None = None  # which of several faces, largest is 1
    size: int | None = None  # rendering size during optimisation, None: the generator's own
    frames: int = 48  # of the turntable
    save_every: int = 20  # steps between checkpoints
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise UnknownName("recipe", self.recipe, RECIPES)
        if self.frames < 0 or self.save_every < 1:
            raise InputError(f"frames must be at least 0 and save_every at least 1, not {self.frames}, {self.save_every}.")
        for stage, count in self.steps.items():
            if count < 0:
                raise InputError(f"steps of stage {stage!r} must be at least 0, not {count}.")
        if self.size is not None and self.size < SMALLEST:
            raise InputError(f"size must be at least {SMALLEST} pixels, not {self.size}.")
        factors = list(self.weights.given().values())
        factors += [value for terms in self.stage_weights.values() for value in terms.values()]
        numbers = {"strength": [self.strength], "camera": self.camera or [], "weights": factors}
        for name, values in numbers.items():
            if not all(math.isfinite(value) for value in values):
                raise InputError(f"{name} must be finite, not {', '.join(map(str, values))}.")

    def changed(self, **changes: Any) -> Recipe:
        """The recipe with some fields changed."""
        return replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON and TOML; fields that are None are left out."""
        return _without_none(asdict(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """A recipe out of plain data.

        Raises:
            InputError: a field does not exist or has a value of the wrong kind.
        """
        from pydantic import TypeAdapter, ValidationError

        known = {item.name for item in fields(cls)}
        for name in data:
            if name not in known:
                raise UnknownName("recipe field", name, known)
        if data.get("recipe", RECIPES[0]) not in RECIPES:
            raise UnknownName("recipe", str(data["recipe"]), RECIPES)
        weights = data.get("weights")
        for name in weights if isinstance(weights, Mapping) else ():
            if name not in {item.name for item in fields(Weights)}:
                raise UnknownName("loss weight", name, {item.name for item in fields(Weights)})
        try:
            return TypeAdapter(cls).validate_python(dict(data))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(f"recipe field {where!r}: {first['msg']} (got {first['input']!r}).") from error

    @classmethod
    def from_toml(cls, path: Path) -> dict[str, Any]:
        """The fields that a TOML file sets, as plain data to be merged under the command line's."""
        import tomllib

        try:
            blob = path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read the config {path}: {error.strerror}.") from error
        try:
            return tomllib.loads(blob.decode())
        except ValueError as error:  # of TOML, or of UTF-8
            raise InputError(f"{path} is not valid TOML: {error}.") from error


def _without_none(data: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, dict) else value for key, value in data.items() if value is not None
    }
