"""Callables as functions of (p, n): what is one and what is not, and its gradients by autograd."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from goal_kernels.analysis.numerics import Field, derivative, lattice

Function = Callable[[Tensor, Tensor], Tensor]
AGREEMENT = 1e-6
"""Difference of two results that count as equal, relative to 1 + the largest of both."""


def points(p: Any, n: Any) -> tuple[Tensor, Tensor, torch.Size]:
    """p and n as float64 [K], and the shape they had."""
    sides = []
    for name, given in (("p", p), ("n", n)):
        # numpy takes Python's numbers for float64, torch for its default.
        given = given if isinstance(given, Tensor) else np.asarray(given)
        side = torch.as_tensor(given, device="cpu").detach()
        if side.is_complex():
            raise TypeError(f"{name}: expected real similarities, got {side.dtype}.")
        sides.append(side.double())
    p, n = torch.broadcast_tensors(*sides)
    return p.reshape(-1), n.reshape(-1), p.shape


def shaped(function: Function, p: Any, n: Any) -> Tensor:
    p, n, shape = points(p, n)
    with torch.no_grad():
        return function(p, n).view(shape)


def close(found: Tensor, expected: Tensor) -> bool:
    """Whether two results agree, relative to the largest of both; NaN agrees with nothing."""
    scale = 1 + torch.maximum(found.abs().max(), expected.abs().max())
    return bool(((found - expected).abs() <= AGREEMENT * scale).all())


def check_result(name: str, result: object, like: Tensor) -> None:
    """Raises: TypeError, ValueError when it is no real [K] of numbers."""
    wanted = f"expected a tensor like p, {like.dtype} {list(like.shape)}"
    if not isinstance(result, Tensor) or result.dtype != like.dtype:
        found = result.dtype if isinstance(result, Tensor) else type(result).__name__
        raise TypeError(f"{name}: {wanted}, got {found}.")
    if result.shape != like.shape:
        hint = "; return one value for each anchor, without mean or sum" if not result.dim() else ""
        raise ValueError(f"{name}: {wanted}, got {list(result.shape)}{hint}.")
    if result.isnan().any():
        where = int(result.isnan().nonzero()[0, 0])
        raise ValueError(f"{name}: expected numbers, got NaN, for instance at p = {like[where]:g}.")


def probed(name: str, function: Callable[..., Any]) -> Function:
    """The function, after a look at whether it is one of (p, n), element by element."""
    try:
        inspect.signature(function).bind("p", "n")
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name}: expected a callable of two arguments, p [K] and n [K]: {error}."
        ) from None
    p = torch.tensor([-0.9, -0.3, 0.15, 0.5, 0.95], dtype=torch.float64, device="cpu")
    n = torch.tensor([0.3, -0.8, 0.6, 0.45, -0.1], dtype=torch.float64, device="cpu")
    with torch.no_grad():
        together = function(p, n)
        check_result(name, together, p)
        alone = [function(p[k : k + 1], n[k : k + 1]) for k in range(len(p))]
    for value in alone:
        check_result(name, value, p[:1])
    apart = torch.cat(alone)
    wrong = ((together - apart).abs() > 1e-9 * (1 + apart.abs())).nonzero()
    if len(wrong):
        k = int(wrong[0, 0])
        raise ValueError(
            f"{name}: expected a function of (p, n), got {together[k]:.6g} at p = {p[k]:g}, "
            f"n = {n[k]:g} among other anchors and {apart[k]:.6g} alone; a loss that looks at the "
            "whole batch, or draws at random, is for goal_kernels.analysis.dissect."
        )
    return function


def by_autograd(name: str, function: Function) -> Field:
    """pull and push by autograd."""

    def field(p: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            p, n = p.detach().requires_grad_(), n.detach().requires_grad_()
            value = function(p, n)
            check_result(name, value, p)
            if not value.requires_grad:
                raise ValueError(
                    f"{name}: expected a differentiable function of p and n, got values without a "
                    "graph; leave out detach, numpy and comparisons."
                )
            by_p, by_n = torch.autograd.grad(value.sum(), (p, n), allow_unused=True)
        pull = torch.zeros_like(p) if by_p is None else -by_p
        push = torch.zeros_like(n) if by_n is None else by_n
        check_result(f"gradient of {name}", pull.where(~push.isnan(), push), p)
        return pull, push

    field(*lattice(3))
    return field


def stopped_note(field: Field, function: Function) -> tuple[str, ...]:
    """A note when the gradient is not the derivative of the value: a part of it is stopped."""
    p, n = lattice(8)
    p, n = 0.967 * p + 0.0131, 0.953 * n - 0.0173  # off the lines on which losses have their kinks
    with torch.no_grad():
        by_p, by_n = (
            derivative(lambda at: function(at, n), p),
            derivative(lambda at: function(p, at), n),
        )
    pull, push = field(p, n)
    gaps = torch.cat([pull + by_p, push - by_n])
    size = 1 + torch.cat([pull, push]).abs().max()
    if (gaps.abs() > 1e-4 * size).any():  # NaN, at a jump, is no evidence
        return ("a gradient is stopped: pull and push are not the derivatives of the value",)
    return ()
