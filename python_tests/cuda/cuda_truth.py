"""What the CUDA backend has to answer, in float64, and the ways to run it."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from goal_kernels import Objective
from goal_kernels.backends.answers import Forward, Mined
from goal_kernels.backends.base import Pairing, RelativeQuery, SearchQuery, WeightStage
from goal_kernels.backends.gpu import CudaBackend
from goal_kernels.reference import mine_similarity
from goal_kernels.weights import Weighted, weigh

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_VERDICT = CudaBackend().availability()
_ON_GPU = (pytest.mark.gpu, pytest.mark.skipif(not _VERDICT.ok, reason=_VERDICT.reason))
ENGINES = [pytest.param("cpu", id="emulated"), pytest.param("cuda", marks=_ON_GPU)]
"""Where the kernels run: device of the tensors; those on the CPU are emulated and interpreted."""

Ids = tuple[Tensor | None, Tensor | None]
NO_IDS: Ids = (None, None)


def engine(device: str) -> CudaBackend:
    """The backend for tensors on `device`; skips the test where there is none."""
    backend = CudaBackend(emulated=device == "cpu")
    verdict = backend.availability()
    if not verdict.ok:
        pytest.skip(verdict.reason)
    return backend


def no_torch(*_: object) -> Weighted:
    raise AssertionError("the weights were to be computed in a kernel")


def forward_on(
    device: str,
    image: Tensor,
    text: Tensor,
    objective: Objective,
    ids: Ids = NO_IDS,
    direction: str = "both",
    normalize: bool = False,
    precision: str = "high",
) -> Forward:
    """The backend's forward, its results on the CPU, without inverse lists."""
    query = SearchQuery(
        objective.pair_element.relative, objective.epsilon, objective.beta, normalize, precision
    )
    stage = WeightStage(
        str(objective.triplet), str(objective.pair), objective.scalars, direction, no_torch
    )
    pairing = Pairing(None, *(None if i is None else i.to(device) for i in ids))
    result = engine(device).forward(image.to(device), text.to(device), pairing, query, stage)
    return Forward(result.value.cpu(), result.vectors.cpu(), result.hardest[:2].cpu())


class Truth(NamedTuple):
    """exact [N, M]: similarities; mined_from [N, M]: those that mining saw; the rest as `Mined`."""

    exact: Tensor
    mined_from: Tensor
    positive: Tensor
    mined: Mined
    weighted: Weighted


def unit_rows(matrix: Tensor) -> Tensor:
    """F.normalize in float64."""
    return torch.nn.functional.normalize(matrix.double(), dim=1)


def seen_by_mining(image: Tensor, text: Tensor, normalize: bool, precision: str) -> Tensor:
    """Products of what the tensor cores multiply, in float64: [N, M]."""
    rows = [unit_rows(x) if normalize else x.double() for x in (image, text)]
    if image.dtype != torch.float32:
        rows = [x.to(image.dtype).double() for x in rows]
        return rows[0] @ rows[1].T
    high = [x.bfloat16().double() for x in rows]
    if precision == "medium":
        return high[0] @ high[1].T
    low = [(x - h).bfloat16().double() for x, h in zip(rows, high, strict=True)]
    return high[0] @ high[1].T + high[0] @ low[1].T + low[0] @ high[1].T


def truth(
    image: Tensor,
    text: Tensor,
    objective: Objective,
    given: tuple[Tensor, Tensor],
    ids: Ids = NO_IDS,
    direction: str = "both",
    normalize: bool = False,
    precision: str = "high",
) -> Truth:
    """Float64, given the mined indices: maxima are exact, sums those of what mining saw."""
    rows = [unit_rows(x) if normalize else x.double() for x in (image, text)]
    exact = rows[0] @ rows[1].T
    seen = seen_by_mining(image, text, normalize, precision)
    positive = exact.diagonal().clone()
    kind, beta = objective.pair_element.relative, objective.beta
    query = RelativeQuery(kind, positive.min() - objective.epsilon, beta)
    mined = mine_similarity(seen, Pairing(None, *ids), query, given)
    row_value, column_value = (
        matrix.gather(1, index.clamp(min=0)[:, None])[:, 0].where(index >= 0, value)
        for matrix, index, value in (
            (exact, mined.row_index, mined.row_value),
            (exact.T, mined.column_index, mined.column_value),
        )
    )
    mined = mined._replace(row_value=row_value, column_value=column_value)
    return Truth(exact, seen, positive, mined, weigh(objective, positive, mined, direction))


def exact_rows(count: int, width: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Rows of small multiples of 1/4: every product and sum is exact, and ties are many."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(-3, 4, (count, width), generator=generator) / 4).to(dtype)
