"""IR-SE50, the face-recognition network of pixel2style2pixel's identity loss (Deng et al. 2019; Richardson et al. 2021).

A residual network with squeeze-and-excitation (Hu et al. 2018) for 112 x 112 RGB faces. Tensor names and their order are
those of the public file `model_ir_se50.pth`; the three depths of its family (50, 100, 152) and the family without
squeeze-and-excitation ("ir") have the same layout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from facednerf_arcface.statedict import agreed, filled, width
from facednerf_core.errors import InputError

UNITS: Mapping[int, tuple[int, int, int, int]] = {50: (3, 4, 14, 3), 100: (3, 13, 30, 3), 152: (3, 8, 36, 3)}
"""Residual units of the four stages, by the official `num_layers`."""
DROPOUT = 0.6  # of the official network in training; nothing in evaluation
WHAT = "an IR-SE network"


class SqueezeExcite(nn.Module):
    """Channels weighed by what the whole picture shows (Hu et al. 2018, Eq. 2 to 4)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1, bias=False)
        self.fc2 = nn.Conv2d(squeezed, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class Subsampled(nn.Module):
    """Every `stride`-th pixel: the shortcut of a unit that keeps its width. It has no tensors."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[..., :: self.stride, :: self.stride]


class IrUnit(nn.Module):
    """One residual unit: BN - conv - PReLU - strided conv - BN - SE, and no activation after the sum.

    The shortcut is a strided 1 x 1 convolution with BN where the width changes, else plain subsampling, also where the
    stride is 2. `squeezed` is the number of SE's inner channels; 0 leaves SE out.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, squeezed: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = Subsampled(stride)
        if in_channels != channels:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )
        layers: list[nn.Module] = [
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        ]
        if squeezed:
            layers.append(SqueezeExcite(channels, squeezed))
        self.res_layer = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.res_layer(x)
        return residual + self.shortcut_layer(x)


class IrSe(nn.Module):
    """Faces (B, 3, 112, 112), RGB in [-1, 1], to embeddings (B, embedding) of unit length. The defaults are IR-SE50.

    Args:
        widths: channels of the four stages.
        units: residual units of the four stages; the first one of each, also of the first stage, halves the size.
        embedding: length of an embedding.
        reduction: by how much squeeze-and-excitation narrows; 0 leaves it out (the official mode "ir").
        affine: whether the last batch normalisation has a weight and a bias, as in the released file.
        input_size: height and width of the faces, 112 or another multiple of 16.
    """

    alignment: ClassVar[Literal["crop"]] = "crop"  # how pixel2style2pixel brings a picture to the network

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 256, 512),
        units: Sequence[int] = UNITS[50],
        embedding: int = 512,
        *,
        reduction: int = 16,
        affine: bool = True,
        input_size: int = 112,
    ) -> None:
        super().__init__()
        if len(widths) != 4 or len(units) != 4:
            raise ValueError(f"an IR-SE network has four stages; got {len(widths)} widths and {len(units)} unit counts")
        self.widths, self.units, self.embedding, self.input_size = tuple(widths), tuple(units), embedding, input_size
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.PReLU(widths[0])
        )
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(widths[3]),
            nn.Dropout(DROPOUT),
            nn.Flatten(),
            nn.Linear(widths[3] * (input_size // 16) ** 2, embedding),
            nn.BatchNorm1d(embedding, affine=affine),
        )
        body: list[IrUnit] = []
        channels = widths[0]
        for wide, count in zip(widths, units, strict=True):
            squeezed = wide // reduction if reduction else 0
            for index in range(count):
                body.append(IrUnit(channels, wide, 2 if index == 0 else 1, squeezed))
                channels = wide
        self.body = nn.Sequential(*body)

    def forward(self, faces: Tensor) -> Tensor:
        embedding: Tensor = self.output_layer(self.body(self.input_layer(faces)))
        # the squares of 512 numbers do not fit in half precision
        embedding = embedding if embedding.dtype == torch.float64 else embedding.float()
        return functional.normalize(embedding, dim=1)

    @classmethod
    def from_state_dict(
        cls,
        tensors: Mapping[str, Tensor],
        *,
        input_size: int | None = None,
        num_layers: int | None = None,
        mode: str | None = None,
        drop_ratio: float | None = None,
        affine: bool | None = None,
        units: Sequence[int] | None = None,
    ) -> Self:
        """The frozen network of tensors by the names of `model_ir_se50.pth`, in evaluation mode.

        Widths, depth and squeeze-and-excitation are told by the tensors. The other arguments are the official
        constructor's and only checked: `input_size` (112 or 224), `num_layers` (50, 100 or 152), `mode` ("ir_se" or "ir"),
        `affine`; `drop_ratio` does nothing in evaluation. `units` says where the four stages begin, for networks of other
        depths whose neighbouring stages are equally wide.

        Raises:
            InputError: the tensors are not such a network's, or not what the arguments say.
        """
        flows = _flows(tensors)
        layout = tuple(units) if units is not None else _stages(flows)
        if len(layout) != 4 or min(layout, default=0) < 1 or sum(layout) != len(flows):
            raise InputError(f"these tensors have {len(flows)} residual units, which are not four stages of {layout}.")
        starts = [sum(layout[:stage]) for stage in range(4)]
        widths = [flows[start][1] for start in starts]
        embedding = width(tensors, "output_layer.3.weight", WHAT)
        positions = tensors["output_layer.3.weight"].shape[-1] / widths[3]
        size = 16 * round(positions**0.5)
        squeeze = tensors.get("body.0.res_layer.5.fc1.weight")
        reduction = 0 if squeeze is None else widths[0] // squeeze.shape[0]
        has_affine = "output_layer.4.weight" in tensors
        depths: dict[tuple[int, ...], int] = {count: depth for depth, count in UNITS.items()}
        agreed(
            "a network",
            input_size=(input_size, size),
            num_layers=(num_layers, depths.get(layout)),
            mode=(mode, "ir_se" if reduction else "ir"),
            affine=(affine, has_affine),
        )
        if drop_ratio is not None and not 0 <= drop_ratio < 1:
            raise InputError(f"drop_ratio is a probability, not {drop_ratio}.")

        arguments = {"reduction": reduction, "affine": has_affine, "input_size": size}
        return filled(lambda: cls(widths, layout, embedding, **arguments), tensors, WHAT)


def _flows(tensors: Mapping[str, Tensor]) -> list[tuple[int, int]]:
    """Channels into and out of each residual unit, in order."""
    found = {}
    for name, value in tensors.items():
        match = re.fullmatch(r"body\.(\d+)\.res_layer\.1\.weight", name)
        if match and value.ndim == 4:
            found[int(match[1])] = (int(value.shape[1]), int(value.shape[0]))
    if not found or sorted(found) != list(range(len(found))):
        raise InputError(f"these are not the tensors of {WHAT}: 'body.N.res_layer.1.weight' are not there from N = 0 on.")
    return [found[index] for index in range(len(found))]


def _stages(flows: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """How many units the four stages have: of a known depth, else each stage begins where the width changes."""
    changes = [0, *(index for index, (before, after) in enumerate(flows) if index and before != after)]
    for layout in UNITS.values():
        starts = {sum(layout[:stage]) for stage in range(4)}
        if sum(layout) == len(flows) and set(changes) <= starts:
            return layout
    if len(changes) != 4:
        raise InputError(
            f"these tensors do not tell where the four stages of {WHAT} begin; say how many of the {len(flows)} residual "
            "units each has, as units=(a, b, c, d)."
        )
    ends = [*changes[1:], len(flows)]
    return tuple(end - start for start, end in zip(changes, ends, strict=True))
