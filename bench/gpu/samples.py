"""Large batches: some anchors of either side against float64, where a matrix does not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from comparators import check_indices, check_values, similarity_bound
from torch import Tensor

from bench.cases import Case, Inputs
from bench.gate import PRODUCT_ROUNDOFF
from bench.gpu.inputs import inputs_for
from bench.gpu.variants import Variant
from bench.gpu.verdicts import check_variants
from goal_kernels import ops
from goal_kernels.backends.answers import Found
from goal_kernels.backends.base import Pairing, RelativeQuery, SearchQuery
from goal_kernels.constants import BETA, EPSILON
from goal_kernels.pairs import pair_similarity
from goal_kernels.reference import relative_negative_sums

ANCHORS = 256


@dataclass(frozen=True)
class Side:
    """Anchors of one direction: their similarities [ANCHORS, B] in float64 and what was found."""

    name: str
    similarity: Tensor
    allowed: Tensor
    value: Tensor
    index: Tensor
    total: Tensor
    count: Tensor


def error_of(case: Case, inputs: Inputs) -> float:
    """Bound on the error of a similarity, as in `Judge.error`."""
    longest = [x.double().norm(dim=1).max().item() for x in inputs]
    split = PRODUCT_ROUNDOFF[case.precision] if case.dtype == "float32" else 0.0
    fine = similarity_bound(*inputs, case.torch_dtype)
    return fine + 2 * split * longest[0] * longest[1]


def sides(inputs: Inputs, found: Found) -> tuple[Side, Side]:
    """The same anchors as rows and as columns: spread over the batch, both ends among them."""
    batch = inputs.image.shape[0]
    device = inputs.image.device
    anchor = torch.linspace(0, batch - 1, min(ANCHORS, batch), device=device).long()
    allowed = anchor[:, None] != torch.arange(batch, device=device)
    image, text = inputs.image.double(), inputs.text.double()
    m = found.mined
    rows = (m.row_value, m.row_index, m.row_sum, m.row_count)
    columns = (m.column_value, m.column_index, m.column_sum, m.column_count)
    return (
        Side("rows", image[anchor] @ text.T, allowed, *(x[anchor] for x in rows)),
        Side("columns", text[anchor] @ image.T, allowed, *(x[anchor] for x in columns)),
    )


def check_side(side: Side, threshold: Tensor, error: float) -> None:
    """Indices and values; sums and counts between those just above and just below the threshold."""
    with side.similarity.device:
        check_indices(side.similarity, side.allowed, side.index, error, f"{side.name}: index")
    exact = side.similarity.gather(1, side.index[:, None])[:, 0]
    check_values(side.value, exact.cpu(), error, f"{side.name}: value")
    few, many = (
        relative_negative_sums(
            side.similarity,
            side.allowed,
            exact,
            side.index,
            RelativeQuery("exponential", threshold + shift, BETA),
        )
        for shift in (2 * error, -2 * error)
    )
    counted = (few[1] <= side.count) & (side.count <= many[1])
    assert counted.all(), f"{side.name}: {int((~counted).sum())} counts are off"
    # Each term moves by 2 beta per unit of error, and rounds; exp2 of up to 2 beta log2(e).
    slack = (2 * BETA * error + 64 * torch.finfo(torch.float32).eps) * (many[0] + 1)
    total = side.total.double()
    summed = (few[0] - slack <= total) & (total <= many[0] + slack)
    assert summed.all(), f"{side.name}: {int((~summed).sum())} sums are off"


def check_sampled(
    tell: Callable[[str], None], names: list[str], case: dict[str, Any], data: str
) -> dict[str, Any]:
    """Every variant on a batch of a size that is timed."""
    situation = Case(**case)
    inputs = inputs_for(situation, data)
    error = error_of(situation, inputs)
    positive = pair_similarity(inputs.image.double(), inputs.text.double(), None)
    query = SearchQuery("exponential", EPSILON, BETA, False, situation.precision)

    def check(variant: Variant) -> None:
        found = ops.search(variant.backend, *inputs, Pairing(), query)
        check_values(found.positive, positive.cpu(), error, "positive")
        for side in sides(inputs, found):
            check_side(side, positive.min() - EPSILON, error)

    return check_variants(names, tell, check)
