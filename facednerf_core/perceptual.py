"""VGG16 features (Simonyan & Zisserman 2015), compared as LPIPS does (Zhang et al. 2018, section 3.1).

Tensor names are torchvision's (`features.N.weight`, `features.N.bias`), so that its state dict loads as it is; narrower
networks of the same layout are told by their tensors' shapes. Where a file also has `lin.0` to `lin.4` (C,), they weigh
the channels of each level as LPIPS's learnt weights do; without them every channel counts alike. LPIPS sums over levels and
we take their mean, so the published distance is five times ours.

Official files are torchvision's `vgg16-397923af.pth` and NVIDIA's `vgg16.pt`. The latter's tensors are told by their order
and shapes, not by their names (`named`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from facednerf_core.errors import InputError
from facednerf_core.resampling import fitted, resized

if TYPE_CHECKING:
    from torch import device as Device

    from facednerf_core.cards import LocalWeights

OFFICIAL_WIDTHS = (64, 128, 256, 512, 512)
OFFICIAL_SIZE = 256
LEVELS = (2, 2, 3, 3, 3)  # convolutions before each halving of the size
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for RGB in [0, 1]
EPSILON = 1e-8


class Vgg16(nn.Module):
    """The convolutional part of VGG16; its five levels end at relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, widths: Sequence[int] = OFFICIAL_WIDTHS) -> None:
        super().__init__()
        if len(widths) != len(LEVELS):
            raise ValueError(f"VGG16 has {len(LEVELS)} levels; got {len(widths)} widths")
        self.widths = tuple(widths)
        layers: list[nn.Module] = []
        self.ends: list[int] = []  # index of each level's last activation
        channels = 3
        for width, count in zip(widths, LEVELS, strict=True):
            for _ in range(count):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            self.ends.append(len(layers) - 1)
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The five levels (B, C_l, H_l, W_l) of images (B, 3, H, W) in [-1, 1]."""
        x = ((image + 1) / 2 - self.mean) / self.deviation
        levels = []
        for first, last in pairwise([-1, *self.ends]):
            x = self.features[first + 1 : last + 1](x)
            levels.append(x)
        return levels


class Perceptual(nn.Module):
    """What a picture looks like, as vectors whose squared distance is the LPIPS-VGG distance.

    Every picture is first brought to one canonical size (its shorter side, in pixels), so that the distance does not
    depend on the size at which it was drawn. Frozen, in evaluation mode.
    """

    def __init__(self, network: Vgg16, size: int = OFFICIAL_SIZE, lin: Sequence[Tensor] | None = None) -> None:
        super().__init__()
        if size < 2 ** (len(LEVELS) - 1):
            raise ValueError(f"the canonical size must be at least 16 pixels, not {size}")
        self.network = network
        self.size = size
        self.lin = None if lin is None else nn.ParameterList([values.clamp(min=0).view(1, -1, 1, 1) for values in lin])
        self.requires_grad_(False).eval()

    def canonical(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) at the canonical size."""
        return resized(image, fitted(image.shape[-2], image.shape[-1], self.size))

    def forward(self, image: Tensor) -> list[Tensor]:
        """The features (B, C_l, H_l, W_l) of each level, of images (B, 3, H, W) in [-1, 1] of any size.

        Each position has unit length over channels; dividing by sqrt(levels H_l W_l) then makes the sum of squared
        differences over all levels the mean, over levels and positions, of the squared distance of directions: [0, 4],
        or [0, 2] as activations are not negative.
        """
        levels = self.network(self.canonical(image))
        features = []
        for index, level in enumerate(levels):
            # squares of activations do not fit in half precision
            level = level if level.dtype == torch.float64 else level.float()
            # eps inside the root: the gradient exists where no channel is active
            direction = level * torch.rsqrt(level.square().sum(1, keepdim=True) + EPSILON)
            if self.lin is not None:
                direction = direction * self.lin[index].sqrt()
            features.append(direction / (len(levels) * level.shape[-2] * level.shape[-1]) ** 0.5)
        return features

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor], *, size: int = OFFICIAL_SIZE) -> Perceptual:
        """Features from the tensors of an official file, torchvision's or NVIDIA's.

        Args:
            tensors: by the file's names, in its order.
            size: the canonical size, pixels of a picture's shorter side.

        Raises:
            InputError: the tensors are not a VGG16's.
        """
        return from_tensors(named(tensors), size)


def distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """The squared distance (B,) of two pictures' features."""
    return torch.stack([(x - y).square().flatten(1).sum(1) for x, y in zip(a, b, strict=True)]).sum(0)


def load(weights: LocalWeights, device: Device) -> Perceptual:
    """Perceptual features out of a weights card: a safetensors file in the role "tensors", and the canonical size in the
    card's option "size" (256, the official one, where it says nothing).

    Raises:
        InputError: the file's tensors are not a VGG16's.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = weights["tensors"]
    try:
        tensors = load_file(path, device=str(device))
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read VGG16 features from {path}: {error}") from error
    return from_tensors(tensors, int(weights.card.options.get("size", OFFICIAL_SIZE)), str(path)).to(device)


def from_tensors(tensors: Mapping[str, Tensor], size: int = OFFICIAL_SIZE, origin: str = "the tensors") -> Perceptual:
    """Perceptual features from tensors by torchvision's names; a classifier's tensors beside them are left out.

    Raises:
        InputError: tensors are missing or have shapes that no VGG16 has.
    """
    lasts = [0, 5, 10, 17, 24]  # the first convolution of each level tells its width
    missing = [f"features.{index}.weight" for index in lasts if f"features.{index}.weight" not in tensors]
    if missing:
        raise InputError(f"{origin} has no tensor {missing[0]!r}: not the features of a VGG16 in torchvision's names.")
    network = Vgg16([tensors[f"features.{index}.weight"].shape[0] for index in lasts])
    own = {name: value.float() for name, value in tensors.items() if re.fullmatch(r"features\.\d+\.(weight|bias)", name)}
    try:
        network.load_state_dict(own, strict=True)
    except RuntimeError as error:
        raise InputError(f"{origin} is not a VGG16: {error}") from error
    lin = [tensors[f"lin.{level}"].float() for level in range(len(LEVELS)) if f"lin.{level}" in tensors]
    if lin and [values.numel() for values in lin] != list(network.widths):
        raise InputError(f"{origin} has 'lin' weights that do not match the widths {network.widths}.")
    for name in ("mean", "deviation"):  # of a network that was trained on pictures normalised in another way
        if name in tensors:
            getattr(network, name).copy_(tensors[name].view(1, 3, 1, 1))
    return Perceptual(network, size, lin or None)


def named(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an official file by our names: torchvision's as they are, else told by order and shape.

    The latter are thirteen 3 x 3 convolutions, each with a bias; perhaps one weight for each channel of the five levels
    (LPIPS); and perhaps the mean and deviation of each colour, in [0, 1], [-1, 1] or [0, 255]. ImageNet's are taken where
    there are none. What a classifier adds is left out.

    Raises:
        InputError: they are not a VGG16's.
    """
    if "features.0.weight" in tensors:
        return {name: value for name, value in tensors.items() if not name.startswith("classifier.")}
    kernels = [name for name, value in tensors.items() if value.ndim == 4 and value.shape[2:] == (3, 3)]
    if len(kernels) != sum(LEVELS):
        raise InputError(f"a VGG16 has {sum(LEVELS)} convolutions of 3 x 3; these tensors have {len(kernels)}.")
    found: dict[str, Tensor] = {}
    taken = set(kernels)
    places = [index for index, layer in enumerate(Vgg16((1,) * len(LEVELS)).features) if isinstance(layer, nn.Conv2d)]
    for place, name in zip(places, kernels, strict=True):
        bias = f"{name.removesuffix('weight')}bias"
        if bias not in tensors:
            raise InputError(f"the convolution {name!r} has no bias; it should be called {bias!r}.")
        found |= {f"features.{place}.weight": tensors[name], f"features.{place}.bias": tensors[bias]}
        taken.add(bias)
    widths = [tensors[kernels[sum(LEVELS[:level])]].shape[0] for level in range(len(LEVELS))]
    rest = {name: value.flatten() for name, value in tensors.items() if name not in taken and value.is_floating_point()}
    lin = [v for n, v in rest.items() if v.numel() in widths and tensors[n].shape in ((1, v.numel(), 1, 1), v.shape)]
    if lin and [value.numel() for value in lin] != widths:
        raise InputError(f"channel weights of {[value.numel() for value in lin]} do not fit levels of {widths} channels.")
    found |= {f"lin.{level}": value for level, value in enumerate(lin)}
    return found | _normalisation({name: value.float() for name, value in rest.items() if value.numel() == 3})


def _normalisation(colours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Mean and deviation of each colour, for pictures in [0, 1], from a file's own; by name, or ImageNet's in this order."""
    if not colours:
        return {}
    means = [value for name, value in colours.items() if re.search("mean|shift", name, re.IGNORECASE)]
    deviations = [value for name, value in colours.items() if re.search("std|dev|scale", name, re.IGNORECASE)]
    spoken = bool(means or deviations)
    if not spoken and len(colours) == 2:
        means, deviations = [list(colours.values())[:1], list(colours.values())[1:]]
    if len(colours) != 2 or len(means) != 1 or len(deviations) != 1:
        raise InputError(f"cannot tell a mean and a deviation of colours among {', '.join(colours)}.")
    mean, deviation = means[0], deviations[0]
    if max(float(mean.max()), float(deviation.max())) > 2:  # of pixels
        mean, deviation = mean / 255, deviation / 255
    elif float(mean.min()) < 0:  # of pictures in [-1, 1]
        mean, deviation = (mean + 1) / 2, deviation / 2
    known = torch.allclose(mean, torch.tensor(MEAN), rtol=0.02) and torch.allclose(
        deviation, torch.tensor(DEVIATION), rtol=0.02
    )
    if not (spoken or known):
        raise InputError(f"cannot tell whether {' and '.join(colours)} are a mean and a deviation of colours.")
    return {"mean": mean, "deviation": deviation}
