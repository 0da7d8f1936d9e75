"""Correctness before speed: a method is timed only after its own results passed float64.

The comparison is that of the test suite (`comparators.py`): indices first, then values, then
gradients given those indices. Two allowances come on top, both formulas: similarities rounded more
coarsely than float32, when the case or the method says so; and whatever lies so close to the hinge
or to a threshold of the relative sums that rounding decides whether it counts, which among millions
of pairs some always does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

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

from bench.cases import Case, Inputs
from bench.eager import Outcome
from goal_kernels import MinedPairs, Objective
from goal_kernels.backends.answers import GradientTerms, Mined
from goal_kernels.backends.base import RelativeQuery, accumulate_dtype
from goal_kernels.pairs import value_at
from goal_kernels.reference import apply_terms, relative_negative_sums
from goal_kernels.weights import weigh

PRODUCT_ROUNDOFF = {"highest": 0.0, "high": 2.0**-11, "medium": 2.0**-8}
"""Unit roundoff of the factors of a float32 product: none, TF32 (or better), bfloat16."""

WHOLE_BATCH = 16384
"""Largest B whose float64 matrix is kept (2 GiB); above, blocks of it are made when needed."""

BLOCK_ELEMENTS = 1 << 26

LARGEST_COMPLETE = 1 << 18
"""Largest B at which every anchor is compared; above, every so many, and not the relative sums."""

SAMPLED = 4096


def _contents(vectors: tuple[Tensor, ...]) -> bytes:
    return b"".join(vector.cpu().numpy().tobytes() for vector in vectors)


class Judge:
    """The float64 truth of one pair of embeddings, computed once for all methods and modes.

    It lives on the device of the embeddings. Every `check_*` raises AssertionError naming what is
    wrong, by how much, and the bound. `stored` says that the method wrote its similarities in the
    input dtype.
    """

    def __init__(self, case: Case, inputs: Inputs) -> None:
        self.dtype = case.torch_dtype
        self.device = inputs.image.device
        self.ids = inputs.ids
        rows = [x.detach().double() for x in inputs[:2]]
        lengths = [x.norm(dim=1, keepdim=True) for x in rows]
        self.lengths = lengths if case.normalize else None
        if case.normalize:
            rows = [x / length for x, length in zip(rows, lengths, strict=True)]
        self.image, self.text = rows
        batch = len(self.image)
        self.step = 1 if batch <= LARGEST_COMPLETE else batch // SAMPLED
        self._whole = self.image @ self.text.T if batch <= WHOLE_BATCH else None
        self.positive = (self.image * self.text).sum(dim=1)
        self._longest = (lengths[0].max() * lengths[1].max()).item() if case.normalize else 1.0
        self._cosine = (self.image.norm(dim=1).max() * self.text.norm(dim=1).max()).item()
        self._fine = similarity_bound(self.image, self.text, self.dtype)
        self._split = PRODUCT_ROUNDOFF[case.precision] if case.dtype == "float32" else 0.0
        # Methods agree more often than not, and the same answer needs no second look.
        self._passed_product: Tensor | None = None
        self._passed_hardest: set[bytes] = set()
        self._known: dict[tuple[object, ...], Any] = {}

    def error(self, stored: bool) -> float:
        """Bound on the error of a similarity: accumulation, factors, storage."""
        # Both factors rounded: sum |x| |y| 2u <= 2u |x| |y|.
        coarse = stored and accumulate_dtype(self.dtype) != self.dtype
        storage = torch.finfo(self.dtype).eps / 2 if coarse else 0.0
        # Normalised rows may have been stored in the input dtype, both factors.
        normal = torch.finfo(self.dtype).eps if self.lengths else 0.0
        return self._fine + (2 * self._split + storage + normal) * self._cosine

    def _blocks(self, side: int, step: int = 1) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Every `step`-th anchor of one side (0: images, 1: texts), some at a time.

        Yields: the anchors, their similarities [A, B], which of the others are negatives [A, B].
        """
        batch = len(self.image)
        number = torch.arange(batch, device=self.device)
        anchors, others = (self.image, self.text) if side == 0 else (self.text, self.image)
        stride = max(1, BLOCK_ELEMENTS // batch) * step
        for first in range(0, batch, stride):
            rows = slice(first, min(batch, first + stride), step)
            if self._whole is None:
                similarity = anchors[rows] @ others.T
            else:
                similarity = (self._whole if side == 0 else self._whole.T)[rows]
            allowed = number[rows, None] != number
            if self.ids is not None:
                allowed &= self.ids[rows, None] != self.ids
            yield rows, similarity, allowed

    @cached_property
    def _magnitudes(self) -> tuple[float, float]:
        """Largest |S|, and largest sum of |S| over a row."""
        if self._whole is None:
            return self._cosine, self._cosine * len(self.image)
        magnitude = self._whole.abs()
        return magnitude.max().item(), magnitude.sum(dim=1).max().item()

    def check_product(self, found: Tensor) -> None:
        """found: [B, B], X Y^T in the input dtype."""
        if self._passed_product is None or not torch.equal(found, self._passed_product):
            bound = self.error(stored=True) * self._longest
            for rows, similarity, _ in self._blocks(0):
                if self.lengths:  # the product is one of the rows as they were given
                    similarity = similarity * self.lengths[0][rows] * self.lengths[1].T
                worst = (found[rows] - similarity).abs().max().item()  # NaN is within no bound
                assert worst <= bound, f"similarity: error {worst:.3g} above the bound {bound:.3g}"
            self._passed_product = found.clone() if self._whole is not None else None

    def check_hardest(self, found: MinedPairs, stored: bool) -> None:
        """Indices, and the similarities at the method's own indices."""
        answer = _contents(found) + bytes([stored])
        if answer in self._passed_hardest:
            return
        error = self.error(stored)
        check_values(found.positive, self.positive.cpu(), error, "positive")
        sides = (
            (0, found.hardest_text, found.negative_text, "text"),
            (1, found.hardest_image, found.negative_image, "image"),
        )
        for side, index, value, name in sides:
            for rows, similarity, allowed in self._blocks(side, self.step):
                with self.device:
                    check_indices(similarity, allowed, index[rows], error, f"hardest_{name}")
                exact = value_at(similarity, index[rows]).cpu()
                check_values(value[rows], exact, error, f"negative_{name}")
        self._passed_hardest.add(answer)

    def check_objective(self, objective: Objective, outcome: Outcome, stored: bool) -> None:
        """Hardest negatives, value, and the gradients given the method's own indices."""
        self.check_hardest(outcome.hardest, stored)
        error = self.error(stored)
        given = (outcome.hardest.hardest_text, outcome.hardest.hardest_image)
        batch = len(self.positive)
        if self.step > 1 and objective.pair_element.relative != "none":
            raise NotImplementedError(
                f"relative sums are not checked above B = {LARGEST_COMPLETE}, so not timed"
            )
        truth = self._once(self._truth, given, objective)
        summed = self._magnitudes[1] + SAFETY
        bound = SAFETY * batch * error + accumulate_epsilon(self.dtype) * batch * summed
        check_values(
            outcome.value.detach().reshape(1), truth.weighted.value.reshape(1).cpu(), bound, "value"
        )
        if outcome.gradients is None:
            return
        bounds = self._once(self._gradient_bounds, given, objective, error)
        expected = (truth.grad_image, truth.grad_text)
        for side, name in enumerate(("grad_image", "grad_text")):
            parts = (outcome.gradients[side], expected[side], bounds[side])
            found, wanted, limit = (x[:: self.step].cpu() for x in parts)
            check_gradient(found, wanted, limit, name)

    def _once(self, make: Callable[..., Any], given: tuple[Tensor, Tensor], *rest: Any) -> Any:
        """`make(given, *rest)`, kept for the next method with the same indices."""
        key = (make.__name__, _contents(given), *rest)
        if key not in self._known:
            self._known[key] = make(given, *rest)
        return self._known[key]

    def _mined(self, given: tuple[Tensor, Tensor], objective: Objective, shift: float) -> Mined:
        """Mined quantities at the given indices, the threshold lowered by `shift`."""
        threshold = self.positive.min() - objective.epsilon - shift
        query = RelativeQuery(objective.pair_element.relative, threshold, objective.beta)
        row, column = (self._mined_side(side, given[side], query) for side in (0, 1))
        return Mined(*row[:2], *column[:2], *row[2:], *column[2:])

    def _mined_side(self, side: int, index: Tensor, query: RelativeQuery) -> tuple[Tensor, ...]:
        """Value, index, sum and count of every anchor of a side; no sums where none are wanted."""
        anchors, others = (self.image, self.text) if side == 0 else (self.text, self.image)
        value = (anchors * others[index.clamp(min=0)]).sum(dim=1)
        value = value.masked_fill(index < 0, float("-inf"))
        if query.kind == "none":
            return value, index, value.new_empty(0), index.new_empty(0)
        parts = [
            relative_negative_sums(similarity, allowed, value[rows], index[rows], query)
            for rows, similarity, allowed in self._blocks(side)
        ]
        sums, counts = (torch.cat(part) for part in zip(*parts, strict=True))
        return value, index, sums, counts

    def _truth(self, given: tuple[Tensor, Tensor], objective: Objective) -> Truth:
        """The float64 result given these indices."""
        mined = self._once(self._mined, given, objective, 0.0)
        weighted = weigh(objective, self.positive, mined)
        grads = self._raw(self._apply(given, weighted[1:], self.image, self.text))
        largest = self.positive.new_tensor(self._magnitudes[0])
        return Truth(largest, self.positive, mined, weighted, *grads)

    def _raw(self, grads: tuple[Tensor, Tensor], bound: bool = False) -> tuple[Tensor, Tensor]:
        """Gradients of the raw rows from those of the normalised ones u = x / |x|, or a bound.

        (g - u <u, g>) / |x|, of magnitude at most (|g| + |u| <|u|, |g|>) / |x|.
        """
        if self.lengths is None:
            return grads
        raw = []
        for u, grad, length in zip((self.image, self.text), grads, self.lengths, strict=True):
            u = u.abs() if bound else u
            along = u * (u * grad).sum(dim=1, keepdim=True)
            raw.append((grad + along if bound else grad - along) / length)
        return raw[0], raw[1]

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
        self, given: tuple[Tensor, Tensor], objective: Objective, error: float
    ) -> tuple[Tensor, Tensor]:
        """Element-wise bounds of both gradients, [B, D] each."""
        truth = self._once(self._truth, given, objective)
        info = torch.finfo(self.dtype)
        nothing = torch.zeros_like(self.image)
        still = truth._replace(grad_image=nothing, grad_text=nothing)
        # The comparators' bound is linear in the error of a similarity, apart from rounding.
        bounds = gradient_bound(self.image, self.text, still, objective, self.dtype)
        jumps = self._jumps(given, objective, error)
        spread = self._apply(given, jumps, self.image.abs(), self.text.abs())
        wider = [
            (bound - info.tiny) * (error / self._fine) + more
            for bound, more in zip(bounds, spread, strict=True)
        ]
        image, text = self._raw((wider[0], wider[1]), bound=True)
        return (
            image + info.eps * truth.grad_image.abs() + info.tiny,
            text + info.eps * truth.grad_text.abs() + info.tiny,
        )

    def _jumps(
        self, given: tuple[Tensor, Tensor], objective: Objective, error: float
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
            mined = self._once(self._mined, given, objective, shift)
            shifted.append([weigh(moved, self.positive, mined, d) for d in ("i2t", "t2i")])
        total = [torch.zeros_like(self.positive) for _ in range(3)]
        for few, many in zip(*shifted, strict=True):
            for part, a, b in zip(total, few[1:], many[1:], strict=True):
                part += (a - b).abs()
        return -total[0], total[1], total[2]
