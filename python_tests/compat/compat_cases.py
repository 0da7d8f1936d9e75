"""Batches and comparisons that the tests of `goal_kernels.compat` share."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def unit_rows(*shape: int, seed: int = 0) -> Tensor:
    """Rows of unit length in float64, which carry a gradient."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return F.normalize(rows, dim=-1).requires_grad_()


def outcome(loss: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    """The loss, and its gradients."""
    value = loss(*inputs)
    return value.detach(), *torch.autograd.grad(value, inputs)


def assert_same(got: tuple[Tensor, ...], wanted: tuple[Tensor, ...], factor: float = 1.0) -> None:
    """To float64 rounding. factor: of what is wanted."""
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, factor * other, rtol=1e-12, atol=1e-13)
