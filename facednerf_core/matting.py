"""A person apart from the background: a soft mask sharpened to the picture's edges, and both layers filled in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


COARSE = (8, 8, 12, 12, 12)  # cells of the picture's height and width and of its colours, in which colours are counted
ROUNDS = 3  # of telling colours apart, each from what the one before found


def sharpened(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A soft mask (H, W) in [0, 1] drawn to the edges of an image (H, W, 3) in [0, 1].

    What the mask is sure of stays, but for a margin at its edge; the band between is solved so that neighbours of one colour
    belong together (Grady 2006, "Random walks for image segmentation", and 2005 with priors), drawn weakly to where
    mask and colours point, and is then softened along the image's own edges (He et al. 2013, "Guided image filtering").
    What the walk finds tells more of either side's colours, so it is walked again (as Rother et al. 2004, "GrabCut").
    """
    import numpy as np
    from scipy import ndimage

    size = max(mask.shape)
    reach = max(1, round(size * 0.012))
    sure = ndimage.minimum_filter(mask, 2 * reach + 1) > 0.9
    empty = ndimage.maximum_filter(mask, 2 * reach + 1) < 0.1
    if not sure.any() or not empty.any():
        return mask.astype(np.float32)
    person, behind = sure, empty
    for _ in range(ROUNDS):
        walked = _walked(image, _likely(image, mask, person, behind), sure, empty)
        person, behind = sure | (walked > 0.85), empty | (walked < 0.15)
    walked = np.clip((walked - 0.5) * 4 + 0.5, 0.0, 1.0)
    soft = guided(image, walked, radius=max(1, round(size / 100)), smoothness=1e-4)
    soft = np.where(sure, 1.0, np.where(empty, 0.0, soft))
    return np.clip((soft - 0.05) / 0.9, 0.0, 1.0).astype(np.float32)


def _likely(image: np.ndarray, mask: np.ndarray, person: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """The chance (H, W) of being the person, by the mask and by how common the pixel's colour is there in each part."""
    import numpy as np
    from scipy import ndimage

    height, width = mask.shape
    y, x = np.mgrid[:height, :width] + 0.5
    places = [y / height * COARSE[0] - 0.5, x / width * COARSE[1] - 0.5]
    colours = [image[..., channel] * (COARSE[2 + channel] - 1) for channel in range(3)]
    position = np.stack([*places, *colours])  # (5, H, W), in cells
    last = np.array(COARSE)[:, None, None] - 1
    cell = np.ravel_multi_index(tuple(np.rint(position).astype(int).clip(0, last)), COARSE)

    def commonness(part: np.ndarray) -> np.ndarray:
        counts = np.bincount(cell[part], minlength=int(np.prod(COARSE))).astype(np.float32).reshape(COARSE)
        anywhere = ndimage.gaussian_filter(counts.sum((0, 1)), 0.8)
        here = ndimage.gaussian_filter(counts, (1.0, 1.0, 0.8, 0.8, 0.8), truncate=2, mode="constant")
        few = 0.15 * part.sum() / (COARSE[0] * COARSE[1])  # so many pixels here count as much as all those elsewhere
        return (here + few * (anywhere / anywhere.sum() + 1e-4)) / (here.sum((2, 3, 4), keepdims=True) + few)

    ratio = np.log(commonness(person) / commonness(behind))
    told = ndimage.map_coordinates(ratio, position, order=1, mode="nearest").clip(-4, 4)
    chance = mask.clip(0.03, 0.97)
    return 1 / (1 + np.exp(-np.log(chance / (1 - chance)) - 0.8 * told))


def _walked(image: np.ndarray, likely: np.ndarray, sure: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """The chance (H, W) that a random walker, slow across edges, reaches the person before the background."""
    import numpy as np
    from scipy import sparse
    from scipy.sparse.linalg import spsolve

    prior = 0.02  # how much `likely` counts beside a neighbour of exactly the same colour
    band = ~(sure | empty)
    if not band.any():
        return sure.astype(np.float32)
    number = np.full(likely.shape, -1)
    number[band] = np.arange(band.sum())
    known = sure.astype(np.float64)
    scale = 300.0 / max(float(image.var(axis=(0, 1)).sum()), 1e-3)
    diagonal = np.full(int(band.sum()), prior)
    right = prior * likely[band]
    rows, columns, values = [], [], []
    for axis in (0, 1):
        ahead = (slice(1, None), slice(None)) if axis == 0 else (slice(None), slice(1, None))
        behind = (slice(None, -1), slice(None)) if axis == 0 else (slice(None), slice(None, -1))
        weight = np.exp(-scale * ((image[ahead] - image[behind]) ** 2).sum(-1)) + 1e-4
        for here, there in ((ahead, behind), (behind, ahead)):
            inside = number[here] >= 0
            own, other, w = number[here][inside], number[there][inside], weight[inside]
            diagonal += np.bincount(own, w, len(diagonal))
            free = other >= 0
            rows.append(own[free])
            columns.append(other[free])
            values.append(-w[free])
            right += np.bincount(own[~free], (w * known[there][inside])[~free], len(diagonal))
    index = np.arange(len(diagonal))
    matrix = sparse.csc_matrix(
        (np.concatenate([*values, diagonal]), (np.concatenate([*rows, index]), np.concatenate([*columns, index])))
    )
    walked = known.copy()
    walked[band] = spsolve(matrix, right)
    return walked


def guided(image: np.ndarray, mask: np.ndarray, radius: int, smoothness: float) -> np.ndarray:
    """The colour guided filter (He et al. 2013, Eq. 19 to 21): in each window the mask (H, W) is linear in the colours."""
    import numpy as np
    from scipy import ndimage

    def mean(value: np.ndarray) -> np.ndarray:
        window = (2 * radius + 1, 2 * radius + 1) + (1,) * (value.ndim - 2)
        return ndimage.uniform_filter(value, window, mode="nearest")

    image = image.astype(np.float64)
    mask = mask.astype(np.float64)
    colour, level = mean(image), mean(mask)
    covariance = mean(image[..., :, None] * image[..., None, :]) - colour[..., :, None] * colour[..., None, :]
    together = mean(image * mask[..., None]) - colour * level[..., None]
    slope = np.linalg.solve(covariance + smoothness * np.eye(3), together[..., None])[..., 0]
    offset = level - (slope * colour).sum(-1)
    return np.clip((mean(slope) * image).sum(-1) + mean(offset), 0.0, 1.0)


def filled(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """An image (H, W, C) whose unknown pixels are filled smoothly from the known ones (H, W, weights in [0, 1]).

    Pull-push over a pyramid (Gortler et al. 1996, "The lumigraph", section 3.4); where nothing is known, mid-grey of [0, 1].
    """
    import numpy as np

    height, width, _ = image.shape
    weight = known.astype(np.float64)[..., None]
    if max(height, width) == 1:
        return np.where(weight > 0, image, 0.5)
    tall, wide = height + height % 2, width + width % 2
    padding = ((0, tall - height), (0, wide - width), (0, 0))
    weights = np.pad(weight, padding)
    sums = np.pad(image * weight, padding)

    def halved(value: np.ndarray) -> np.ndarray:
        return value.reshape(tall // 2, 2, wide // 2, 2, -1).sum((1, 3))

    coarse_weight = halved(weights)
    coarse = halved(sums) / np.maximum(coarse_weight, 1e-9)
    coarse = filled(coarse, np.minimum(coarse_weight[..., 0], 1.0))
    fine = _doubled(coarse)[:height, :width]
    return weight * image + (1 - weight) * fine


def _doubled(image: np.ndarray) -> np.ndarray:
    """Twice the size, with the weights 1/4 and 3/4 of linear interpolation."""
    import numpy as np

    for axis in (0, 1):
        before = np.concatenate([np.take(image, [0], axis), np.take(image, range(image.shape[axis] - 1), axis)], axis)
        after = np.concatenate([np.take(image, range(1, image.shape[axis]), axis), np.take(image, [-1], axis)], axis)
        pair = np.stack([0.75 * image + 0.25 * before, 0.75 * image + 0.25 * after], axis + 1)
        shape = list(image.shape)
        shape[axis] *= 2
        image = pair.reshape(shape)
    return image


def layers(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The person's own colours and the background behind the person, both (H, W, 3), of an image (H, W, 3) in [0, 1].

    At soft edges a pixel mixes both; each layer takes its colours from where it is (nearly) alone, so that neither carries
    a rim of the other when it is shown before or behind something else.
    """
    import numpy as np
    from scipy import ndimage

    reach = max(1, round(max(mask.shape) / 128))
    person = filled(image, (mask > 0.95).astype(np.float64)) if (mask > 0.95).any() else image
    apart = ndimage.maximum_filter(mask, 2 * reach + 1) < 0.03
    background = filled(image, apart.astype(np.float64)) if apart.any() else np.full_like(image, 0.5)
    return np.where(mask[..., None] > 0.95, image, person), background
