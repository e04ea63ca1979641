"""Adam whose steps keep the proportions of the gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class SharedAdam(torch.optim.Optimizer):
    """Adam (Kingma & Ba 2015) with one second moment for each tensor, the mean over its numbers, as Adam-mini's blocks
    have (Zhang et al. 2024).

    Plain Adam moves every number by about the learning rate, however small and noisy its gradient: where guidance speaks
    of few directions of a latent, the others wander. Here those move as little as their gradient is small, and the
    root mean square of a tensor's step is about the learning rate.
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-3) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-8})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step from the gradients that the tensors have; a tensor without one stays."""
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                memory: dict[str, Tensor] = self.state[parameter]
                if not memory:
                    memory["step"] = torch.tensor(0.0)
                    memory["exp_avg"] = torch.zeros_like(parameter)
                    memory["exp_avg_sq"] = torch.zeros((), dtype=parameter.dtype, device=parameter.device)
                memory["step"] += 1
                memory["exp_avg"].lerp_(parameter.grad, 1 - first)
                memory["exp_avg_sq"].lerp_(parameter.grad.square().mean(), 1 - second)
                count = float(memory["step"])
                size = (memory["exp_avg_sq"] / (1 - second**count)).sqrt() + group["eps"]
                parameter -= group["lr"] / (1 - first**count) * memory["exp_avg"] / size
