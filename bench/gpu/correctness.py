"""Whether a contestant's results are right, before anything is timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from comparators import (
    Truth,
    check_against_truth,
    check_gradient,
    check_indices,
    float64_truth,
    gradient_bound,
    similarity_bound,
)
from torch import Tensor

import goal_kernels as gk
from bench.cases import RELATIVE, Case
from bench.contest import float32_precision
from bench.gpu.contestants import context_of, make
from bench.gpu.inputs import HALF_TRAINED, inputs_for
from bench.gpu.judge import DeviceJudge
from bench.gpu.kinds import Kind
from bench.gpu.variants import Variant
from bench.gpu.verdicts import check_each, check_variants
from goal_kernels.backends.answers import Mined
from goal_kernels.statistics import MiningStatistics
from goal_kernels.weights import DIRECTIONS

SMOOTH = "nca/sigmoid"
"""Weights without a threshold, so that a bound of their slope bounds their error."""


def check_judged(
    tell: Callable[[str], None], names: list[str], case: dict[str, Any], data: str
) -> dict[str, Any]:
    """Every contestant of a case against the float64 judge of the benchmarks."""
    situation = Case(**case)
    inputs = inputs_for(situation, data)
    judge = DeviceJudge(situation, inputs)

    def check(name: str) -> None:
        with context_of(name)():
            make(name, situation, inputs).verify(judge)

    with float32_precision(situation.precision):
        return check_each(names, tell, check)


@dataclass
class Step:
    """A training step of the library on fresh leaves: loss, statistics, both gradients [B, D]."""

    loss: Tensor
    stats: MiningStatistics
    grads: tuple[Tensor, Tensor]

    @property
    def mined(self) -> Mined:
        """The hardest negatives as a backend's answer; no sums."""
        stats, none = self.stats, self.loss.new_empty(0)
        return Mined(
            *(stats.negative_text, stats.hardest_text, stats.negative_image, stats.hardest_image),
            *(none, none, none, none),
        )


def take_step(
    variant: Variant, rows: tuple[Tensor, Tensor], objective: str, kind: Kind, **options: Any
) -> Step:
    """Forward and backward of `goal_loss` on image, text [B, D]."""
    image, text = (x.detach().clone().requires_grad_() for x in rows)
    loss, stats = gk.goal_loss(
        image,
        text,
        objective,
        backend=variant.backend,
        precision=kind.precision,
        return_stats=True,
        **options,
    )
    loss.backward()
    assert image.grad is not None
    assert text.grad is not None
    return Step(loss.detach(), stats, (image.grad, text.grad))


def check_ids(
    tell: Callable[[str], None],
    names: list[str],
    kind: list[str],
    batch: int,
    width: int,
    device: str,
) -> dict[str, Any]:
    """Groups that are no negatives of each other, in both directions and in one."""
    how = Kind(*kind)
    rows = inputs_for(Case("", "", "", batch, width, how.dtype, device=device), HALF_TRAINED)
    generator = torch.Generator().manual_seed(batch)
    ids = torch.randint(0, batch // 2, (batch,), generator=generator).to(device)
    objective = gk.Objective.parse(RELATIVE)

    def check(variant: Variant) -> None:
        for direction in DIRECTIONS:
            tell(str(variant))
            found = take_step(variant, rows, RELATIVE, how, image_ids=ids, direction=direction)
            outcome = (found.stats.positive, found.mined, found.loss, *found.grads)
            cpu, image, text = ids.cpu(), rows.image.cpu(), rows.text.cpu()
            check_against_truth(image, text, objective, outcome, (cpu, cpu), direction)

    return check_variants(names, tell, check)


def _raw_gradients(rows: tuple[Tensor, Tensor], grads: tuple[Tensor, Tensor]) -> list[Tensor]:
    """float64 gradients of the raw rows from those of the normalised ones, by autograd."""
    raw: list[Tensor] = []
    for row, grad in zip(rows, grads, strict=True):
        leaf = row.double().cpu().requires_grad_()
        raw += torch.autograd.grad(F.normalize(leaf, dim=1), leaf, grad)
    return raw


def _raw_bounds(
    rows: tuple[Tensor, Tensor], truth: Truth, objective: gk.Objective, grads: list[Tensor]
) -> list[Tensor]:
    """Bounds of the raw gradients: |s (g - u <u, g>)| is at most s (|g| + |u| <|u|, |g>|).

    Both normalised factors of a similarity may have been stored in the input dtype.
    """
    info = torch.finfo(rows[0].dtype)
    unit = [F.normalize(x.double().cpu(), dim=1) for x in rows]
    fine = similarity_bound(unit[0], unit[1], rows[0].dtype)
    bounds = gradient_bound(unit[0], unit[1], truth, objective, rows[0].dtype)
    raw = []
    for row, u, bound, grad in zip(rows, unit, bounds, grads, strict=True):
        scale = 1.0 / row.double().cpu().norm(dim=1, keepdim=True)
        wider = bound * (1 + info.eps / fine)
        along = (u.abs() * wider).sum(dim=1, keepdim=True)
        raw.append(scale * (wider + u.abs() * along) + info.eps * grad.abs())
    return raw


def check_normalized(
    tell: Callable[[str], None],
    names: list[str],
    kind: list[str],
    batch: int,
    width: int,
    device: str,
) -> dict[str, Any]:
    """`normalize=True` on rows of any length: the gradients of the raw rows, given the indices."""
    how = Kind(*kind)
    goal = gk.Objective.parse(SMOOTH)
    unit = inputs_for(Case("", "", "", batch, width, how.dtype, device=device), HALF_TRAINED)
    generator = torch.Generator().manual_seed(width)
    lengths = 0.25 + 4 * torch.rand(2, batch, 1, generator=generator)
    image, text = (x * length.to(x) for x, length in zip(unit, lengths, strict=True))
    normal = [F.normalize(x.double().cpu(), dim=1) for x in (image, text)]
    allowed = ~torch.eye(batch, dtype=torch.bool)

    def check(variant: Variant) -> None:
        found = take_step(variant, (image, text), SMOOTH, how, normalize=True)
        given = (found.mined.row_index.cpu(), found.mined.column_index.cpu())
        truth = float64_truth(normal[0], normal[1], goal, given=given)
        error = similarity_bound(normal[0], normal[1], image.dtype) + torch.finfo(image.dtype).eps
        check_indices(truth.similarity, allowed, given[0], error, "hardest_text")
        check_indices(truth.similarity.T, allowed, given[1], error, "hardest_image")
        grads = _raw_gradients((image, text), (truth.grad_image, truth.grad_text))
        bounds = _raw_bounds((image, text), truth, goal, grads)
        names = ("grad_image", "grad_text")
        for name, got, wanted, bound in zip(names, found.grads, grads, bounds, strict=True):
            check_gradient(got, wanted, bound, name)

    return check_variants(names, tell, check)
