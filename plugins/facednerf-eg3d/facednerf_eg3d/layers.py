"""The layers that EG3D takes from StyleGAN2 (Karras et al. 2020), with their stored names and scalings."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facednerf_eg3d.modulation import SLOPE, Finish, convolution, layer, layer_and_image, mixed, precise

GAIN = math.sqrt(2.0)
"""What the output of every leaky ReLU is multiplied by, to keep unit variance."""
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
        """Features (..., in) to (..., out), in the weight's dtype; scales the small input instead of the large weight."""
        with precise(x):
            y = F.linear(x.to(self.weight.dtype) * self.weight_gain, self.weight, self.bias * self.bias_gain)
        return F.leaky_relu(y, SLOPE) * GAIN if self.activated else y


def upsample_image(image: Tensor, low_pass: Tensor) -> Tensor:
    """Twice the size, (N, C, H, W) to (N, C, 2H, 2W): zeros inserted at odd indices, padded 2 before and 1 after,
    convolved with four times the low pass (4, 4): one transposed convolution."""
    with precise(image):
        if image.is_cuda:  # where a transposed convolution of many groups is slow
            return interpolate_image(image)
        channels = image.shape[1]
        kernel = (4.0 * low_pass).to(image.dtype).expand(channels, 1, 4, 4)
        return F.conv_transpose2d(image, kernel, stride=2, padding=1, groups=channels)


def interpolate_image(image: Tensor) -> Tensor:
    """The same for EG3D's own taps, which interpolate linearly between the samples and the zeros around them."""
    around = F.pad(image, (1, 1, 1, 1))
    return F.interpolate(around, scale_factor=2.0, mode="bilinear", align_corners=False)[:, :, 2:-2, 2:-2]


def demodulation(weight: Tensor, style: Tensor) -> Tensor:
    """The factors (N, O) that give outputs unit variance, of a weight (O, I, 3, 3) and styles (N, I)."""
    exact = torch.promote_types(weight.dtype, torch.float32)
    power = style.to(exact).square() @ weight.to(exact).square().sum(dim=(2, 3)).t()  # (N, O)
    return (power + 1e-8).rsqrt()


def modulated_convolution(
    x: Tensor, weight: Tensor, style: Tensor, *, low_pass: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A 3 x 3 convolution whose input channels are scaled by `style`, and the factor that demodulates its output.

    The activations are scaled, not the weights, so that frozen weights need no gradient and N subjects share one
    convolution. The caller multiplies the two results, with whatever else it has to scale. `modulation.layer` does this,
    and what follows, in less memory; this form can be differentiated twice.

    Args:
        x: (N, I, H, W).
        weight: (O, I, 3, 3).
        style: (N, I).
        low_pass: (4, 4), to double the resolution; None to keep it.

    Returns:
        The convolution (N, O, H', W') and the demodulation (N, O).
    """
    return convolution(x * style[:, :, None, None], weight, low_pass), demodulation(weight, style)


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
        style, finish = self._finish(x, w, noise)
        return layer(x, self.weight, style, finish, self.resample_filter if self.up else None)

    def drawn(self, x: Tensor, w: Tensor, noise: Tensor | None, mixing: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` gives, and what `mixing` (N, C, O) makes of its channels, of a layer that keeps the resolution."""
        return layer_and_image(x, self.weight, *self._finish(x, w, noise), mixing)

    def _finish(self, x: Tensor, w: Tensor, noise: Tensor | None) -> tuple[Tensor, Finish]:
        with precise(x):
            style = self.affine(w)
            finish = Finish(
                scale=demodulation(self.weight, style) * GAIN,
                bias=self.bias * GAIN,
                noise=None if noise is None else noise.to(x.dtype) * (self.noise_strength * GAIN),
                clamp=self.clamp,
            )
        return style, finish


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
        """Activations (N, I, H, W) to an image (N, O, H, W) under the latent row `w` (N, C), in float32 at least."""
        return self.finished(mixed(x, self.mixing(w)))

    def mixing(self, w: Tensor) -> Tensor:
        """The weights (N, O, I) of N subjects: scaling them is cheaper than a pass over the activations."""
        with precise(w):
            style = self.affine(w) * self.style_gain  # (N, I)
            return self.weight[:, :, 0, 0] * style[:, None]

    def finished(self, y: Tensor) -> Tensor:
        """Bias and clamp for the mixed channels (N, O, H, W)."""
        y = y + self.bias[:, None, None]
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)
