"""Steps of fixed shapes recorded once and replayed: a small network on a large GPU waits for its launches otherwise.

Half of the time of a training step of the starter's generator went into starting its two thousand kernels. A CUDA graph
starts them all at once. On a CPU nothing is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

Step = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""Tensors in, tensors out; whatever else it reads must lie in memory that stays in place."""
WARM = 4
"""Steps made plainly before one is recorded: compilation and the choice of convolutions happen in them."""


class Captured:
    """A step that is recorded after `WARM` plain calls; every call counts, the plain ones too.

    The inputs of all calls have the same names, shapes and types. On a GPU the outputs are overwritten by the next call:
    whoever keeps one copies it. The step must not wait for the device, and leave gradients to be made anew (`zero_grad`
    with `set_to_none` as its first deed).
    """

    def __init__(self, step: Step, device: torch.device) -> None:
        self.step, self.device = step, device
        self._calls = 0
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: dict[str, Tensor] = {}
        self._outputs: dict[str, Tensor] = {}

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The step's outputs."""
        if self.device.type != "cuda":
            return self.step(inputs)
        self._calls += 1
        if self._calls <= WARM:
            return self._aside(inputs)
        if self._graph is None:
            self._record(inputs)
        assert self._graph is not None
        for name, value in self._inputs.items():
            value.copy_(inputs[name])
        self._graph.replay()
        return self._outputs

    def _aside(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A plain call, on a stream of its own as recording asks for."""
        assert self._stream is not None
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            outputs = self.step(inputs)
        torch.cuda.current_stream().wait_stream(self._stream)
        return outputs

    def _record(self, inputs: Mapping[str, Tensor]) -> None:
        self._inputs = {name: value.clone() for name, value in inputs.items()}
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=self._stream):
            self._outputs = self.step(self._inputs)


def adamw_of(
    parameters: Sequence[nn.Parameter],
    rate: float,
    device: torch.device,
    *,
    decay: float,
) -> torch.optim.AdamW:
    """Fused AdamW whose learning rate a recorded step can follow; set it with `pieces.set_rate`."""
    captured = device.type == "cuda"
    at = torch.tensor(rate, device=device) if captured else rate
    return torch.optim.AdamW(parameters, lr=at, betas=(0.9, 0.99), weight_decay=decay, fused=captured, capturable=captured)


def adam_of(groups: list[dict[str, object]], rate: float, device: torch.device) -> torch.optim.Adam:
    """Adam whose learning rates a recorded step can follow; set them with `pieces.set_rate`.

    A group may have a `factor`, which multiplies the rate.
    """
    captured = device.type == "cuda"
    made = [{**group, "lr": torch.tensor(rate, device=device) if captured else rate} for group in groups]
    return torch.optim.Adam(made, lr=rate, betas=(0.9, 0.99), capturable=captured)
