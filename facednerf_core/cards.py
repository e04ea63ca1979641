"""What a plugin says of itself before it is built: plain data, no torch, so that listing plugins costs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from facednerf_core.errors import InputError

if TYPE_CHECKING:
    import torch

API_VERSION = 1  # of the hooks, the cards and the interfaces
ANY = "any"  # a domain that fits every generator
Provides = Literal["depth", "mask", "density", "landmarks"]
Product = TypeVar("Product", covariant=True)


@dataclass(frozen=True)
class NoOptions:
    """A plugin without options."""


class Build(Protocol[Product]):
    """Makes the plugin; imports its heavy libraries inside. `weights` is None for a plugin that needs none."""

    def __call__(self, device: torch.device, weights: LocalWeights | None, **options: Any) -> Product: ...


@dataclass(frozen=True)
class Card(Generic[Product]):
    """A plugin, described: what it is called, what it can judge or draw, and how to build it."""

    name: str
    summary: str
    build: Build[Product]
    domains: tuple[str, ...] = (ANY,)  # face, head, cat, car, body, or any
    sees: float = 3.2  # the largest |yaw| it can judge, radians
    weight: float = 1.0  # a factor on its term in every stage: less where its loss is larger than others of its kind
    options: type = NoOptions  # a dataclass: its fields are the plugin's options
    needs_weights: bool = True
    api: int = API_VERSION

    def fits(self, domains: tuple[str, ...]) -> bool:
        """Whether it knows one of these domains."""
        return ANY in self.domains or ANY in domains or bool(set(self.domains) & set(domains))

    def checked(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options as keyword arguments, validated against the options dataclass.

        Raises:
            InputError: an option does not exist, or has a value of the wrong kind.
        """
        from pydantic import TypeAdapter, ValidationError

        known = [item.name for item in fields(self.options)]
        for name in given:
            if name not in known:
                raise InputError(f"{self.name} has no option {name!r}; it has: {', '.join(known) or 'none'}.")
        try:
            built: Any = TypeAdapter(self.options).validate_python(dict(given))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(f"option {where!r} of {self.name}: {first['msg']} (got {first['input']!r}).") from error
        return {name: getattr(built, name) for name in known}


@dataclass(frozen=True)
class WeightsCard:
    """A set of trained weights: for which plugin, what it can do, whence it comes, and under which licence."""

    name: str  # of the form plugin/variant, such as eg3d/starter
    plugin: str  # the name the plugin's card carries
    kind: str  # generator, guidance, identity, relighter, inverter, detector, metric, perceptual
    pack: str  # starter, official, or another set that belongs together; any: serves every pack, as what judges photos
    summary: str
    domains: tuple[str, ...] = (ANY,)
    files: Mapping[str, str] = field(default_factory=dict)  # role -> file or folder name inside `folder`
    folder: Path | None = None  # where the files lie, if a distribution ships them
    sha256: Mapping[str, str] = field(default_factory=dict)  # role -> hash of a shipped or imported file
    licence: str = "unknown"
    terms_of_use: str = ""  # what the licence forbids, shown before use
    source: str = ""  # where to get it, if not shipped
    converter: str = ""  # "module:function" that turns an official file into our files
    size: int = 0  # bytes
    resolution: int = 0  # height of the images it draws or was trained on, pixels; orbit's aspect tells the width
    latent: tuple[int, int] | None = None  # (L, C)
    provides: tuple[Provides, ...] = ()
    pose: int = 0  # numbers of a pose, P
    crop: Mapping[str, float] = field(default_factory=dict)  # how a photo is framed; see photos.py
    orbit: Mapping[str, Any] = field(default_factory=dict)  # arguments of views.Orbit
    background: Literal["own", "white", "black"] = "own"  # what stands behind the subject in its images
    vocabulary: tuple[str, ...] = ()  # the only words that its text encoder knows; empty: any word, or no text at all
    options: Mapping[str, Any] = field(default_factory=dict)  # options that this set of weights wants by default


@dataclass(frozen=True)
class LocalWeights:
    """A weights card and the local paths of its verified files."""

    card: WeightsCard
    paths: Mapping[str, Path]  # role -> file or folder

    def __getitem__(self, role: str) -> Path:
        return self.paths[role]
