"""DPR's network a second time: plain functions over a dictionary of tensors, nested as in the paper; and weights for it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from facednerf_dpr.hourglass import Hourglass
from torch import Tensor
from torch.nn import functional

from tests.portable_tensors import values

Weights = Mapping[str, Tensor]
NARROW = {"width": 4, "light_features": 7, "light_hidden": 16, "size": 64}


def procedural(tag: str = "dpr", **config: int) -> dict[str, Tensor]:
    """Weights made from names, of a size that keeps activations alive; float32."""
    with torch.device("meta"):
        wanted = Hourglass(**config).state_dict()
    return {name: _tensor(f"{tag}.{name}", value) for name, value in wanted.items()}


def _tensor(name: str, like: Tensor) -> Tensor:
    kind = name.rsplit(".", 1)[-1]
    if kind == "num_batches_tracked":
        return torch.zeros((), dtype=torch.int64)
    drawn = torch.from_numpy(values(name, like.shape))
    if kind == "weight" and like.ndim == 4:
        drawn = drawn * math.sqrt(2 / like[0].numel())  # a third of He's variance, for shortcuts add to it
    elif kind in {"weight", "running_var"}:
        drawn = 0.25 + 0.1 * drawn if "relu" in name else 1 + 0.4 * drawn
    else:
        drawn = 0.3 * drawn
    return drawn.float()


def network(
    lightness: Tensor, light: Tensor, weights: Weights, *, skip_count: int = 0, train: bool = False
) -> tuple[Tensor, Tensor]:
    """The relit lightness (B, 1, H, W), and the estimated light (B, 9), of lightness (B, 1, H, W) and a light (B, 9)."""
    found: list[Tensor] = []

    def normalised(x: Tensor, name: str) -> Tensor:
        if f"{name}.weight" not in weights:  # of one picture and channel, without parameters
            mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), unbiased=False, keepdim=True)
            return (x - mean) / (variance + 1e-5).sqrt()
        mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        if train:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        scale = weights[f"{name}.weight"] / (variance + 1e-5).sqrt()
        shift = weights[f"{name}.bias"] - mean * scale
        return x * scale[:, None, None] + shift[:, None, None]

    def convolved(x: Tensor, name: str) -> Tensor:
        kernel = weights[f"{name}.weight"]
        return functional.conv2d(x, kernel, weights.get(f"{name}.bias"), padding=kernel.shape[-1] // 2)

    def block(x: Tensor, name: str) -> Tensor:
        inside = normalised(convolved(x, f"{name}.conv1"), f"{name}.bn1").clamp_min(0)
        inside = normalised(convolved(inside, f"{name}.conv2"), f"{name}.bn2")
        return (inside + (x if x.shape == inside.shape else convolved(x, f"{name}.shortcuts"))).clamp_min(0)

    def leaky(x: Tensor, name: str) -> Tensor:
        return torch.where(x > 0, x, weights[f"light.{name}.weight"] * x)

    def bottom(x: Tensor) -> Tensor:
        count = weights["light.predict_FC1.weight"].shape[1]
        mean = x[:, :count].mean((2, 3), keepdim=True)
        found.append(convolved(leaky(convolved(mean, "light.predict_FC1"), "predict_relu1"), "light.predict_FC2"))
        wanted = convolved(leaky(convolved(light[:, :, None, None], "light.post_FC1"), "post_relu1"), "light.post_FC2")
        return torch.cat([wanted.clamp_min(0).expand(-1, -1, *x.shape[2:]), x[:, count:]], dim=1)

    def hourglass(x: Tensor, level: int) -> Tensor:
        name = f"HG{level}"
        lower = block(functional.max_pool2d(x, 2), f"{name}.low1")
        lower = block(hourglass(lower, level - 1) if level else bottom(lower), f"{name}.low2")
        lower = lower.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        return lower + block(x, f"{name}.upper") if 3 - level >= skip_count else lower

    x = hourglass(normalised(convolved(lightness, "pre_conv"), "pre_bn").clamp_min(0), 3)
    for number in (1, 2, 3):
        x = normalised(convolved(x, f"conv_{number}"), f"bn_{number}").clamp_min(0)
    return torch.sigmoid(convolved(x, "output")), found[0].flatten(1)
