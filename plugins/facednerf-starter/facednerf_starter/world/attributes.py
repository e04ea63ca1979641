"""Who a head is: the world's deterministic map from a Gaussian draw to named attributes."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from facednerf_starter.world import light as lighting

Z_DIM: int = 147
"""Numbers in one Gaussian draw; a head is a function of nothing else."""

COLORS = ("black", "brown", "blond", "red", "grey", "white", "blue", "green", "pink", "purple")
LABELS: dict[str, tuple[str, ...]] = {
    "hair_style": ("bald", "short", "long", "curly"),
    "hair_color": COLORS,
    "beard": ("none", "beard", "goatee"),
    "moustache": ("no", "yes"),
    "glasses": ("no", "yes"),
    "glasses_color": ("black", "brown", "red", "blue", "gold", "silver"),
    "hat": ("no", "yes"),
    "hat_kind": ("beanie", "cap", "brimmed"),
    "hat_color": ("red", "blue", "green", "black", "grey", "yellow", "purple", "white"),
    "lipstick": ("no", "yes"),
    "expression": ("neutral", "smile", "frown", "angry", "surprised", "open mouth"),
    "eye_color": ("brown", "blue", "green", "grey"),
    "clothes": ("crew neck", "collar", "v-neck", "turtleneck"),
    "clothes_color": ("white", "black", "grey", "blue", "red", "green", "yellow", "orange", "pink", "brown"),
}
"""The names of the values of every categorical attribute, in the order of their numbers."""

UNIT: tuple[str, ...] = (
    "age", "femininity", "skin", "undertone", "intensity", "hair_length", "hair_volume", "fringe", "recession",
    "wave", "hair_shade", "beard_length", "stubble", "blush", "freckles", "makeup", "glasses_size", "glasses_round",
    "glasses_thickness", "hat_shade", "clothes_shade", "clothes_pattern", "brow_thickness", "teeth", "gloss",
)  # fmt: skip
"""Continuous attributes within [0, 1]."""

SHAPE: tuple[str, ...] = (
    "face_width", "face_length", "jaw_width", "chin_length", "chin_width", "cheekbone", "weight", "brow_ridge",
    "forehead", "cranium_height", "cranium_depth", "eye_size", "eye_open", "eye_spacing", "eye_tilt", "eye_depth",
    "brow_height", "brow_arch", "nose_length", "nose_width", "nose_bridge", "nose_tip", "nose_hump", "mouth_width",
    "mouth_height", "lip_upper", "lip_lower", "muzzle", "ear_size", "ear_angle", "neck", "shoulders", "part",
    "asymmetry", "mouth_tilt", "gaze_x", "gaze_y", "phase_a", "phase_b", "phase_c",
)  # fmt: skip
"""Shape attributes: roughly standard normal, within [-2.2, 2.2]."""

IDENTITY: tuple[str, ...] = ("femininity", "skin", "undertone", "eye_color", *SHAPE[:32], "asymmetry")
"""What stays with a person while hair, clothes, expression, age and light change."""

_LIGHT_DIMS = 16


@dataclass(frozen=True)
class Attributes:
    """N heads by name: `unit` within [0, 1], `shape` about standard normal, `category` numbers, and their light."""

    unit: Tensor  # (N, len(UNIT))
    shape: Tensor  # (N, len(SHAPE))
    category: Tensor  # (N, len(LABELS)) long
    light: Tensor  # (N, 3, 9) SH coefficients of the shading, see `light.py`

    def __len__(self) -> int:
        return self.unit.shape[0]

    def __getitem__(self, heads: int | slice | Tensor | Sequence[int]) -> Attributes:
        chosen = [heads] if isinstance(heads, int) else heads
        return Attributes(self.unit[chosen], self.shape[chosen], self.category[chosen], self.light[chosen])

    def __getattr__(self, name: str) -> Tensor:
        column = _COLUMNS.get(name)
        if column is None:
            raise AttributeError(f"a head has no attribute {name!r}; it has {', '.join(_COLUMNS)}")
        field, index = column
        return object.__getattribute__(self, field)[:, index]  # (N,)

    def named(self, name: str, head: int) -> str:
        """The word for a categorical attribute of one head."""
        return LABELS[name][int(getattr(self, name)[head])]

    def replace(self, **changes: Tensor | float | int | str) -> Attributes:
        """The same heads with some attributes changed; a category may be given by its word; `light` (N, 3, 9) too."""
        fields = {f.name: getattr(self, f.name).clone() for f in dataclasses.fields(self)}
        for name, value in changes.items():
            if name == "light":
                fields["light"] = torch.as_tensor(value, device=self.unit.device).expand_as(self.light).clone()
                continue
            if name not in _COLUMNS:
                raise AttributeError(f"a head has no attribute {name!r}; it has light, {', '.join(_COLUMNS)}")
            field, index = _COLUMNS[name]
            number = LABELS[name].index(value) if isinstance(value, str) else value
            fields[field][:, index] = torch.as_tensor(number, device=self.unit.device).to(fields[field].dtype)
        return Attributes(**fields)

    def dressed_as(self, other: Attributes) -> Attributes:
        """The same people (`IDENTITY`) in the style, expression, age and light of `other`."""
        return other.replace(**{name: getattr(self, name) for name in IDENTITY})

    def vector(self) -> Tensor:
        """Every attribute as numbers (N, A): `UNIT`, `SHAPE`, then one-hot categories; the light is not in it."""
        hots = [
            torch.nn.functional.one_hot(self.category[:, i], len(words)).to(self.unit)
            for i, words in enumerate(LABELS.values())
        ]
        return torch.cat([self.unit, self.shape, *hots], dim=1)

    def to(self, device: torch.device | str) -> Attributes:
        """The same heads on a device."""
        return Attributes(*(getattr(self, f.name).to(device) for f in dataclasses.fields(self)))

    @staticmethod
    def cat(parts: Sequence[Attributes]) -> Attributes:
        """Several sets of heads as one."""
        return Attributes(*(torch.cat([getattr(p, f.name) for p in parts]) for f in dataclasses.fields(Attributes)))


_COLUMNS: dict[str, tuple[str, int]] = (
    {name: ("unit", i) for i, name in enumerate(UNIT)}
    | {name: ("shape", i) for i, name in enumerate(SHAPE)}
    | {name: ("category", i) for i, name in enumerate(LABELS)}
)
VECTOR: tuple[str, ...] = (*UNIT, *SHAPE, *(f"{name}={word}" for name, words in LABELS.items() for word in words))
"""The names of the columns of `Attributes.vector()`."""


def draw(seed: int, first: int, count: int) -> Tensor:
    """`count` Gaussian draws (count, Z_DIM) on the CPU; head i is a function of (seed, i) alone."""
    rows = [np.random.Generator(np.random.Philox(key=[seed, i])).standard_normal(Z_DIM) for i in range(first, first + count)]
    return torch.from_numpy(np.stack(rows).astype(np.float32)) if rows else torch.zeros(0, Z_DIM)


@functools.cache
def _mixing() -> Tensor:
    """The fixed orthogonal matrix that keeps any axis of z from being an attribute, (Z_DIM, Z_DIM) float64."""
    gaussian = np.random.Generator(np.random.Philox(key=[20261123, 0])).standard_normal((Z_DIM, Z_DIM))
    q, r = np.linalg.qr(gaussian)
    return torch.from_numpy(q * np.sign(np.diag(r)))


def _choose(chance: Tensor, weights: Tensor) -> Tensor:
    """Categories (N,) of chances (N, K) uniform in [0, 1], each with a probability in proportion to its weight.

    The Gumbel-max rule: each category has a number of its own to speak for it, so that a network which reads z finds
    a choice between plain directions, not narrow intervals of one. `weights` (N, K) or (K,) are not normalised.
    """
    gumbel = -(-chance.clamp(1e-12, 1 - 1e-12).log()).log()
    return (gumbel + weights.log()).argmax(1)


def decode(z: Tensor) -> Attributes:
    """The heads of Gaussian draws z (N, Z_DIM), on z's device; computed in float64, so that devices agree."""
    g = z.double() @ _mixing().to(z.device)
    words = [len(values) for values in LABELS.values()]
    unit_g, shape_g, category_g, light_g = g.split([len(UNIT), len(SHAPE), sum(words), _LIGHT_DIMS], dim=1)
    unit = 0.5 * (1 + torch.erf(unit_g / math.sqrt(2)))
    chance = 0.5 * (1 + torch.erf(category_g / math.sqrt(2)))
    shape = shape_g.clamp(-2.2, 2.2)
    u = {name: unit[:, i] for i, name in enumerate(UNIT)}
    c = dict(zip(LABELS, chance.split(words, dim=1), strict=True))

    def smooth(x: Tensor) -> Tensor:
        return x.clamp(0, 1) ** 2 * (3 - 2 * x.clamp(0, 1))

    femininity = smooth(1.3 * u["femininity"] - 0.15)  # two soft modes
    age = u["age"]
    male, female, old = 1 - femininity, femininity, smooth((age - 0.45) / 0.45)

    def stacked(*columns: Tensor | float) -> Tensor:
        return torch.stack([torch.as_tensor(v, dtype=age.dtype, device=age.device).expand_as(age) for v in columns], 1)

    dark = smooth((u["skin"] - 0.4) / 0.5)
    values: dict[str, Tensor] = {}
    values["hair_style"] = _choose(
        c["hair_style"],
        stacked(0.03 + 0.24 * male + 0.10 * old * male, 0.16 + 0.36 * male, 0.06 + 0.48 * female, 0.20),
    )
    natural = 0.80
    values["hair_color"] = _choose(
        c["hair_color"],
        stacked(
            natural * (1 - old) * (0.24 + 0.5 * dark), natural * (1 - old) * (0.30 - 0.1 * dark),
            natural * (1 - old) * 0.24 * (1 - 0.8 * dark), natural * (1 - old) * 0.18 * (1 - 0.7 * dark),
            natural * (0.55 * old + 0.02), natural * (0.42 * old + 0.01),
            0.065, 0.045, 0.05, 0.045,
        ),
    )  # fmt: skip
    young = smooth((age - 0.05) / 0.12)
    values["beard"] = _choose(c["beard"], stacked(1.0, young * (0.02 + 0.55 * male**1.5), young * (0.01 + 0.25 * male**1.5)))
    bearded = (values["beard"] > 0).double()
    values["moustache"] = _choose(c["moustache"], stacked(1.0, young * (0.01 + 0.16 * male + bearded * 2.2 * (male + 0.2))))
    values["glasses"] = _choose(c["glasses"], stacked(0.70 - 0.08 * old, 0.28 + 0.10 * old))
    values["glasses_color"] = _choose(c["glasses_color"], stacked(0.38, 0.16, 0.14, 0.12, 0.10, 0.10))
    values["hat"] = _choose(c["hat"], stacked(0.85, 0.15))
    values["hat_kind"] = _choose(c["hat_kind"], stacked(0.45, 0.30, 0.25))
    values["hat_color"] = _choose(c["hat_color"], stacked(0.2, 0.2, 0.12, 0.12, 0.12, 0.08, 0.08, 0.08))
    values["lipstick"] = _choose(c["lipstick"], stacked(0.95 - 0.42 * female, 0.05 + 0.42 * female**2))
    values["expression"] = _choose(c["expression"], stacked(0.36, 0.32, 0.08, 0.07, 0.07, 0.10))
    values["eye_color"] = _choose(c["eye_color"], stacked(0.40 + 1.6 * dark, 0.28, 0.18, 0.14))
    values["clothes"] = _choose(c["clothes"], stacked(0.4, 0.25, 0.2, 0.15))
    values["clothes_color"] = _choose(c["clothes_color"], stacked(0.12, 0.13, 0.12, 0.18, 0.1, 0.08, 0.06, 0.07, 0.06, 0.08))
    u["femininity"] = femininity
    return Attributes(
        torch.stack([u[name] for name in UNIT], 1).float(),
        shape.float(),
        torch.stack([values[name] for name in LABELS], 1),
        lighting.decode(light_g).float(),
    )
