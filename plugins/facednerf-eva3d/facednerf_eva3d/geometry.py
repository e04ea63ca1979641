"""What a camera sees of a posed body before any latent: rays, samples, and which part knows what of which sample.

None of it depends on the style. For a camera and a pose that stay, it is computed once, and an optimisation's step is left
with the parts' networks and the compositing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from facednerf_core.errors import InputError
from facednerf_eva3d.body import EXTENT, Body
from facednerf_eva3d.boxes import posed_boxes, spans
from facednerf_eva3d.parts import Part
from facednerf_eva3d.rays import pixel_rays
from facednerf_eva3d.stance import Stance

EMPTY = 1.0  # the signed distance where no part is, metres
FRONT = (0.0, 0.0, -1.0)  # the direction of view that networks are given where it is fixed


@dataclass(frozen=True)
class Known:
    """The samples that one part knows something of."""

    sample: Tensor  # int64 (M,), which of all samples
    inputs: Tensor  # (M, 6), position in the part's box, [-0.5, 0.5], and direction of view
    share: Tensor  # (M,), its share in the sample; the shares of all parts add up to 1


@dataclass(frozen=True)
class Geometry:
    """What is known of P samples."""

    base: Tensor  # (P,), signed distance to the template, blended over parts, metres; EMPTY where no part is
    parts: tuple[Known, ...]  # in the order of the parts


@dataclass(frozen=True)
class Sight:
    """What one camera sees of a posed body: R rays that meet a part's box, with S samples each."""

    size: tuple[int, int]  # height and width of the image
    rays: Tensor  # int64 (R,), which pixels, row by row
    origin: Tensor  # (3,)
    directions: Tensor  # (R, 3), unit length
    depths: Tensor  # (R, S), metres along the ray, increasing
    geometry: Geometry  # of the R S samples, ray by ray


def look(
    body: Body,
    stance: Stance,
    parts: Sequence[Part],
    camera: Tensor,
    size: tuple[int, int],
    *,
    samples: int,
    noise: Tensor | None = None,
    fixed_direction: bool = True,
    near: float | None = None,
) -> Sight:
    """What a camera (25,) sees of a body.

    A gradient reaches the camera and the pose through the samples' positions; where along its ray a sample lies, and which
    vertex carries it, has none.

    Args:
        body: the template's distances are read from it.
        stance: the body's pose.
        parts: the generator's parts.
        camera: the label.
        size: height and width of the image.
        samples: S, at least 2.
        noise: in [0, 1), how far each sample lies in its interval: (H W, S), or (R, S) for the rays that meet a box alone,
            as the original draws them. None: at its beginning.
        fixed_direction: whether networks are told that everything is seen from the front, as in all releases.
        near: samples begin no nearer than this, and boxes behind it are not met; None for the original, which looks
            backwards too.

    Raises:
        InputError: fewer than 2 samples, or noise of another shape.
    """
    if samples < 2:
        raise InputError(f"a ray needs at least 2 samples, not {samples}.")
    with torch.autocast(stance.vertices.device.type, enabled=False):
        origin, directions = pixel_rays(camera.to(stance.vertices), size)
        met = spans(origin, directions, stance, posed_boxes(stance.joints, body.parents, parts), parts)
        enter, leave, hit = met
        if near is not None:
            enter, hit = enter.clamp_min(near), hit & (leave > near)
        rays = hit.any(dim=0).nonzero()[:, 0]
        hit = hit[:, rays]
        first = torch.where(hit, enter[:, rays], torch.inf).amin(dim=0)  # (R,)
        last = torch.where(hit, leave[:, rays], -torch.inf).amax(dim=0)
        depths = sample_depths(first, last, samples, _of_rays(noise, rays, len(directions), samples))
        seen = directions[rays]
        points = origin + seen[:, None] * depths[:, :, None]  # (R, S, 3)
        along = seen[:, None].expand_as(points)
        asked = [on_ray[:, None].expand(-1, samples).flatten() for on_ray in hit]
        geometry = locate(
            body, stance, parts, points.flatten(0, 1), along.flatten(0, 1), asked, fixed_direction=fixed_direction
        )
        return Sight(size, rays, origin, seen, depths, geometry)


def sample_depths(first: Tensor, last: Tensor, samples: int, noise: Tensor | None = None) -> Tensor:
    """Depths (R, S) from `first` to `last`, each (R,): where S equal intervals begin, or `noise` (R, S) of the way on."""
    share = torch.linspace(0, 1 - 1 / samples, samples).to(first)
    depths = first[:, None] * (1 - share) + last[:, None] * share
    if noise is None:
        return depths
    ends = torch.cat([depths[:, 1:], last[:, None]], dim=1)
    return depths + (ends - depths) * noise.to(depths)


def locate(
    body: Body,
    stance: Stance,
    parts: Sequence[Part],
    points: Tensor,
    directions: Tensor,
    asked: Sequence[Tensor] | None = None,
    *,
    fixed_direction: bool = True,
    neighbours: int = 1,
) -> Geometry:
    """What the parts know of points in the world.

    Args:
        body: the template's distances are read from it.
        stance: the body's pose.
        parts: the generator's parts.
        points: (P, 3).
        directions: of view, (P, 3); not read where they are fixed.
        asked: for each part bool (P,), whether it is asked at all; None: every part is asked of every point.
        fixed_direction: see `look`.
        neighbours: see `Stance.canonical`.
    """
    with torch.autocast(points.device.type, enabled=False):
        points = points - stance.translation
        front = torch.tensor(FRONT).to(points)
        found, windows, distances = [], [], []
        total = torch.zeros_like(points[:, 0])
        for index, part in enumerate(parts):
            chosen = _reached(points, stance, part) if neighbours == 1 else torch.ones_like(total, dtype=torch.bool)
            if asked is not None:
                chosen = chosen & asked[index]
            sample = chosen.nonzero()[:, 0]
            carried = stance.canonical(points[sample], part, neighbours)
            low, high = torch.tensor([part.low, part.high]).to(points)
            inside = ((carried.points >= low) & (carried.points <= high)).all(dim=1).nonzero()[:, 0]
            sample, at = sample[inside], carried.points[inside]
            towards = front.expand_as(at)
            if not fixed_direction:
                towards = (carried.linear[inside] @ directions[sample][:, :, None])[..., 0]
            position = (at - low) / (high - low) - 0.5
            window = torch.exp(-4.0 * (2.0 * position).pow(8).sum(dim=1))
            total = total.index_add(0, sample, window)
            found.append((sample, torch.cat([position, towards], dim=1)))
            windows.append(window)
            distances.append(template_distance(body.template_sdf, at))
        base = torch.where(total > 0, 0.0, EMPTY).to(total)
        known = []
        for (sample, inputs), window, distance in zip(found, windows, distances, strict=True):
            share = window / total[sample]
            base = base.index_add(0, sample, share * distance)
            known.append(Known(sample, inputs, share))
        return Geometry(base, tuple(known))


def template_distance(volume: Tensor, points: Tensor) -> Tensor:
    """Signed distances (P,) at canonical points (P, 3), metres, from a volume (X, Y, Z) over [-EXTENT, EXTENT]^3.

    Trilinear between the volume's points, of which the outermost lie on its faces; beyond them, the nearest face's value.
    """
    if not len(points):
        return points[:, 0]
    grid = (points / EXTENT).flip(1)[None, None, None]  # (1, 1, 1, P, 3), the last axis of the volume first
    field = volume.to(points)[None, None]
    return F.grid_sample(field, grid, mode="bilinear", padding_mode="border", align_corners=True)[0, 0, 0, 0]


@torch.no_grad()
def _reached(points: Tensor, stance: Stance, part: Part) -> Tensor:
    """Whether points (P, 3) may lie in the part's canonical box at all, bool (P,); cheap, and never wrong about a no."""
    axes, low, high = stance.reach(part)
    along = points @ axes.mT
    return ((along >= low) & (along <= high)).all(dim=1)


def _of_rays(noise: Tensor | None, rays: Tensor, pixels: int, samples: int) -> Tensor | None:
    if noise is None:
        return None
    if tuple(noise.shape) == (len(rays), samples):
        return noise
    if tuple(noise.shape) == (pixels, samples):
        return noise.to(rays.device)[rays]
    raise InputError(
        f"depth noise is ({pixels}, {samples}), for every pixel, or ({len(rays)}, {samples}), for every ray that meets the "
        f"body; not {tuple(noise.shape)}."
    )
