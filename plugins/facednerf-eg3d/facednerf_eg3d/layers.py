"""The layers that EG3D takes from StyleGAN2 (Karras et al. 2020), with their stored names and scalings."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2
"""Of every leaky ReLU, whose output is then multiplied by GAIN to keep unit variance."""
GAIN = math.sqrt(2.0)
FIR_TAPS = (1.0, 3.0, 3.0, 1.0)
"""The binomial low pass of every resampling in the generator; its outer product is stored as `resample_filter`."""


def fir_filter() -> Tensor:
    """The low pass (4, 4), normalised to unit sum: what every `resample_filter` of a checkpoint holds."""
    taps = torch.tensor(FIR_TAPS)
    kernel = torch.outer(taps, taps)
    return kernel / kernel.sum()


def unit_second_moment(x: Tensor) -> Tensor:
    """Features (..., C) divided by their root mean square."""
    return x * (x.square().mean(dim=-1, keepdim=True) + 1e-8).rsqrt()


class FullyConnected(nn.Module):
    """A linear layer with an equalised learning rate: stored weights have unit deviation (over `lr_multiplier`)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activated: bool = False,
        lr_multiplier: float = 1.0,
        bias: float = 0.0,
    ) -> None:
        super().__init__()
        self.activated = activated
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias))

    def scaled(self) -> tuple[Tensor, Tensor]:
        """The weight (out, in) and bias (out,) as they act."""
        return self.weight * self.weight_gain, self.bias * self.bias_gain

    def forward(self, x: Tensor) -> Tensor:
        """Features (..., in) to (..., out); scales the small input instead of the large weight."""
        y = F.linear(x * self.weight_gain, self.weight, self.bias * self.bias_gain)
        return F.leaky_relu(y, SLOPE) * GAIN if self.activated else y


def upsample_image(image: Tensor, low_pass: Tensor) -> Tensor:
    """Twice the size, (N, C, H, W) to (N, C, 2H, 2W): zeros inserted at odd indices, padded 2 before and 1 after,
    filtered with four times the low pass (4, 4). As the filter is symmetric, that is one transposed convolution."""
    if image.is_cuda:  # where a transposed convolution of many groups is slow
        return interpolate_image(image)
    channels = image.shape[1]
    kernel = (4.0 * low_pass).expand(channels, 1, 4, 4)
    return F.conv_transpose2d(image, kernel, stride=2, padding=1, groups=channels)


def interpolate_image(image: Tensor) -> Tensor:
    """The same for EG3D's own taps, which interpolate linearly between the samples and the zeros around them."""
    around = F.pad(image, (1, 1, 1, 1))
    return F.interpolate(around, scale_factor=2.0, mode="bilinear", align_corners=False)[:, :, 2:-2, 2:-2]


def upsampling_convolution(x: Tensor, weight: Tensor, low_pass: Tensor) -> Tensor:
    """Zeros inserted between the samples, true convolution with `weight` (O, I, 3, 3), then four times the low pass
    (4, 4): (N, I, H, W) to (N, O, 2H, 2W)."""
    y = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)  # (N, O, 2H + 1, 2W + 1)
    return F.conv2d(y, (4.0 * low_pass).expand(y.shape[1], 1, 4, 4), padding=1, groups=y.shape[1])


def modulated_convolution(
    x: Tensor, weight: Tensor, style: Tensor, *, low_pass: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A 3 x 3 convolution whose input channels are scaled by `style`, and the factor that demodulates its output.

    The activations are scaled, not the weights, so that frozen weights need no gradient and N subjects share one
    convolution. The caller multiplies the two results, with whatever else it has to scale.

    Args:
        x: (N, I, H, W).
        weight: (O, I, 3, 3).
        style: (N, I).
        low_pass: (4, 4), to double the resolution; None to keep it.

    Returns:
        The convolution (N, O, H', W') and the demodulation (N, O).
    """
    x = x * style[:, :, None, None]
    y = F.conv2d(x, weight, padding=1) if low_pass is None else upsampling_convolution(x, weight, low_pass)
    power = style.square() @ weight.square().sum(dim=(2, 3)).t()  # (N, O)
    return y, (power + 1e-8).rsqrt()


def activated(y: Tensor, bias: Tensor, *, gain: float = GAIN, clamp: float | None = None) -> Tensor:
    """gain * leaky ReLU(x + bias), clamped, for y = gain * x of shape (N, O, H, W), which is overwritten.

    A leaky ReLU is homogeneous, so that the gain can go first, together with whatever else scales x.
    """
    y += (bias * gain)[:, None, None]
    y = F.leaky_relu_(y, SLOPE)
    return y if clamp is None else y.clamp(-clamp, clamp)


class ModulatedConvolution(nn.Module):
    """Style, 3 x 3 convolution, demodulation, noise, bias, leaky ReLU (and clamp), in that order."""

    resample_filter: Tensor
    noise_const: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        w_dim: int,
        resolution: int,
        up: bool = False,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.up = up
        self.clamp = clamp
        self.resolution = resolution
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("resample_filter", fir_filter())
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.affine = FullyConnected(w_dim, in_channels, bias=1.0)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """Activations (N, I, H, W) to (N, O, p, p) under the latent row `w` (N, C).

        `noise` is a map (p, p), or (N, 1, p, p), of unit deviation; the layer's learnt strength scales it.
        """
        low_pass = self.resample_filter if self.up else None
        y, demodulation = modulated_convolution(x, self.weight, self.affine(w), low_pass=low_pass)
        y = y * (demodulation * GAIN)[:, :, None, None]
        if noise is not None:
            y += noise * (self.noise_strength * GAIN)
        return activated(y, self.bias, clamp=self.clamp)


class ToImage(nn.Module):
    """A 1 x 1 modulated convolution without demodulation: activations to image or plane channels ('torgb')."""

    def __init__(self, in_channels: int, out_channels: int, *, w_dim: int, clamp: float | None = None) -> None:
        super().__init__()
        self.clamp = clamp
        self.style_gain = 1.0 / math.sqrt(in_channels)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.affine = FullyConnected(w_dim, in_channels, bias=1.0)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Activations (N, I, H, W) to an image (N, O, H, W) under the latent row `w` (N, C)."""
        style = self.affine(w) * self.style_gain  # (N, I)
        if self.weight.shape[0] < 16:  # few outputs: scaling the weights is cheaper than a pass over the activations
            weight = self.weight[:, :, 0, 0] * style[:, None]  # (N, O, I)
            y = torch.baddbmm(self.bias[:, None], weight, x.flatten(2)).unflatten(2, x.shape[2:])
        else:
            y = F.conv2d(x * style[:, :, None, None], self.weight, self.bias)
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)
