"""Adam with one second moment for each tensor."""

from __future__ import annotations

import torch

from facednerf_core.adam import SharedAdam


def stepped(gradients: list[torch.Tensor], lr: float = 0.1) -> torch.Tensor:
    """Where a tensor that began at 0 is after these gradients."""
    parameter = torch.zeros_like(gradients[0], requires_grad=True)
    adam = SharedAdam([parameter], lr=lr)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        adam.step()
    return parameter.detach()


def test_the_first_step_is_the_gradient_at_the_learning_rate() -> None:
    gradient = torch.tensor([3.0, -1.0, 0.0, 0.5])
    for size in (1e-3, 1.0, 1e3):  # whatever the gradient's unit
        moved = stepped([size * gradient])
        assert torch.allclose(moved, -0.1 * gradient / gradient.square().mean().sqrt(), rtol=1e-4)


def test_directions_that_the_gradient_hardly_names_hardly_move() -> None:
    draws = torch.Generator().manual_seed(0)
    loud = torch.tensor([1.0, 0.0, 0.0, 0.0])
    gradients = [loud + 0.01 * torch.randn(4, generator=draws) * (1 - loud) for _ in range(50)]
    shared = stepped(gradients)
    parameter = torch.zeros(4, requires_grad=True)
    plain = torch.optim.Adam([parameter], lr=0.1)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        plain.step()
    assert float(shared[1:].abs().max() / shared[0].abs()) < 0.01
    assert float(parameter.detach()[1:].abs().max() / parameter.detach()[0].abs()) > 0.02


def test_of_one_number_it_is_adam() -> None:
    gradients = [torch.tensor([value]) for value in (1.0, -0.3, 0.2, 0.7)]
    parameter = torch.zeros(1, requires_grad=True)
    plain = torch.optim.Adam([parameter], lr=0.1)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        plain.step()
    assert torch.allclose(stepped(gradients), parameter.detach(), atol=1e-6)


def test_a_tensor_without_a_gradient_stays() -> None:
    still, moved = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    moved.grad = torch.ones(2)
    SharedAdam([still, moved], lr=0.1).step()
    assert torch.equal(still.detach(), torch.ones(2))
    assert float(moved.detach().max()) < 1
