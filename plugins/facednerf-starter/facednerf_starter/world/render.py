"""Pictures of the world: sphere tracing, shading, and the truth beside every pixel."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from facednerf_starter.world import light as lighting
from facednerf_starter.world import skin as surfaces
from facednerf_starter.world import wear
from facednerf_starter.world.anatomy import ADVANCE, AFAR, RAISE, UNIT, Measures, measure
from facednerf_starter.world.attributes import Attributes
from facednerf_starter.world.cameras import rays
from facednerf_starter.world.fields import join, step
from facednerf_starter.world.hair import CROWN, hair
from facednerf_starter.world.heads import face
from facednerf_starter.world.landmarks import landmarks
from facednerf_starter.world.palette import finish, palette

STEPS = 44
"""Of a ray, at most. Those that graze a surface for long are spent before they hit what lies behind: see `render`."""
COARSE = 128
"""Pixels across a picture that is too coarse for single strands of hair; at twice as many they are all there."""
RELAXATION = 0.92
CLOSE = 0.006
"""A ray has hit where the distance is below this, in decimetres."""

ALL = frozenset({"hair", "glasses", "hat"})
UNSETTLED = 0.02
"""A ray whose steps are spent has hit where the distance is below this."""

Point = tuple[Tensor, Tensor, Tensor]
"""x, y and z of as many points (N, R) of N heads, in decimetres."""


class Field(Protocol):
    """A distance (N, R) at points (N, R) of heads with some measures."""

    def __call__(self, x: Tensor, y: Tensor, z: Tensor, m: Measures) -> Tensor: ...


@dataclass(frozen=True)
class WorldRendering:
    """Pictures over white, and their truth: N heads in V views of H x W pixels."""

    image: Tensor  # (N, V, 3, H, W) [-1, 1]
    mask: Tensor  # (N, V, 1, H, W) [0, 1], antialiased
    depth: Tensor  # (N, V, 1, H, W) Euclidean distance along the ray, 0 where nothing is hit
    normal: Tensor  # (N, V, 3, H, W) unit, in the world; 0 where nothing is hit
    albedo: Tensor  # (N, V, 3, H, W) [0, 1] sRGB; 0 where nothing is hit
    landmarks: Tensor  # (N, V, K, 2) [0, 1] image coordinates, x right, y down


def parts(
    x: Tensor, y: Tensor, z: Tensor, m: Measures, detail: bool, has: frozenset[str] = ALL
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Distances (N, R) to skin, eyes, teeth, hair, glasses, hat, clothes; and the beard's growth.

    What `has` leaves out is known to be absent from every head, and costs nothing.
    """
    flesh, eyes, teeth, grown = face(x, y, z, m, detail)
    bare, cloth = wear.clothes(x, y, z, m, detail)
    flesh = join(flesh, bare, 0.30)
    away = torch.full_like(x, AFAR)
    tress = hair(x, y, z, m, detail) if "hair" in has else away
    frame = wear.glasses(x, y, z, m) if "glasses" in has else away
    top = wear.hat(x, y, z, m, detail) if "hat" in has else away
    return (flesh, eyes, teeth, tress, frame, top, cloth), grown


def distance(x: Tensor, y: Tensor, z: Tensor, m: Measures, has: frozenset[str] = ALL) -> Tensor:
    """The distance (N, R), a slight underestimate, to the nearest surface at points in the model's decimetres."""
    return functools.reduce(torch.minimum, parts(x, y, z, m, False, has)[0])


def detailed(x: Tensor, y: Tensor, z: Tensor, m: Measures, has: frozenset[str] = ALL) -> Tensor:
    """As `distance`, with the fine relief that only normals feel."""
    return functools.reduce(torch.minimum, parts(x, y, z, m, True, has)[0])


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    """`distance`, compiled; `detailed` is called four times a picture and not worth as long a compilation."""
    compiled: Callable[..., Tensor] = torch.compile(distance, dynamic=False)
    return compiled


def _bounds(origin: Point, direction: Point) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave the box of +-0.5 world units, in decimetres along them; far <= near where they miss."""
    half, centre = 0.5 / UNIT, (0.0, -RAISE / UNIT, -ADVANCE / UNIT)
    near = torch.zeros_like(origin[0])
    far = torch.full_like(origin[0], 1e3)
    for o, d, c in zip(origin, direction, centre, strict=True):
        safe = torch.where(d.abs() < 1e-6, torch.full_like(d, 1e-6), d)
        a, b = (c - half - o) / safe, (c + half - o) / safe
        near = torch.maximum(near, torch.minimum(a, b))
        far = torch.minimum(far, torch.maximum(a, b))
    return near, far


def _trace_dense(field: Field, m: Measures, o: Point, d: Point, steps: int) -> tuple[Tensor, Tensor]:
    """Sphere tracing of rays (N, R) without looking at the values: where each ends, and whether on a surface."""
    t, far = _bounds(o, d)
    gap = torch.full_like(t, 1.0)
    for _ in range(steps):
        gap = field(o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2], m)
        t = torch.where((gap > 0.3 * CLOSE) & (t < far), t + RELAXATION * gap, t)
    return t, (gap < UNSETTLED) & (t < far)


def _trace_sparse(field: Field, m: Measures, o: Point, d: Point, steps: int) -> tuple[Tensor, Tensor]:
    """As `_trace_dense` for one head (1, R), evaluating only the rays still on their way."""
    t, far = _bounds(o, d)
    hit = torch.zeros_like(t, dtype=torch.bool)
    live = (t < far)[0].nonzero()[:, 0]
    for i in range(steps):
        ox, oy, oz, dx, dy, dz = (v[:, live] for v in (*o, *d))
        now = t[:, live]
        gap = field(ox + now * dx, oy + now * dy, oz + now * dz, m)
        done = gap <= (0.3 * CLOSE if i + 1 < steps else UNSETTLED)
        hit[:, live] |= done
        now = torch.where(done, now, now + RELAXATION * gap)
        t[:, live] = now
        live = live[(~done & (now < far[:, live]))[0]]
        if not len(live):
            break
    return t, hit & (t < far)


def _coordinates(points: Tensor) -> Point:
    x, y, z = points.unbind(-1)
    return x.contiguous(), y.contiguous(), z.contiguous()


def _moved(p: Point, along: Tensor, reach: float) -> Point:
    """Points (N, R) moved by `reach` along vectors (N, R, 3)."""
    return p[0] + reach * along[..., 0], p[1] + reach * along[..., 1], p[2] + reach * along[..., 2]


def _gradient(field: Field, p: Point, m: Measures, eps: float = 0.007) -> Tensor:
    """Unit normals (N, R, 3) from four differences of a field."""
    x, y, z = p
    total = [torch.zeros_like(x) for _ in range(3)]
    for signs in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        value = field(x + signs[0] * eps, y + signs[1] * eps, z + signs[2] * eps, m)
        total = [g + s * value for g, s in zip(total, signs, strict=True)]
    return torch.nn.functional.normalize(torch.stack(total, -1), dim=-1)


def _occlusion(field: Field, p: Point, n: Tensor, m: Measures) -> Tensor:
    """How open (N, R) the sky is above points, from two probes along the normal."""
    blocked = torch.zeros_like(p[0])
    for reach, weight in ((0.07, 0.35), (0.28, 0.5)):
        value = field(*_moved(p, n, reach), m)
        blocked = blocked + weight * (1 - value / reach).clamp(0, 1)
    return 1 - blocked


def _shadow(field: Field, p: Point, n: Tensor, towards: Tensor, m: Measures) -> Tensor:
    """How much (N, R) of the key light arrives at points, with soft edges; `towards` is (N, 3)."""
    arrived = torch.ones_like(p[0])
    start = _moved(p, n, 0.03)
    for reach in (0.06, 0.12, 0.22, 0.38, 0.65, 1.05):
        value = field(*_moved(start, towards[:, None], reach), m)
        arrived = torch.minimum(arrived, (0.35 + 3.2 * value / reach).clamp(0, 1))
    return arrived


def _glint(n: Tensor, half: Tensor, power: float) -> Tensor:
    return (n * half).sum(-1).clamp_min(0) ** power


@dataclass(frozen=True)
class _Surface:
    """What N heads are at points (N, R) on their surface, whatever the light."""

    kind: Tensor  # (N, R) int64: skin, eyes, teeth, hair, glasses, hat, clothes
    normal: Tensor  # (N, R, 3)
    albedo: Tensor  # (N, R, 3)
    red: Tensor  # (N, R) how much of a lip or a blush
    fur: Tensor  # (N, R) how much of a beard or a brow
    wet: Tensor  # (N, R)
    oil: Tensor  # (N, R) how much skin shines, about 1
    open_sky: Tensor  # (N, R)


def _surface(
    a: dict[str, Tensor], c: dict[str, Tensor], f: dict[str, Tensor], p: Point, field: Field, fine: Field, sharp: float
) -> _Surface:
    """The surface at points on it, with strands of hair as far as pictures are `sharp` enough for them."""
    x, y, z = p
    distances, grown = parts(x, y, z, a, False)
    kind = torch.stack(distances, 0).argmin(0)  # (N, R)
    n = _gradient(fine, p, a)
    flesh, red, fur = surfaces.skin(x, y, z, a, c, f, grown, sharp)
    eye, wet = surfaces.eyes(x, y, z, a, c, f)
    layers = (
        flesh, eye, surfaces.teeth(x, a, sharp), surfaces.hairs(x, y, z, a, c, sharp), c["glasses"].expand_as(flesh),
        surfaces.hat(x, y, z, a, c), surfaces.cloth(x, y, z, c, f),
    )  # fmt: skip
    albedo = flesh
    for index, layer in enumerate(layers[1:], start=1):
        albedo = torch.where((kind == index)[..., None], layer, albedo)
    oil = surfaces.oil(x, y, z, a, sharp)
    return _Surface(kind, n, albedo.clamp(0, 1), red, fur, wet, oil, _occlusion(field, p, n, a))


def _shade(
    at: _Surface, a: dict[str, Tensor], f: dict[str, Tensor], light: Tensor, p: Point, d: Point, field: Field
) -> Tensor:
    """Colour (N, R, 3) at points on the surface under a light (N, 3, 9)."""
    x, y, z = p
    kind, n, albedo, open_sky = at.kind, at.normal, at.albedo, at.open_sky
    key = lighting.key_direction(light)
    power = light[:, :, 1:4].norm(dim=-1)[:, None]  # (N, 1, 3)
    arrived = _shadow(field, p, n, key, a)
    facing = (n * key[:, None]).sum(-1)
    directed = (power.mean(-1) / light[:, :, 0].mean(-1, keepdim=True).clamp_min(1e-3)).clamp(0, 1)
    shadow = 1 - 0.75 * directed * (1 - arrived) * step(facing, -0.35, 0.35)
    is_skin, is_hair = (kind == 0)[..., None], kind == 3
    through = torch.tensor([0.62, 0.86, 0.92], device=x.device)  # light goes through skin, red light farthest
    shadow = torch.where(is_skin, shadow[..., None] ** through, shadow[..., None])
    shading = lighting.shade(n, light).clamp_min(0.015) * open_sky[..., None] * shadow
    warm = torch.tensor([0.90, 1.02, 1.06], device=x.device)
    shading = torch.where(is_skin, shading.clamp_min(1e-3) ** warm, shading)
    radiance = albedo**2.2 * shading

    view = -torch.stack(d, -1)
    half = torch.nn.functional.normalize(view + key[:, None], dim=-1)
    across = torch.stack([x - CROWN[0], y - CROWN[1] - 0.3, z - CROWN[2]], -1)
    along = across - (across * n).sum(-1, keepdim=True) * n
    along = torch.nn.functional.normalize(along + 1e-6, dim=-1)
    sheen = (1 - (along * half).sum(-1) ** 2).clamp(1e-4, 1)
    hair_glint = 0.30 * sheen**24 + 0.10 * sheen**6
    grazing = (1 - (n * view).sum(-1).clamp(0, 1)) ** 4
    narrow = _glint(n, half, 40) * (1 + 4 * at.red)
    skin_glint = f["gloss"] * (at.oil * (0.032 * _glint(n, half, 12) + 0.075 * narrow) + 0.035 * grazing)
    skin_glint = skin_glint * (1 - 0.7 * at.fur)
    flash = torch.nn.functional.normalize(view + torch.tensor([0.25, 0.5, 0.2], device=x.device), dim=-1)
    wet_glint = at.wet * (0.9 * _glint(n, half, 250) + 0.5 * _glint(n, flash, 400) + 0.06 * grazing)
    glint = torch.zeros_like(x)
    for index, value in enumerate(
        (skin_glint, wet_glint, 0.25 * _glint(n, half, 30), hair_glint * 0.35, 0.5 * _glint(n, half, 60), 0 * x, 0 * x)
    ):
        glint = torch.where(kind == index, value, glint)
    tint = torch.where(is_hair[..., None], albedo**1.1 * 1.6 + 0.08, torch.ones_like(albedo))
    lit = (arrived * step(facing, -0.3, 0.2) * open_sky)[..., None] * power
    radiance = radiance + glint[..., None] * tint * torch.where((kind == 1)[..., None], power + 0.3, lit)
    radiance = torch.where(radiance > 0.7, 0.7 + 0.3 * (1 - (-(radiance - 0.7) / 0.3).exp()), radiance)
    return radiance.clamp(0, 1) ** (1 / 2.2)


def _pool(x: Tensor, k: int) -> Tensor:
    """Means over k x k pixels of (N, V, C, H, W)."""
    return torch.nn.functional.avg_pool2d(x.flatten(0, 1), k).unflatten(0, x.shape[:2]) if k > 1 else x


@torch.no_grad()
def render(
    attributes: Attributes, cameras: Tensor, size: int, *, supersample: int = 2, light: Tensor | None = None,
    compile: bool = False, steps: int = STEPS,
) -> WorldRendering:  # fmt: skip
    """Pictures of N heads in V views, cameras (N, V, 25), on the device of the attributes.

    `light` (N, 3, 9) replaces the light of the attributes. On a CPU each head is traced by itself and only where it
    is still needed; elsewhere all at once and densely. `compile` compiles the distance function (worth it on a GPU).
    `steps` of a ray: with the usual number single pixels beside an edge stay empty.
    """
    light = attributes.light if light is None else light
    return relit(attributes, cameras, size, light[:, None], supersample=supersample, compile=compile, steps=steps)[1]


@torch.no_grad()
def relit(
    attributes: Attributes, cameras: Tensor, size: int, lights: Tensor, *, supersample: int = 2, compile: bool = False,
    steps: int = STEPS,
) -> tuple[Tensor, WorldRendering]:  # fmt: skip
    """Pictures (N, V, L, 3, H, W) of N heads under L lights each, (N, L, 3, 9), and the rendering under the first of them.

    The surface is found once for all lights, so that a further light costs a fraction of a rendering. Otherwise as
    `render`, whose pictures these are.
    """
    cameras = cameras.to(attributes.unit)
    if cameras.device.type != "cpu":
        return _render(attributes, cameras, size, supersample, lights, False, compile, steps)
    found = [
        _render(attributes[[i]], cameras[i : i + 1], size, supersample, lights[i : i + 1], True, compile, steps)
        for i in range(len(attributes))
    ]
    shown = [first for _, first in found]
    together = {name: torch.cat([getattr(p, name) for p in shown]) for name in WorldRendering.__annotations__}
    return torch.cat([image for image, _ in found]), WorldRendering(**together)


def _present(a: Attributes) -> frozenset[str]:
    worn = {"hair": a.hair_style > 0, "glasses": a.glasses > 0, "hat": a.hat > 0}
    return frozenset(name for name, on in worn.items() if bool(on.any()))


def _render(
    attributes: Attributes,
    cameras: Tensor,
    size: int,
    k: int,
    lights: Tensor,
    sparse: bool,
    compile: bool,
    steps: int = STEPS,
) -> tuple[Tensor, WorldRendering]:
    count, views = cameras.shape[:2]
    has = _present(attributes) if sparse else ALL
    field: Field = functools.partial(_compiled() if compile else distance, has=has)
    fine: Field = functools.partial(detailed, has=has)
    m, c, f = measure(attributes), palette(attributes), finish(attributes)
    origin, direction = (v.reshape(count, -1, 3) for v in rays(cameras, size * k))
    origin = (origin - torch.tensor([0, RAISE, ADVANCE], device=origin.device)) / UNIT
    o, d = _coordinates(origin), _coordinates(direction)
    t, hit = (_trace_sparse if sparse else _trace_dense)(field, m, o, d, steps)
    chosen = hit[0].nonzero()[:, 0] if sparse else slice(None)
    at = _coordinates((torch.stack(o, -1) + t[..., None] * torch.stack(d, -1))[:, chosen])
    towards = _coordinates(torch.stack(d, -1)[:, chosen])
    sharp = min(max((size - COARSE) / COARSE, 0.0), 1.0)
    surface = _surface(m, c, f, at, field, fine, sharp)
    colours = [_shade(surface, m, f, light, at, towards, field) for light in lights.unbind(1)]
    solid = hit[..., None].float()

    def flat(values: Sequence[Tensor], more: Sequence[Tensor] = ()) -> Tensor:
        """Maps (N, V, C, H k, W k) of what was found at the chosen points (N, R', C'), and of what is known of all rays."""
        drawn = torch.zeros(count, t.shape[1], sum(v.shape[-1] for v in values), device=t.device)
        drawn[:, chosen] = torch.cat(list(values), dim=-1)
        drawn = torch.cat([drawn * solid, *more], dim=-1)
        return drawn.reshape(count, views, size * k, size * k, -1).movedim(-1, 2)

    maps = flat([colours[0], surface.albedo, surface.normal], [solid, t[..., None] * UNIT * solid])  # 11 channels
    mask = _pool(maps[:, :, 9:10], k)
    share = mask.clamp_min(1e-6)
    covered = (mask > 0.25).float()
    first = WorldRendering(
        image=(_pool(maps[:, :, :3], k) + 1 - mask) * 2 - 1,
        mask=mask,
        depth=_pool(maps[:, :, 10:], k) / share * covered,
        normal=torch.nn.functional.normalize(_pool(maps[:, :, 6:9], k), dim=2) * covered,
        albedo=_pool(maps[:, :, 3:6], k) / share * covered,
        landmarks=landmarks(m, cameras),
    )
    others = [(_pool(flat([colour]), k) + 1 - mask) * 2 - 1 for colour in colours[1:]]
    return torch.stack([first.image, *others], dim=2), first
