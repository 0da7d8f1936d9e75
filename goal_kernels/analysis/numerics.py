"""Numerics on functions of (p, n): lattices, derivatives, work along paths, lines of zeros."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Field = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(p [K], n [K]), float64 -> (pull [K], push [K])."""

STEP = 1e-4
"""Of a difference. Its error is (tau STEP)^4 of the derivative, below rounding up to tau = 100."""

TOLERANCE = 1e-11
"""Of the work on one panel; a panel that is not known so well is halved."""

HALVINGS = 40
PANELS = 8  # of a path to begin with, so that a narrow step is not passed over
MOST_PANELS = 1 << 20

# Gauss-Lobatto nodes and weights on [0, 1], exact for polynomials of degree 7. The ends are nodes,
# so that a jump anywhere in a panel shows when it is halved.
_OUTER = math.sqrt(3 / 7) / 2
_NODES = (
    (0.0, 1 / 20),
    (0.5 - _OUTER, 49 / 180),
    (0.5, 16 / 45),
    (0.5 + _OUTER, 49 / 180),
    (1.0, 1 / 20),
)


def axis(steps: int) -> Tensor:
    """Centres of `steps` equal cells of [-1, 1], float64 [steps]."""
    return (2 * torch.arange(steps, dtype=torch.float64, device="cpu") + 1) / steps - 1


def lattice(steps: int) -> tuple[Tensor, Tensor]:
    """Every pair of the values of `axis`: p and n, [steps^2] each, p slowest."""
    p, n = torch.meshgrid(axis(steps), axis(steps), indexing="ij")
    return p.reshape(-1), n.reshape(-1)


def derivative(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Derivative of an elementwise function by differences of fourth order; NaN at a jump. [K]"""

    def estimate(h: float) -> Tensor:
        near = function(at + h) - function(at - h)
        far = function(at + 2 * h) - function(at - 2 * h)
        return (8 * near - far) / (12 * h)

    fine, coarse = estimate(STEP / 2), estimate(STEP)
    # Across a jump halving the step doubles the estimate.
    agree = (fine - coarse).abs() <= 1e-3 * (fine.abs() + coarse.abs()) + 1e-6
    return torch.where(agree, coarse, torch.nan)


def work(field: Field, start: tuple[Tensor, Tensor], end: tuple[Tensor, Tensor]) -> Tensor:
    """Integral of (-pull dp + push dn) along straight lines, [K]: by how much a potential rises.

    Adaptive, so that weights that jump cost no precision. Args: start, end: p and n, [K] each.
    """
    nodes, weights = torch.tensor(_NODES, dtype=torch.float64, device="cpu").T
    slope_p, slope_n = end[0] - start[0], end[1] - start[1]

    def panels(owner: Tensor, low: Tensor, high: Tensor) -> Tensor:
        at = low[:, None] + (high - low)[:, None] * nodes
        p = start[0][owner, None] + at * slope_p[owner, None]
        n = start[1][owner, None] + at * slope_n[owner, None]
        pull, push = (side.view_as(at) for side in field(p.reshape(-1), n.reshape(-1)))
        rate = push * slope_n[owner, None] - pull * slope_p[owner, None]
        rate = rate.where(rate.abs() < math.inf, 0.0)  # a pole at a node has no width
        return (rate * weights).sum(dim=1) * (high - low)

    count = len(slope_p)
    owner = torch.arange(count, device="cpu").repeat_interleave(PANELS)
    low = torch.arange(PANELS, dtype=torch.float64, device="cpu").repeat(count) / PANELS
    high = low + 1 / PANELS
    total = torch.zeros(count, dtype=torch.float64, device="cpu")
    for halving in range(HALVINGS):
        middle = (low + high) / 2
        halves = panels(owner, low, middle) + panels(owner, middle, high)
        error = (halves - panels(owner, low, high)).abs()
        done = error <= TOLERANCE * (1 + halves.abs())
        if halving == HALVINGS - 1 or 2 * len(owner) > MOST_PANELS:
            done[:] = True
        total.index_add_(0, owner[done], halves[done])
        rest = ~done
        owner = owner[rest].repeat(2)
        low, middle, high = low[rest], middle[rest], high[rest]
        low, high = torch.cat([low, middle]), torch.cat([middle, high])
        if not len(owner):
            break
    return total


def zero_lines(values: Tensor, places: Tensor) -> Tensor:
    """Where a function given on a lattice is zero, as short lines.

    Args: values: [S, S], p along the first dimension; NaN where it does not count. places: [S].
    Returns: [L, 2, 2]: lines, their ends, (p, n).
    """
    index = torch.arange(len(places) - 1, device="cpu")
    i, j = (grid.reshape(-1) for grid in torch.meshgrid(index, index, indexing="ij"))
    lines = []
    for corners in (((0, 0), (1, 0), (1, 1)), ((0, 0), (0, 1), (1, 1))):  # two triangles a cell
        p = torch.stack([places[i + di] for di, _ in corners])
        n = torch.stack([places[j + dj] for _, dj in corners])
        v = torch.stack([values[i + di, j + dj] for di, dj in corners])
        ends, crossed = [], []
        for a, b in ((0, 1), (1, 2), (2, 0)):
            share = v[a] / (v[a] - v[b])
            ends.append(torch.stack([p[a].lerp(p[b], share), n[a].lerp(n[b], share)], dim=1))
            crossed.append((v[a] > 0) != (v[b] > 0))
        usable = v.isfinite().all(dim=0)
        for a, b in ((0, 1), (1, 2), (2, 0)):
            here = usable & crossed[a] & crossed[b]
            lines.append(torch.stack([ends[a], ends[b]], dim=1)[here])
    return torch.cat(lines)
