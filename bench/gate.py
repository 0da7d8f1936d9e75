"""Correctness before speed: a contestant is timed only after its own results passed float64.

The comparison is that of the test suite (`comparators.py`): indices first, then values, then
gradients given those indices. Two allowances come on top, both formulas: similarities rounded more
coarsely than float32, when the case or the contestant says so; and whatever lies so close to the
hinge or to a threshold of the relative sums that rounding decides whether it counts, which among
millions of pairs some always does.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from comparators import (
    SAFETY,
    Truth,
    accumulate_epsilon,
    check_gradient,
    check_indices,
    check_values,
    gradient_bound,
    similarity_bound,
)
from torch import Tensor

from bench.baselines import Hardest, Outcome
from bench.cases import Case, Inputs
from goal_kernels import Objective
from goal_kernels.backends.answers import GradientTerms, Mined
from goal_kernels.backends.base import Pairing, RelativeQuery, accumulate_dtype
from goal_kernels.reference import apply_terms, mine_similarity, negative_mask
from goal_kernels.weights import weigh

PRODUCT_ROUNDOFF = {"highest": 0.0, "high": 2.0**-11, "medium": 2.0**-8}
"""Unit roundoff of the factors of a float32 product: none, TF32 (or better), bfloat16."""


def _content(vector: Tensor) -> bytes:
    """The bytes of a vector on the CPU."""
    return vector.numpy().tobytes()


def _contents(vectors: tuple[Tensor, ...]) -> bytes:
    return b"".join(map(_content, vectors))


class Judge:
    """The float64 truth of one pair of embeddings, computed once for all contestants and modes.

    Every `check_*` raises AssertionError naming what is wrong, by how much, and the bound.
    `stored` says that the contestant wrote its similarities in the input dtype.
    """

    def __init__(self, case: Case, inputs: Inputs) -> None:
        self.dtype = case.torch_dtype
        self.image, self.text = (x.detach().cpu().double() for x in inputs)
        self.similarity = self.image @ self.text.T
        self.positive = self.similarity.diagonal().clone()
        self._cosine = (self.image.norm(dim=1).max() * self.text.norm(dim=1).max()).item()
        self._fine = similarity_bound(self.image, self.text, self.dtype)
        self._split = PRODUCT_ROUNDOFF[case.precision] if case.dtype == "float32" else 0.0
        # Contestants agree more often than not, and the same answer needs no second look.
        self._passed_product: Tensor | None = None
        self._passed_hardest: set[tuple[bytes, ...]] = set()
        self._mined_at: dict[tuple[Objective, bytes, float], Mined] = {}
        self._bounds_at: dict[tuple[Objective, bytes, float], tuple[Tensor, Tensor]] = {}
        self._truth_at: dict[tuple[Objective, bytes], Truth] = {}

    def error(self, stored: bool) -> float:
        """Bound on the error of a similarity: accumulation, factors, storage."""
        # Both factors rounded: sum |x| |y| 2u <= 2u |x| |y|.
        coarse = stored and accumulate_dtype(self.dtype) != self.dtype
        storage = torch.finfo(self.dtype).eps / 2 if coarse else 0.0
        return self._fine + (2 * self._split + storage) * self._cosine

    def check_product(self, found: Tensor) -> None:
        """found: [B, B], X Y^T in the input dtype."""
        if self._passed_product is None or not torch.equal(found, self._passed_product):
            check_values(found, self.similarity, self.error(stored=True), "similarity")
            self._passed_product = found.clone()

    def check_hardest(self, found: Hardest, stored: bool) -> None:
        """Indices, and the similarities at the contestant's own indices."""
        found = Hardest(*(x.cpu() for x in found))
        answer = (*map(_content, found), str(stored).encode())
        if answer in self._passed_hardest:
            return
        error = self.error(stored)
        hardest_text, hardest_image = found.hardest_text, found.hardest_image
        batch = len(self.positive)
        allowed = negative_mask(batch, batch, Pairing(), torch.device("cpu"))
        check_indices(self.similarity, allowed, hardest_text, error, "hardest_text")
        check_indices(self.similarity.T, allowed, hardest_image, error, "hardest_image")
        row = torch.arange(batch)
        for name, value, expected in (
            ("positive", found.positive, self.positive),
            ("negative_text", found.negative_text, self.similarity[row, hardest_text]),
            ("negative_image", found.negative_image, self.similarity[hardest_image, row]),
        ):
            check_values(value, expected, error, name)
        self._passed_hardest.add(answer)

    def check_objective(self, objective: Objective, outcome: Outcome, stored: bool) -> None:
        """Hardest negatives, value, and the gradients given the contestant's own indices."""
        self.check_hardest(outcome.hardest, stored)
        error = self.error(stored)
        given = (outcome.hardest.hardest_text.cpu(), outcome.hardest.hardest_image.cpu())
        truth = self._truth(objective, given)
        batch = len(self.positive)
        summed = self.similarity.abs().sum(dim=1).max().item() + SAFETY
        bound = SAFETY * batch * error + accumulate_epsilon(self.dtype) * batch * summed
        value = truth.weighted.value.reshape(1)
        check_values(outcome.value.detach().reshape(1), value, bound, "value")
        if outcome.gradients is None:
            return
        bounds = self._gradient_bounds(objective, truth, error)
        check_gradient(outcome.gradients[0], truth.grad_image, bounds[0], "grad_image")
        check_gradient(outcome.gradients[1], truth.grad_text, bounds[1], "grad_text")

    def _mined(self, objective: Objective, given: tuple[Tensor, Tensor], shift: float) -> Mined:
        """Mined quantities at the given indices, the threshold lowered by `shift`."""
        key = (objective, _contents(given), shift)
        if key not in self._mined_at:
            threshold = self.positive.min() - objective.epsilon - shift
            query = RelativeQuery(objective.pair_element.relative, threshold, objective.beta)
            self._mined_at[key] = mine_similarity(self.similarity, Pairing(), query, given)
        return self._mined_at[key]

    def _truth(self, objective: Objective, given: tuple[Tensor, Tensor]) -> Truth:
        """The float64 result given these indices."""
        key = (objective, _contents(given))
        if key not in self._truth_at:
            mined = self._mined(objective, given, 0.0)
            weighted = weigh(objective, self.positive, mined)
            grads = self._apply(given, weighted[1:], self.image, self.text)
            self._truth_at[key] = Truth(self.similarity, self.positive, mined, weighted, *grads)
        return self._truth_at[key]

    def _apply(
        self,
        given: tuple[Tensor, Tensor],
        weights: tuple[Tensor, ...],
        image: Tensor,
        text: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Both gradients [B, D] for weights (positive, row, column) at these indices."""
        one = torch.ones((), dtype=torch.float64)
        grads = apply_terms(one, image, text, GradientTerms(*given, None, *weights), (True, True))
        assert grads[0] is not None
        assert grads[1] is not None
        return grads[0], grads[1]

    def _gradient_bounds(
        self, objective: Objective, truth: Truth, error: float
    ) -> tuple[Tensor, Tensor]:
        """Element-wise bounds of both gradients, [B, D] each."""
        given = (truth.mined.row_index, truth.mined.column_index)
        key = (objective, _contents(given), error)
        if key not in self._bounds_at:
            self._bounds_at[key] = self._make_gradient_bounds(objective, truth, error)
        return self._bounds_at[key]

    def _make_gradient_bounds(
        self, objective: Objective, truth: Truth, error: float
    ) -> tuple[Tensor, Tensor]:
        bounds = gradient_bound(self.image, self.text, truth, objective, self.dtype)
        info = torch.finfo(self.dtype)
        wider = []
        for bound, grad in zip(bounds, (truth.grad_image, truth.grad_text), strict=True):
            rounding = info.eps * grad.abs() + info.tiny
            # The comparators' bound is linear in the error of a similarity, apart from rounding.
            wider.append((bound - rounding) * (error / self._fine) + rounding)
        given = (truth.mined.row_index, truth.mined.column_index)
        jumps = self._jumps(objective, given, error)
        spread = self._apply(given, jumps, self.image.abs(), self.text.abs())
        return wider[0] + spread[0], wider[1] + spread[1]

    def _jumps(
        self, objective: Objective, given: tuple[Tensor, Tensor], error: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """How far the weights move when all that is at a threshold counts, or nothing: 3 x [B].

        A mean moves steadily towards the value at its threshold with each pair there, so these two
        are the extremes. The positive weight comes negated: its term is subtracted.
        """
        shifted = []
        for shift in (-2 * error, 2 * error):
            moved = replace(
                objective,
                epsilon=max(0.0, objective.epsilon + shift),
                margin=max(0.0, objective.margin + shift),
            )
            mined = self._mined(objective, given, shift)
            shifted.append([weigh(moved, self.positive, mined, d) for d in ("i2t", "t2i")])
        total = [torch.zeros_like(self.positive) for _ in range(3)]
        for few, many in zip(*shifted, strict=True):
            for part, a, b in zip(total, few[1:], many[1:], strict=True):
                part += (a - b).abs()
        return -total[0], total[1], total[2]
