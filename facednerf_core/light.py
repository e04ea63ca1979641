"""Light as nine numbers: real spherical harmonics of the world, how a camera sees them, and lights with a name.

A light says, for every direction, how much light comes from there: nine coefficients (..., 9) of the orthonormal real
spherical harmonics of bands 0, 1, 2, numbered l(l + 1) + m (Ramamoorthi and Hanrahan 2001: what a matte surface shows of its
surroundings is in these nine, to 1 %). There is **no Condon-Shortley phase**; `phased` converts from and to bases that have
it.

Directions are written on **light axes**: (right, away, up) as a viewer has them, which is DPR's frame (Zhou et al. 2019).
The viewer is a camera, for what it sees; for a light of the world it is the frontal camera, so that `on_world_axes` of
(x, y, z) is (x, -z, y), and the frontal camera sees a light with the numbers that it has in the world.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from facednerf_core.errors import InputError, UnknownName

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from torch import Tensor

COEFFICIENTS = 9
BANDS = (0, 1, 1, 1, 2, 2, 2, 2, 2)
"""The band l of each coefficient."""
PHASE = (1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0)
"""(-1)^m: what the Condon-Shortley phase multiplies the coefficients by."""
LAMBERT = tuple((math.pi, 2 * math.pi / 3, math.pi / 4)[band] for band in BANDS)
"""How much of each coefficient a matte surface shows (Ramamoorthi and Hanrahan 2001, Eq. 8)."""

DIRECTIONS: Mapping[str, tuple[float, float, float] | None] = {
    "ambient": None,
    "front": (0.0, 0.0, 1.0),
    "left": (-1.4, 0.0, 1.0),
    "right": (1.4, 0.0, 1.0),
    "top": (0.0, 1.4, 1.0),
    "bottom": (0.0, -1.4, 1.0),
    "top-left": (-1.0, 1.0, 1.0),
    "top-right": (1.0, 1.0, 1.0),
    "bottom-left": (-1.0, -1.0, 1.0),
    "bottom-right": (1.0, -1.0, 1.0),
    "back": (0.0, 0.0, -1.0),
}
"""The lights with a name: where in the world (x right, y up, z to where the subject looks) most of the light comes from, or
None for everywhere alike. Right is the frontal picture's. Sides are 55 degrees from its viewer, as in DPR's examples."""
STRENGTHS = (0.759, 0.574, 0.367)
"""The length of each band of a named light, as DPR's example lights have it after the factor 0.7 that DPR applies."""


def basis(directions: Tensor) -> Tensor:
    """The nine harmonics (..., 9) at unit directions (..., 3) on light axes."""
    import torch

    x, y, z = directions.unbind(-1)
    first, second = math.sqrt(3 / (4 * math.pi)), math.sqrt(15 / (4 * math.pi))
    harmonics = (
        torch.full_like(x, math.sqrt(1 / (4 * math.pi))),
        first * y,
        first * z,
        first * x,
        second * x * y,
        second * y * z,
        second / math.sqrt(12) * (3 * z * z - 1),
        second * x * z,
        second / 2 * (x * x - y * y),
    )
    return torch.stack(harmonics, dim=-1)


def shading(normals: Tensor, light: Tensor) -> Tensor:
    """How bright (...) a matte surface with normals (..., 3) on light axes is under lights (..., 9).

    In DPR's unit, where 1 leaves an albedo as it is; nothing keeps a light from being negative somewhere.
    """
    return (basis(normals) * light * light.new_tensor(LAMBERT)).sum(-1)


def phased(light: Tensor) -> Tensor:
    """The same light (..., 9) in the basis with the Condon-Shortley phase; of a light in that basis, the same light in ours.

    A light that is read in the wrong basis is the light turned by 180 degrees about the vertical.
    """
    return light * light.new_tensor(PHASE)


def rotation(turn: Tensor) -> Tensor:
    """The matrix (..., 9, 9) that turns coefficients as `turn` (..., 3, 3) turns directions, both on light axes:
    light'(turn d) = light(d).

    It is exact and differentiable. Band 1 are the coordinates themselves. Band 2 are the quadratic forms d^T M_i d of five
    orthonormal traceless symmetric M_i, so that its matrix has the entries trace(M_i turn M_j turn^T).
    """
    import torch

    matrix = torch.zeros(*turn.shape[:-2], COEFFICIENTS, COEFFICIENTS, dtype=turn.dtype, device=turn.device)
    matrix[..., 0, 0] = 1
    order = [1, 2, 0]  # y, z, x
    matrix[..., 1:4, 1:4] = turn[..., order, :][..., order]
    half, sixth = math.sqrt(1 / 2), math.sqrt(1 / 6)
    forms = turn.new_tensor(
        [
            [[0, half, 0], [half, 0, 0], [0, 0, 0]],
            [[0, 0, 0], [0, 0, half], [0, half, 0]],
            [[-sixth, 0, 0], [0, -sixth, 0], [0, 0, 2 * sixth]],
            [[0, 0, half], [0, 0, 0], [half, 0, 0]],
            [[half, 0, 0], [0, -half, 0], [0, 0, 0]],
        ]
    )
    # products and sums instead of matrix products, which autocast would round
    left = forms[:, None, :, None, :, None] * forms[None, :, None, :, None, :]  # M_i[a, b] M_j[c, d] at (i, j, a, c, b, d)
    right = turn[..., :, :, None, None] * turn[..., None, None, :, :]  # turn[a, c] turn[b, d]
    matrix[..., 4:, 4:] = (left * right[..., None, None, :, :, :, :]).sum(dim=(-4, -3, -2, -1))
    return matrix


def on_world_axes(direction: Tensor) -> Tensor:
    """World directions (..., 3), y up, on the light axes of the world."""
    import torch

    x, y, z = direction.unbind(-1)
    return torch.stack([x, -z, y], dim=-1)


def in_camera(light: Tensor, camera: Tensor) -> Tensor:
    """Lights of the world (..., 9) as cameras (..., 25) see them; leading dimensions are broadcast."""
    return _turned(light, rotation(_into(camera)))


def in_world(light: Tensor, camera: Tensor) -> Tensor:
    """Lights (..., 9) that cameras (..., 25) see, in the world; the inverse of `in_camera`."""
    return _turned(light, rotation(_into(camera)).mT)


def zonal(direction: Sequence[float], moments: Sequence[float]) -> Tensor:
    """The light (9,) that is a function f of the angle to one direction alone, rotationally symmetric around it.

        light_lm = 2 pi I_l Y_lm(d),   I_l = integral of f(u) P_l(u) over u = cos(angle) from -1 to 1   (Funk and Hecke)

    Args:
        direction: d, of any length, on light axes.
        moments: I_0, I_1, I_2.

    Returns:
        float64, on the CPU.

    Raises:
        InputError: the direction has no length.
    """
    import torch

    towards = torch.tensor(direction, dtype=torch.float64)
    length = towards.norm()
    if not (length > 0 and length.isfinite()):
        raise InputError(f"light from the direction {tuple(direction)} comes from nowhere; give three numbers, not all 0.")
    scale = torch.tensor([2 * math.pi * moments[band] for band in BANDS], dtype=torch.float64)
    return scale * basis(towards / length)


def named(name: str) -> Tensor:
    """A light of the world (9,), float32, by its name in `DIRECTIONS`: about as bright as a photo's, most of it from there.

    Raises:
        UnknownName: there is no such light.
    """
    import torch

    if name not in DIRECTIONS:
        raise UnknownName("light", name, DIRECTIONS, "Nine SH coefficients are a light, too.")
    direction = DIRECTIONS[name]
    if direction is None:
        return torch.tensor([STRENGTHS[0], *[0.0] * 8])
    towards = on_world_axes(torch.tensor(direction, dtype=torch.float64)).tolist()
    # a zonal band has the length 2 pi |I_l| sqrt((2 l + 1) / 4 pi)
    moments = [strength / math.sqrt(math.pi * (2 * band + 1)) for band, strength in enumerate(STRENGTHS)]
    return zonal(towards, moments).float()


def parse(text: str) -> Tensor:
    """The light of the world (9,), float32, that a user means: a name, or nine numbers between spaces or commas.

    Raises:
        UnknownName: neither a name nor numbers.
        InputError: other than nine numbers, or one that is not finite.
    """
    import torch

    words = text.replace(",", " ").split()
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        return named(text.strip().lower())
    if len(numbers) != COEFFICIENTS or not all(map(math.isfinite, numbers)):
        names = ", ".join(DIRECTIONS)
        raise InputError(f"a light is nine finite SH coefficients, not {len(numbers)} ({text!r}), or one of: {names}.")
    return torch.tensor(numbers)


def sphere(light: Tensor, size: int = 256) -> np.ndarray:
    """How a light (9,) looks: a matte ball (size, size) uint8 on black, seen by the viewer of its axes.

    The exposure is DPR's: the brightest 5 % of the whole square are cut, and the rest spans black to white.
    """
    import numpy as np
    import torch

    across = torch.linspace(-1, 1, size, dtype=torch.float64)
    x, z = across[None, :].expand(size, size), across.flip(0)[:, None].expand(size, size)
    ball = x.square() + z.square() <= 1
    y = -(1 - x.square() - z.square()).clamp_min(0).sqrt()
    normals = torch.stack([x, y, z], dim=-1) * ball[..., None]  # outside there is no normal: DPR counts its shading, too
    shown = shading(normals, light.detach().cpu().double()).numpy()
    shown = np.minimum(shown, np.percentile(shown, 95))
    span = shown.max() - shown.min()
    shown = (shown - shown.min()) / span if span > 0 else np.ones_like(shown)
    return (shown * 255).astype(np.uint8) * ball.numpy()


def _into(camera: Tensor) -> Tensor:
    """The turn (..., 3, 3) of directions from the light axes of the world to those of cameras (..., 25)."""
    import torch

    pose = camera[..., :16].unflatten(-1, (4, 4))
    right, down, forward = pose[..., :3, :3].unbind(-1)  # each (..., 3), in the world
    return on_world_axes(torch.stack([right, forward, -down], dim=-2))


def _turned(light: Tensor, matrix: Tensor) -> Tensor:
    if light.shape[-1] != COEFFICIENTS:
        raise InputError(f"a light is {COEFFICIENTS} SH coefficients (..., {COEFFICIENTS}), not {tuple(light.shape)}.")
    return (matrix * light.to(matrix.device).unsqueeze(-2)).sum(-1)
