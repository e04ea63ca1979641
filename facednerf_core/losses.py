"""The losses of the core: each a factory that returns a LossFn, documented by its equation.

One normalisation holds for all: a loss is a mean, over pixels, positions, or numbers of the latent, of something that has
no unit. So a weight means the same whatever the size of the rendering, the length of the latent, or the number of views,
and subjects side by side do not share a value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from facednerf_core.errors import Unsupported
from facednerf_core.perceptual import distance
from facednerf_core.resampling import resized
from facednerf_core.terms import Loss, LossFn, Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from facednerf_core.perceptual import Perceptual
    from facednerf_core.scene import Latent, Rendering, Subject

Background = Literal["own", "white", "black"]
UNUSED = 0.045  # the least variance of an axis of W, in that of a mean one: along such an axis no head differs
FACE = 5  # landmarks of eyes, nose and mouth, with which those of every `Face` begin
CHIN, NECK = 0.75, 0.4  # below the mouth, in distances from eyes to mouth: where the chin ends, and how high the neck is
NOISE_FLOOR = 8  # pixels: the smallest size at which the structure of noise maps is looked for


def reconstruction(
    perceptual: Perceptual,
    subject: Subject,
    *,
    background: Background = "own",
    outside: float = 1.0,
    pixels: float = 1.0,
    spared: Tensor | Callable[[], Tensor | None] | None = None,
    focus: float = 0.0,
    body: float = 1.0,
) -> LossFn:
    """How far the rendering is from the photo (paper Eq. 2, with a part on pixels for colour).

        L = |F(x) - F(y)|^2 + pixels * mean((1 + focus * k) (x - y)^2)

    F are the VGG16 features of `perceptual`, whose squared distance is already a mean; x the rendering and y the photo,
    both at its canonical size. The photo's features are computed once.

    Args:
        perceptual: what pictures look like.
        subject: with an image, (N, 1, 3, H, W); its mask, if any, is the foreground.
        background: what stands behind the subject in the generator's images. For "white" and "black", the photo's own
            background is replaced by it, wherever the mask says so; "own" leaves the photo as it is.
        outside: how much differences outside the mask count, 0 to 1; those inside count 1.
        pixels: weight of the pixel part.
        spared: where the rendering may differ, (N, 1, h, w) in [0, 1]: 1 is not compared at all; or what tells that at each
            step, None being nowhere.
        focus: how much more pixels count at eyes, nose and mouth, where k is 1 (`attention`), if the subject has landmarks.
        body: how much differences below the chin (`body_below`) count, if the subject has landmarks.
    """
    target, mask = photo(subject, background)
    with torch.no_grad():
        target = perceptual.canonical(target)
        features = perceptual(target)
        # 1 inside, `outside` outside the mask
        counts = None if mask is None or outside == 1.0 else outside + (1 - outside) * resized(mask, target.shape[-2:])
        if subject.landmarks is not None and body != 1.0:
            dressed = 1 - (1 - body) * body_below(subject.landmarks, target)
            counts = dressed if counts is None else counts * dressed
        looked_at = None if subject.landmarks is None or not focus else 1 + focus * attention(subject.landmarks, target)

    def loss(rendering: Rendering | None, step: Step) -> Loss:
        image, views = _flat(rendering)
        seen = perceptual.canonical(image)
        if seen.shape[-2:] != target.shape[-2:]:
            raise ValueError(f"the photo's shape {tuple(target.shape[-2:])} is not the rendering's {tuple(seen.shape[-2:])}")
        goal = _spread(target, views)
        where = spared() if callable(spared) else spared
        compared = counts
        if where is not None:
            kept = 1 - resized(where.to(target), target.shape[-2:]).clamp(0, 1)
            compared = kept if counts is None else counts * kept
        if compared is not None:
            seen = goal + (seen - goal) * _spread(compared, views)
        perceived = distance(perceptual(seen), [_spread(level, views) for level in features])
        squares = (seen - goal).square()
        if looked_at is not None:
            squares = squares * _spread(looked_at, views)
        plain = squares.flatten(1).mean(1)
        value = _per_subject(perceived + pixels * plain, views)
        return Loss(value, {"perceptual": _number(perceived), "pixel": _number(plain)})

    return loss


def attention(landmarks: Tensor, image: Tensor) -> Tensor:
    """Near 1 at eyes, nose and mouth (N, 1, H, W), and falling over a third of the distance between the eyes.

    Args:
        landmarks: (N, 1, K, 2) in [0, 1] of the crop, the first five as `Face` has them.
        image: (N, 3, H, W), of which only the size counts.
    """
    points = landmarks[:, 0, :FACE].to(image)
    reach = (points[:, 0] - points[:, 1]).norm(dim=-1).clamp_min(1e-3) / 3  # (N,)
    mouth = points[:, 3:].mean(1, keepdim=True)
    points = torch.cat([points, mouth], dim=1)
    away = []
    for axis, size in ((0, image.shape[-1]), (1, image.shape[-2])):
        place = (torch.arange(size, device=image.device) + 0.5) / size
        away.append(((place - points[..., axis, None]) / reach[:, None, None]).square())  # (N, 6, size)
    bells = torch.exp(-0.5 * (away[1][..., :, None] + away[0][..., None, :]))
    return bells.amax(1, keepdim=True)


def body_below(landmarks: Tensor, image: Tensor) -> Tensor:
    """1 where neck and clothes are, 0 at the chin and above, (N, 1, H, W), by how far the mouth lies below the eyes.

    Args:
        landmarks: (N, 1, K, 2) in [0, 1] of the crop, the first five as `Face` has them.
        image: (N, 3, H, W), of which only the size counts.
    """
    points = landmarks[:, 0, :FACE].to(image)
    mouth = points[:, 3:].mean(1)[:, 1, None]  # (N, 1), as far down as it is
    face = (mouth - points[:, :2].mean(1)[:, 1, None]).clamp_min(1e-3)
    height, width = image.shape[-2:]
    row = (torch.arange(height, device=image.device) + 0.5) / height
    share = ((row - mouth - CHIN * face) / (NECK * face)).clamp(0, 1)
    return share[:, None, :, None].expand(-1, 1, height, width)


def photo(subject: Subject, background: Background = "own") -> tuple[Tensor, Tensor | None]:
    """The photo as the generator could draw it (N, 3, H, W), and its foreground mask (N, 1, H, W) if there is one.

    Raises:
        Unsupported: the subject has no photo.
    """
    if subject.image is None:
        raise Unsupported("this loss compares with a photo, and the subject has none; leave it out of the recipe.")
    image = subject.image[:, 0]
    mask = None if subject.mask is None else subject.mask[:, 0]
    if background != "own" and mask is not None:
        image = image * mask + (1.0 if background == "white" else -1.0) * (1 - mask)
    return image, mask


def silhouette(subject: Subject) -> LossFn:
    """How far the rendering's mask m is from the photo's foreground k: L = mean((m - k)^2).

    Raises:
        Unsupported: the subject has no mask, or (when called) the rendering has none.
    """
    if subject.mask is None:
        raise Unsupported("the silhouette needs a foreground mask of the photo; the detector gave none.")
    foreground = subject.mask[:, 0]

    def loss(rendering: Rendering | None, step: Step) -> Loss:
        if rendering is None or rendering.mask is None:
            raise Unsupported("the silhouette needs renderings with a mask; this generator gives none.")
        mask, views = rendering.mask.flatten(0, 1), rendering.mask.shape[1]
        goal = _spread(resized(foreground.to(mask), mask.shape[-2:]), views)
        return Loss(_per_subject((mask - goal).square().flatten(1).mean(1), views))

    return loss


def latent_prior(deviation: Tensor, centre: Latent | None = None, *, axes: Tensor | None = None) -> LossFn:
    """How far w has gone, in units of W's deviation: L = mean(((w - c) / d)^2) over rows and dimensions.

    The paper's Eq. 9 is this pull towards the mean latent, summed instead of averaged.

    Args:
        deviation: d, (C,), the generator's.
        centre: c; None takes the latent as the stage began.
        axes: the generator's (`Generator.axes`): the change is then measured along them, each in units of W's deviation
            along it, so that leaving W costs more than moving within it.
    """
    unit = deviation.clamp_min(1e-3 * float(deviation.mean()))  # a dimension that W does not use has no deviation
    directions = None
    if axes is not None:
        lengths, root = axes.norm(dim=1), deviation.square().mean().sqrt()
        directions = axes / lengths.clamp_min(1e-12)[:, None]
        unit = (lengths.square() + UNUSED * root.square()).sqrt()

    def loss(rendering: Rendering | None, step: Step) -> Loss:
        start = centre or step.origin
        if start is None:
            raise ValueError("latent_prior without a centre needs a step that knows where its stage began")
        change = step.latent.w - start.w.detach().to(step.latent.w)
        if directions is not None:
            change = change @ directions.to(change).T
        change = change / unit.to(change)
        return Loss(change.square().flatten(1).mean(1))

    return loss


def noise_regularity() -> LossFn:
    """How much structure the noise maps carry (Karras et al. 2020, "Analyzing and Improving the Image Quality of
    StyleGAN", appendix D): the squared mean product of each map with itself shifted by one pixel, to the right and down,
    at its own size and every halving down to 8 pixels.

        L = sum_maps sum_sizes mean(n * shift_x(n))^2 + mean(n * shift_y(n))^2

    The maps are shared by the subjects, so that each carries 1/N of the value.
    """

    def loss(rendering: Rendering | None, step: Step) -> Loss:
        subjects = step.latent.w.shape[0]
        total = step.latent.w.new_zeros(())
        for noise in step.latent.noise.values():
            n = noise.reshape(1, 1, *noise.shape[-2:])
            while True:
                for side in (3, 2):
                    total = total + (n * torch.roll(n, 1, dims=side)).mean().square()
                if min(n.shape[-2:]) <= NOISE_FLOOR:
                    break
                n = torch.nn.functional.avg_pool2d(n, 2)
        return Loss(total.expand(subjects) / subjects)

    return loss


def locality(perceptual: Perceptual | None = None, *, pixels: float = 1.0, depth: float = 1.0) -> LossFn:
    """How far a rendering is from its reference r at the same views: what is tuned or edited here stays as it was there.

        L = |F(x) - F(r)|^2 + pixels * mean((x - r)^2) + depth * mean(m_r (z - z_r)^2)

    z is the depth in world units, m_r the reference's mask (1 where there is none): behind the subject there is no depth
    to keep. Meant for terms against "nearby", "untuned" (Roich et al. 2022, "Pivotal Tuning", section 3.2) or "source".

    Args:
        perceptual: what pictures look like; None leaves the feature part out.
        pixels: weight of the pixel part.
        depth: weight of the depth part, where rendering and reference have depth.
    """

    def loss(rendering: Rendering | None, step: Step) -> Loss:
        image, views = _flat(rendering)
        reference = step.reference
        if rendering is None or reference is None:
            raise ValueError("a locality term needs Term.against")
        kept = reference.image.detach().flatten(0, 1).to(image)
        if perceptual is not None:
            image, kept = perceptual.canonical(image), perceptual.canonical(kept)
        plain = (image - kept).square().flatten(1).mean(1)
        value = pixels * plain
        metrics = {"pixel": _number(plain)}
        if perceptual is not None:
            perceived = distance(perceptual(image), perceptual(kept))
            value = value + perceived
            metrics["perceptual"] = _number(perceived)
        if depth and rendering.depth is not None and reference.depth is not None:
            moved = (rendering.depth - reference.depth.detach().to(rendering.depth)).flatten(0, 1).square()
            if reference.mask is not None:
                moved = moved * resized(reference.mask.detach().flatten(0, 1).to(moved), moved.shape[-2:])
            shift = moved.flatten(1).mean(1)
            value = value + depth * shift
            metrics["depth"] = _number(shift)
        return Loss(_per_subject(value, views), metrics)

    return loss


def _flat(rendering: Rendering | None) -> tuple[Tensor, int]:
    """The images as one batch (N * V, 3, H, W), and V."""
    if rendering is None:
        raise ValueError("this loss scores renderings: its term needs a look")
    return rendering.image.flatten(0, 1), rendering.image.shape[1]


def _spread(value: Tensor, views: int) -> Tensor:
    """What belongs to each of N subjects (N, ...), repeated for its V views: (N * V, ...)."""
    return value if views == 1 else value.repeat_interleave(views, dim=0)


def _per_subject(value: Tensor, views: int) -> Tensor:
    """The mean over views, (N,), of a value of each picture (N * V,)."""
    return value.unflatten(0, (-1, views)).mean(1)


def _number(value: Tensor) -> float:
    return float(value.detach().mean())
