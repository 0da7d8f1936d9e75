"""`analyze`: what a loss on (p, n) does to the gradients, for any p and n.

`p` is the similarity of an anchor to its positive, `n` to a negative. Conventions and equation
numbers are those of docs/derivation.md: pull = -dL/dp = T P+, push = dL/dn = T P- (eq. 4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from goal_kernels.analysis.catalogue import CatalogueLoss, as_loss
from goal_kernels.analysis.functions import (
    Function,
    by_autograd,
    check_result,
    close,
    points,
    probed,
    shaped,
    stopped_note,
)
from goal_kernels.analysis.numerics import Field, axis, derivative, lattice, work, zero_lines
from goal_kernels.objective import Objective

PLATEAU_STEPS = 2000  # places of [-1, 1] at which the drift is looked at
PATH_STEPS = 9  # a side of the lattice on which two paths are compared


class Corner(NamedTuple):
    """The limits of the weights where p and n approach -1 or 1."""

    p: float
    n: float
    pull: float
    push: float


class Analysis:
    """What a loss does at (p, n). Made by `analyze`.

    Methods take p and n as numbers or tensors that broadcast, of similarities in [-1, 1], and
    return float64 of their shape, on the CPU, without a graph.

    Attributes:
        name: of the loss.
        equation: of the loss, with the values of its parameters; empty for a callable.
        factored: whether the loss is an objective, whose factors `triplet`, `positive` and
            `negative` are its own. For others T is the mean of pull and push, so P+ + P- = 2.
        direction: name of the objective's direction; "dot", the derivative of similarities that are
            products, for others.
        notes: what else has to be known to read the numbers.
    """

    def __init__(
        self,
        name: str,
        field: Field,
        *,
        equation: str = "",
        factors: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]] | None = None,
        value: Function | None = None,
        notes: tuple[str, ...] = (),
        direction: str = "dot",
    ) -> None:
        self.name, self.equation, self.notes = name, equation, notes
        self.direction = direction
        self.factored = factors is not None
        self._field, self._factors, self._value = field, factors or self._mean_factors, value

    def __repr__(self) -> str:
        return f"Analysis({self.name!r})"

    def _mean_factors(self, p: Tensor, n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pull, push = self._field(p, n)
        mean = (pull + push) / 2
        return mean, pull / mean, push / mean

    def weights(self, p: Any, n: Any) -> tuple[Tensor, Tensor]:
        """(pull, push) in one evaluation."""
        p, n, shape = points(p, n)
        pull, push = self._field(p, n)
        return pull.view(shape), push.view(shape)

    def pull(self, p: Any, n: Any) -> Tensor:
        """-dL/dp = T P+: how strongly the anchor is drawn to its positive."""
        return self.weights(p, n)[0]

    def push(self, p: Any, n: Any) -> Tensor:
        """dL/dn = T P-: how strongly the anchor is driven from its negative."""
        return self.weights(p, n)[1]

    def _factor(self, which: int, p: Any, n: Any) -> Tensor:
        p, n, shape = points(p, n)
        return self._factors(p, n)[which].view(shape)

    def triplet(self, p: Any, n: Any) -> Tensor:
        """T."""
        return self._factor(0, p, n)

    def positive(self, p: Any, n: Any) -> Tensor:
        """P+; NaN where T is 0 and no factor of its own."""
        return self._factor(1, p, n)

    def negative(self, p: Any, n: Any) -> Tensor:
        """P-; NaN where T is 0 and no factor of its own."""
        return self._factor(2, p, n)

    def defect(self, p: Any, n: Any) -> Tensor:
        """d pull/dn + d push/dp, which is 0 where the weights can be derivatives (section 3).

        By differences, since a second derivative by autograd takes a stopped gradient for a
        constant. NaN where a weight jumps; what a jump is worth `integrable` knows.
        """
        p, n, shape = points(p, n)
        of_pull = derivative(lambda at: self._field(p, at)[0], n)
        of_push = derivative(lambda at: self._field(at, n)[1], p)
        return (of_pull + of_push).view(shape)

    def _path(self, p: Tensor, n: Tensor, first: int) -> Tensor:
        """Work from (0, 0) to (p, n) in two legs, along p first or along n first. [K]"""
        zero = torch.zeros_like(p)
        corner = (p, zero) if first == 0 else (zero, n)
        return work(self._field, (zero, zero), corner) + work(self._field, corner, (p, n))

    @cached_property
    def _paths(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """p, n and the work to there along either path."""
        p, n = lattice(PATH_STEPS)
        return p, n, self._path(p, n, 0), self._path(p, n, 1)

    @cached_property
    def integrable(self) -> bool:
        """Whether pull and push are the derivatives of a function: work does not depend on the way.

        Checked on a lattice, jumps included, up to a relative 1e-6.
        """
        return close(*self._paths[2:])

    @cached_property
    def potential(self) -> Function | None:
        """F(p, n) with dF/dp = -pull and dF/dn = push, or None where there is none.

        The closed form where one is known and agrees with the work along a path, which it may
        miss by a constant; else that work, from F(0, 0) = 0.
        """
        if not self.integrable:
            return None
        p, n, along, _ = self._paths
        zero = torch.zeros_like(p)
        known = self._value
        if known is not None and close(known(p, n) - known(zero, zero), along):
            return lambda p, n: shaped(known, p, n)
        return lambda p, n: shaped(lambda p, n: self._path(p, n, 0), p, n)

    @cached_property
    def balanced(self) -> bool:
        """Whether pull = push everywhere."""
        pull, push = self._field(*lattice(33))
        return close(pull, push)

    def equilibrium(self, steps: int = 64) -> Tensor:
        """Lines on which pull = push: [L, 2, 2] float64, short lines, their ends, (p, n).

        Regions without a gradient do not count; no lines when `balanced`.
        """
        p, n = lattice(steps)
        pull, push = self._field(p, n)
        gap = torch.where(self.stationary(p, n), torch.nan, pull - push)
        if self.balanced:
            gap = torch.full_like(gap, torch.nan)
        return zero_lines(gap.view(steps, steps), axis(steps))

    def stationary(self, p: Any, n: Any, tolerance: float = 1e-9) -> Tensor:
        """bool: no gradient, |pull| and |push| are at most `tolerance`."""
        pull, push = self.weights(p, n)
        return (pull.abs() <= tolerance) & (push.abs() <= tolerance)

    def drift(self, p: Any, n: Any) -> Tensor:
        """pull (1 - p^2) - push (1 - p n): how fast a collapsed batch's similarities rise.

        Rows of unit length in two tight clusters, images and texts, whose encoders cannot tell the
        items apart: p is the cosine of the clusters, n that of the hardest negatives
        (docs/collapse.md).
        """
        p, n, shape = points(p, n)
        pull, push = self._field(p, n)
        return (pull * (1 - p * p) - push * (1 - p * n)).view(shape)

    def plateaus(self, gap: float = 1e-3) -> tuple[float, ...]:
        """Similarities at which a collapsed batch comes to rest, where the drift falls through 0.

        Args: gap: by how much the hardest negatives exceed the positives, n = p + gap.
        """
        p = torch.linspace(-1, 1 - gap, PLATEAU_STEPS, dtype=torch.float64, device="cpu")
        drift = self.drift(p, p + gap)
        found = [-1.0] if drift[1] < 0 else []  # at the very end there is nowhere to go
        for k in ((drift[1:-2] > 0) & (drift[2:-1] <= 0)).nonzero()[:, 0].add(1).tolist():
            share = drift[k] / (drift[k] - drift[k + 1])
            found.append(p[k].lerp(p[k + 1], share).item())
        return (*found, 1.0) if drift[-2] > 0 else tuple(found)

    def limits(self) -> tuple[Corner, ...]:
        """The weights as p, n -> -1 and 1 from inside, four corners; infinite where they grow."""
        corners = []
        for p in (-1.0, 1.0):
            for n in (-1.0, 1.0):
                far, near = (torch.stack(self.weights(p * s, n * s)) for s in (1 - 1e-6, 1 - 1e-9))
                grows = near.abs() > 3 * far.abs() + 1
                limit = torch.where(grows, near.sign() * torch.inf, near)
                corners.append(Corner(p, n, *limit.tolist()))
        return tuple(corners)


def analyze(
    loss: Objective | CatalogueLoss | str | Function, *, relative: tuple[float, float] = (0.0, 0.0)
) -> Analysis:
    """What a loss does to the gradients, as a function of (p, n).

    Args:
        loss: an `Objective`; "triplet/pair"; a loss of the catalogue or its name (see
            `goal_kernels.analysis.list_losses`); or a differentiable f(p [K], n [K]) -> [K],
            elementwise, whose gradients autograd takes.
        relative: (R+, R-) that an objective with relative similarity is shown with. They depend on
            the other pairs of a batch. The default, (0, 0), is that of a batch of one pair with one
            negative, where both sets are empty, and `_ms` elements are the plain ones.
    Returns: an `Analysis`.
    Raises: TypeError, ValueError for what is no function of (p, n): another shape or dtype, complex
        or NaN results, no gradient, elements that depend on each other.
    """
    loss = as_loss(loss)
    if isinstance(loss, Objective):
        return _of_objective(loss, relative)
    if relative != (0.0, 0.0):
        raise ValueError(f"relative: only an objective has R+ and R-, got {relative} for {loss!r}.")
    if isinstance(loss, CatalogueLoss):
        return _of_catalogue(loss)
    if not callable(loss):
        raise TypeError(
            "loss: expected an Objective, the name of an objective or of a loss of the catalogue, "
            f"or a callable f(p, n), got {type(loss).__name__}."
        )
    name = getattr(loss, "__name__", type(loss).__name__)
    value = probed(name, loss)
    field = by_autograd(name, value)
    return Analysis(name, field, value=value, notes=stopped_note(field, value))


def _of_objective(objective: Objective, relative: tuple[float, float]) -> Analysis:
    triplet, pair = objective.triplet_element, objective.pair_element
    notes: tuple[str, ...] = ()
    if pair.relative == "none" and relative != (0.0, 0.0):
        raise ValueError(f"relative: {objective.name} has no relative similarity, got {relative}.")
    if pair.relative != "none":
        notes = (f"R+ = {relative[0]:g} and R- = {relative[1]:g} are held fixed",)

    def factors(p: Tensor, n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shares = {}
        if pair.relative != "none":
            for key, number in zip(("positive", "negative"), relative, strict=True):
                shares[f"relative_{key}"] = torch.full_like(p, number)
        with torch.no_grad():
            weight = triplet.formula(positive=p, negative=n, **objective.values_for(triplet))
            sides = pair.formula(positive=p, negative=n, **shares, **objective.values_for(pair))
        for element, part in ((triplet, weight), (pair, sides[0]), (pair, sides[1])):
            check_result(f"{element.kind} element {element.name!r}", part, p)
        return weight, *sides

    def field(p: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
        weight, plus, minus = factors(p, n)
        return weight * plus, weight * minus

    field(*lattice(3))
    elements = [triplet, pair]
    if objective.direction_element != "dot":
        elements.append(objective.kappa_element)
    values = {name: x for e in elements for name, x in objective.values_for(e).items()}
    equation = _with_values("; ".join(e.equation for e in elements if e.equation), values)
    known = objective.potential
    return Analysis(
        objective.name,
        field,
        equation=equation,
        factors=factors,
        value=known,
        notes=notes,
        direction=objective.kappa_element.name,
    )


def _of_catalogue(loss: CatalogueLoss) -> Analysis:
    """From the closed form of the gradient, after a comparison with autograd of the value."""
    value = probed(loss.name, loss.of_pair)
    equation = _with_values(loss.equation, loss.values)
    derived = by_autograd(loss.name, value)
    closed = loss.pair_weights
    if closed is None:
        return Analysis(loss.name, derived, equation=equation, value=value)
    p, n = lattice(8)
    for side, found, expected in zip(("pull", "push"), closed(p, n), derived(p, n), strict=True):
        if not close(found, expected):
            raise ValueError(
                f"{loss.name}: the closed form of the {side} differs from autograd of the value by "
                f"up to {(found - expected).abs().max():.3g}; mend `weights` or leave them out."
            )
    notes = stopped_note(closed, value)
    return Analysis(loss.name, closed, equation=equation, value=value, notes=notes)


def _with_values(equation: str, values: Mapping[str, float]) -> str:
    shown = ", ".join(f"{name} = {value:g}" for name, value in values.items())
    return f"{equation}; {shown}" if shown else equation
