"""A modulated 3 x 3 convolution as one step with its own derivative: noise, bias and activation included.

Written as ordinary operations, each layer would keep five pictures for its derivative. Here it keeps two, its input and its
output: a leaky ReLU can be undone, and the output of one layer is the input of the next. On a CPU the pictures lie channels
last, which its convolutions prefer, and large ones are worked off in strips that stay in the cache. The numbers are those of
the ordinary operations (`layers.modulated_convolution`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from facednerf_eg3d.winograd import ROWS, convolve, kernels

SLOPE = 0.2
"""Of every leaky ReLU, whose output is then multiplied by `layers.GAIN` to keep unit variance."""
STRIP = 2**21
"""Numbers of a layer's output that a CPU works on at a time."""
WIDE = 128
"""Channels from which `winograd.convolve` is quicker on a CPU."""
LARGE = 2**14
"""Pixels likewise."""


class Finish(NamedTuple):
    """What is done with the convolution of one layer."""

    scale: Tensor  # (N, O), the demodulation and the activation's gain
    bias: Tensor  # (O,), times that gain
    noise: Tensor | None  # (p, p) or (N, 1, p, p), times that gain and the layer's strength
    clamp: float | None


def precise(like: Tensor) -> torch.autocast:
    """Autocast switched off where `like` is: for what must not be rounded to 16 bits."""
    return torch.autocast(like.device.type, enabled=False)


def working_dtype(x: Tensor) -> torch.dtype:
    """In which the caller wants convolutions: autocast's type, or the picture's own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def arranged(x: Tensor) -> Tensor:
    """A picture (N, C, H, W) in the order of memory that its device's convolutions prefer."""
    if x.device.type != "cpu":
        return x
    rows = x.permute(0, 2, 3, 1).contiguous()
    if len(rows) == 1:  # a single picture's first stride can be anything, and is looked at to tell the order
        rows = rows.squeeze(0).unsqueeze(0)
    return rows.permute(0, 3, 1, 2)


def convolution(
    x: Tensor, weight: Tensor, low_pass: Tensor | None = None, *, bias: Tensor | None = None, halo: int = 0
) -> Tensor:
    """Pictures (N, I, H, W) through `weight` (O, I, 3, 3), zero padded, plus a bias (O,): (N, O, H, W).

    With a `low_pass` (4, 4) at twice the size: zeros inserted between the samples, true convolution with the weight, then
    four times the low pass. With a `halo` of 1, the first and last row are those of the neighbouring strips.
    """
    if low_pass is None:
        return F.conv2d(x, weight, bias, padding=(1 - halo, 1))
    y = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2, padding=(halo, 0))  # one row and column more than twice
    return F.conv2d(y, _kernel(low_pass, y), bias, padding=(1 - halo, 1), groups=y.shape[1])


def layer(x: Tensor, weight: Tensor, style: Tensor, finish: Finish, low_pass: Tensor | None) -> Tensor:
    """clamp(leaky ReLU(scale * convolution(style * x) + noise + bias)), (N, O, p, p), differentiable in every tensor.

    Args:
        x: (N, I, H, W).
        weight: (O, I, 3, 3).
        style: (N, I).
        finish: what follows the convolution.
        low_pass: see `convolution`.
    """
    made: Tensor
    made, _ = _Layer.apply(arranged(x), weight, style, *finish[:3], None, low_pass, finish.clamp, working_dtype(x))
    return made


def layer_and_image(x: Tensor, weight: Tensor, style: Tensor, finish: Finish, mixing: Tensor) -> tuple[Tensor, Tensor]:
    """What `layer` gives without a low pass, and what one weight per picture, `mixing` (N, C, O), makes of its channels:
    an image (N, C, H, W), in float32 at least."""
    made: Tensor
    image: Tensor
    made, image = _Layer.apply(arranged(x), weight, style, *finish[:3], mixing, None, finish.clamp, working_dtype(x))
    return made, image


def mixed(x: Tensor, mixing: Tensor) -> Tensor:
    """Pictures (N, I, H, W) through one weight (N, O, I) each: (N, O, H, W), in float32 at least."""
    working = working_dtype(x)
    with precise(x):
        y = torch.bmm(_rows(x).to(working), mixing.to(working).mT)  # (N, H W, O)
    return y.to(torch.promote_types(x.dtype, torch.float32)).mT.unflatten(2, x.shape[2:])


class _Strip(NamedTuple):
    """Some rows of a layer's input, and those of its output that they make."""

    rows: slice  # of the input
    made: slice  # of the output
    halo: int  # rows of the input that are needed on either side; 0 if there is only one strip

    @classmethod
    def of(cls, x: Tensor, channels: int, factor: int) -> Iterator[_Strip]:
        """The strips of a layer from x (N, I, H, W) to (N, channels, factor * H, factor * W)."""
        height = x.shape[2]
        count = 1 if x.device.type != "cpu" else -(-len(x) * channels * height * x.shape[3] * factor**2 // STRIP)
        step = max(4, -(-height // count))
        for first in range(0, height, step):
            last = min(height, first + step)
            yield cls(slice(first, last), slice(factor * first, factor * last), int(step < height))

    def even(self) -> bool:
        """Whether its rows can be made in groups, by `winograd.convolve`."""
        return self.halo > 0 and (self.made.stop - self.made.start) % ROWS == 0

    def around(self, x: Tensor, part: slice, halo: int) -> Tensor:
        """The part of x (N, C, H, W) and `halo` rows on either side, zero beyond the edges."""
        first, last = part.start - halo, part.stop + halo
        found = x[:, :, max(first, 0) : min(last, x.shape[2])]
        beyond = (max(-first, 0), max(last - x.shape[2], 0))
        return F.pad(found, (0, 0, *beyond)) if any(beyond) else found


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        style: Tensor,
        scale: Tensor,
        bias: Tensor,
        noise: Tensor | None,
        mixing: Tensor | None,
        low_pass: Tensor | None,
        clamp: float | None,
        working: torch.dtype,
    ) -> tuple[Tensor, Tensor | None]:
        factor = 1 if low_pass is None else 2
        images: list[Tensor] = []
        with precise(x):
            calm = _Calm.of(style, weight, working)
            held = _scaled(weight, calm.weight, working)
            whole = _whole(x, held, working)
            if whole:
                held = held * (scale[0, :, None] * style[0])[:, :, None, None]
            six = kernels(held) if whole and low_pass is None and _pays(x, held) else None
            out: Tensor | None = None
            for strip in _Strip.of(x, len(weight), factor):
                part = strip.around(x, strip.rows, strip.halo)
                if six is not None and strip.even():
                    y = convolve(part, six, bias)
                elif whole:
                    y = convolution(part, held, low_pass, bias=bias, halo=strip.halo)
                else:
                    y = _modulated(part, held, style * calm.style, low_pass, strip.halo).to(x.dtype)
                    y = y.mul_((scale / (calm.style * calm.weight))[:, :, None, None])
                    y += bias[:, None, None]
                if noise is not None:
                    y += noise[..., strip.made, :]
                if strip.halo and out is None:
                    out = _like(x, len(weight), factor)
                made = y if out is None else out[:, :, strip.made]
                if clamp is None:
                    torch.ops.aten.leaky_relu.out(y, SLOPE, out=made)
                else:
                    torch.clamp(F.leaky_relu_(y, SLOPE), -clamp, clamp, out=made)
                if mixing is not None:
                    images.append(mixed(made.to(working), mixing))
                out = made if out is None else out
        ctx.save_for_backward(x, weight, style, scale, bias, noise, mixing, low_pass, out)
        ctx.clamp, ctx.working, ctx.calm = clamp, working, calm
        ctx.set_materialize_grads(False)
        assert out is not None
        return out, torch.cat(images, dim=2) if images else None

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor | None, of_image: Tensor | None) -> tuple[Tensor | None, ...]:
        x, weight, style, scale, bias, noise, mixing, low_pass, out = ctx.saved_tensors
        of_x, of_weight, of_style, of_scale, of_bias, of_noise, of_mixing = ctx.needs_input_grad[:7]
        if upstream is None and of_image is None:
            return (None,) * 10
        factor = 1 if low_pass is None else 2
        exact = torch.promote_types(x.dtype, torch.float32)
        g_x = _like(x, x.shape[1], 1) if of_x else None
        g_weight = torch.zeros_like(weight, dtype=exact) if of_weight else None
        g_noise = x.new_zeros(len(x), 1, *out.shape[2:]) if of_noise else None
        g_mixing = torch.zeros_like(mixing, dtype=exact) if of_mixing else None
        moment, sums = scale.new_zeros(2, *scale.shape, dtype=exact)
        g_style = torch.zeros_like(style, dtype=exact)
        with precise(x):
            upstream = None if upstream is None else arranged(upstream)
            calm: _Calm = ctx.calm
            held = _scaled(weight, calm.weight, ctx.working)
            whole = _whole(x, held, ctx.working) and g_weight is None
            if whole:
                held = held * scale[0, :, None, None, None]
            six = kernels(held.transpose(0, 1).flip(2, 3)) if whole and low_pass is None and _pays(x, held) else None
            rescaled = (scale / (calm.style * calm.weight))[:, :, None, None]
            for strip in _Strip.of(x, len(weight), factor):
                halo = factor * strip.halo
                y = strip.around(out, strip.made, halo)
                g = None if upstream is None else strip.around(upstream, strip.made, halo)
                if of_image is not None:
                    g_image = _rows(strip.around(of_image, strip.made, halo))  # (N, h W, C)
                    back, size = _lifted(g_image, ctx.working)
                    drawn = torch.bmm(back, mixing.to(ctx.working)).to(x.dtype).mul_(size).mT.unflatten(2, y.shape[2:])
                    g = drawn if g is None else drawn.add_(g)
                    if g_mixing is not None:
                        edge = halo * y.shape[3]
                        own = slice(edge, g_image.shape[1] - edge)
                        g_mixing += torch.bmm(back[:, own].mT, _rows(y)[:, own].to(ctx.working)) * size
                assert g is not None
                if ctx.clamp is not None:
                    g = torch.ops.aten.hardtanh_backward(g, y, -ctx.clamp, ctx.clamp)
                inner = slice(halo, y.shape[2] - halo)
                if of_scale or of_bias or of_noise:  # g * y is the same before and after a leaky ReLU
                    moment += (g[:, :, inner] * y[:, :, inner]).sum(dim=(2, 3))
                g = _through_activation(g, y, own=ctx.clamp is not None)
                if of_scale or of_bias or of_noise:
                    inside = g[:, :, inner]
                    sums += inside.sum(dim=(2, 3))
                    if noise is not None:
                        moment -= (inside * noise[..., strip.made, :]).sum(dim=(2, 3))
                    if g_noise is not None:
                        g_noise[:, :, strip.made] = inside.sum(dim=1, keepdim=True)
                if not (of_x or of_style or of_weight):
                    continue
                g, size = _lifted(g if whole else g.mul_(rescaled), ctx.working)
                if low_pass is not None:
                    g = F.conv2d(g, _kernel(low_pass, g).flip(2, 3), padding=(2 - 2 * strip.halo, 2), groups=g.shape[1])
                if g_weight is not None:
                    part = strip.around(x, strip.rows, strip.halo if low_pass is None else 0)
                    styled = _styled(part, style * calm.style).to(ctx.working)
                    g_weight += _weight_gradient(g, styled, weight, low_pass, strip.halo).to(exact) * (calm.weight * size)
                if of_x or of_style:
                    if six is not None and strip.even():
                        g = convolve(g, six)
                    elif low_pass is None:
                        g = F.conv_transpose2d(g, held, padding=(1 + strip.halo, 1))
                    else:
                        g = F.conv2d(g, held.transpose(0, 1), stride=2)
                    g = g.to(x.dtype)
                    g_style += (g * x[:, :, strip.rows]).sum(dim=(2, 3)) * (calm.style * size)
                    if g_x is not None:
                        torch.mul(g, (style * (calm.style * size))[:, :, None, None], out=g_x[:, :, strip.rows])
        g_scale = (moment - bias * sums) / scale  # the sum of g * convolution
        g_noise = None if g_noise is None else g_noise.sum_to_size(noise.shape)
        return g_x, g_weight, g_style, g_scale, sums.sum(dim=0), g_noise, g_mixing, None, None, None


class _Calm(NamedTuple):
    """Factors that keep a convolution inside the range of 16 bits; they are taken out of its result again."""

    style: Tensor | float  # (N, 1)
    weight: float

    @classmethod
    def of(cls, style: Tensor, weight: Tensor, working: torch.dtype) -> _Calm:
        if working.itemsize > 2:
            return cls(1.0, 1.0)
        largest = style.abs().amax(dim=1, keepdim=True).clamp_min(1e-6)
        return cls(1.0 / largest, 2.0 ** -round(0.5 * math.log2(weight[0].numel())))


def _whole(x: Tensor, weight: Tensor, working: torch.dtype) -> bool:
    """Whether style and scale can be put into the weight: for a single picture, and unless 16 bits would not hold them."""
    return len(x) == 1 and x.dtype == weight.dtype == working and working.itemsize > 2


def _pays(x: Tensor, weight: Tensor) -> bool:
    """Whether `winograd.convolve` is quicker than the definition."""
    return x.device.type == "cpu" and min(weight.shape[:2]) >= WIDE and x[0, 0].numel() >= LARGE


def _modulated(x: Tensor, weight: Tensor, style: Tensor, low_pass: Tensor | None, halo: int) -> Tensor:
    """The convolution of style * x, in the weight's dtype; a single picture's style is cheaper to put into the weight."""
    if len(x) == 1:
        return convolution(x.to(weight.dtype), weight * style.to(weight.dtype)[0, :, None, None], low_pass, halo=halo)
    return convolution(_styled(x, style).to(weight.dtype), weight, low_pass, halo=halo)


def _rows(x: Tensor) -> Tensor:
    """The pixels (N, H W, C) of pictures (N, C, H, W)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _styled(x: Tensor, style: Tensor) -> Tensor:
    return x * style[:, :, None, None]


def _scaled(weight: Tensor, factor: float, working: torch.dtype) -> Tensor:
    return weight if factor == 1.0 and weight.dtype == working else (weight * factor).to(working)


def _like(x: Tensor, channels: int, factor: int) -> Tensor:
    """Memory for a picture of other channels and size, in the preferred order."""
    order = torch.channels_last if x.device.type == "cpu" else torch.contiguous_format
    size = (len(x), channels, factor * x.shape[2], factor * x.shape[3])
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=order)


def _kernel(low_pass: Tensor, y: Tensor) -> Tensor:
    """For a convolution in the mathematical sense, of each channel by itself."""
    return (4.0 * low_pass).flip(0, 1).to(y.dtype).expand(y.shape[1], 1, 4, 4)


def _through_activation(g: Tensor, out: Tensor, *, own: bool) -> Tensor:
    """The gradient before the leaky ReLU, in memory of its own, which may be that of `g` if it is ours."""
    if own:
        return torch.ops.aten.leaky_relu_backward.grad_input(g, out, SLOPE, True, grad_input=g)
    return torch.ops.aten.leaky_relu_backward(g, out, SLOPE, True)


def _lifted(g: Tensor, working: torch.dtype) -> tuple[Tensor, Tensor | float]:
    """A gradient in the working type, and the factor that was taken out because float16 cannot hold small numbers."""
    if working != torch.float16:
        return g.to(working), 1.0
    size = g.abs().amax().clamp_min(1e-30)
    return (g / size).to(working), size.to(g.dtype)


def _weight_gradient(g: Tensor, styled: Tensor, weight: Tensor, low_pass: Tensor | None, halo: int) -> Tensor:
    if low_pass is None:
        inside = g[:, :, halo : g.shape[2] - halo]
        return conv2d_weight(styled, weight.shape, inside, padding=(1 - halo, 1))
    outputs, inputs = weight.shape[:2]
    return conv2d_weight(g, (inputs, outputs, 3, 3), styled, stride=2).transpose(0, 1)
