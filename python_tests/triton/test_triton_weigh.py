"""The weight stage on Triton against the formulas in float64, and its inverse lists."""

from __future__ import annotations

import math

import pytest
import torch
from cases import OBJECTIVES
from sum_units import final
from torch import Tensor

from goal_kernels import Objective
from goal_kernels.backends.answers import VECTORS, Forward, Mined
from goal_kernels.backends.base import WeightStage
from goal_kernels.backends.gpu import configs
from goal_kernels.backends.gpu.configs import FIXED, LIST_ROWS, NO_SUMS
from goal_kernels.backends.gpu.kernels import weigh as launcher
from goal_kernels.backends.gpu.records import MiningQuery, MiningResult, Operands, Prepared, Side
from goal_kernels.backends.gpu.runtime import on_device
from goal_kernels.weights import DIRECTIONS, weigh

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

EPS = torch.finfo(torch.float32).eps
RELATIVE = [o for o in OBJECTIVES if o.pair_element.relative != "none"]
TROUBLES = ("none", "absent", "all_absent", "nan", "ties", "collapsed")


def found_batch(batch: int, trouble: str, kind: str, seed: int = 0) -> tuple[Tensor, Mined]:
    """Positives and mined pairs of a batch that nobody mined, float32. trouble: what is wrong."""
    generator = torch.Generator().manual_seed(seed + batch)

    def similarities() -> Tensor:
        values = torch.rand(batch, generator=generator) * 2 - 1
        return (values * 8).round() / 8 if trouble == "ties" else values

    def indices() -> Tensor:
        return torch.randint(0, batch, (batch,), generator=generator)

    positive, values = similarities(), [similarities(), similarities()]
    mined = [indices(), indices()]
    totals = [torch.rand(batch, generator=generator) * 3 for _ in range(2)]
    counts = [torch.randint(0, 4, (batch,), generator=generator) for _ in range(2)]
    if trouble == "collapsed":
        positive.fill_(0.25)
    if trouble == "nan":
        positive[batch // 2] = math.nan
        values[0][0], values[1][batch - 1] = math.nan, math.nan
    for side in range(2):
        absent = torch.zeros(batch, dtype=torch.bool)
        if trouble in ("absent", "nan"):
            absent = torch.rand(batch, generator=generator) < 0.3
        if trouble == "all_absent":
            absent[:] = True
        values[side][absent], mined[side][absent] = -math.inf, -1
        totals[side][absent], counts[side][absent] = 0.0, 0
        totals[side][counts[side] == 0] = 0.0
    if kind == "none":
        totals, counts = [t[:0] for t in totals], [c[:0] for c in counts]
    sums = (totals[0], counts[0], totals[1], counts[1])
    return positive, Mined(values[0], mined[0], values[1], mined[1], *sums)


def objective_for(objective: Objective, trouble: str) -> Objective:
    """With ties the limit n + epsilon must be exact to meet a positive."""
    if trouble != "ties":
        return objective
    return Objective(objective.triplet, objective.pair, epsilon=0.125)


def weigh_on(
    device: torch.device,
    objective: Objective,
    found: tuple[Tensor, Mined],
    direction: str = "both",
) -> Forward:
    def no_torch(*arguments: object) -> None:
        raise AssertionError("the weights were to be computed in a kernel")

    kind = objective.pair_element.relative
    names = objective.triplet_element.name, objective.pair_element.name
    stage = WeightStage(*names, objective.scalars, direction, no_torch)
    positive, mined = found
    batch = len(positive)
    result = Forward(
        torch.empty((), device=device),
        torch.empty((VECTORS, batch), device=device),
        torch.empty((2 + LIST_ROWS, batch), dtype=torch.int64, device=device),
    )
    result.vectors[0] = positive
    query = MiningQuery.build(kind, objective.epsilon, objective.beta, "highest")
    nothing = torch.empty(batch, 1, device=device)
    with on_device(result.vectors):
        launcher.weigh(
            prepared_rows(nothing), mining_result(mined, kind, device), query, stage, result
        )
    return result


def prepared_rows(rows: Tensor) -> Prepared:
    """A batch whose greatest length is infinite: sums are then taken as they are."""
    batch_stats = torch.tensor([[0.0], [math.inf], [1.0]], device=rows.device)
    ticket = torch.zeros(1, dtype=torch.int32, device=rows.device)
    operands, side = Operands(rows, rows, 1), Side(rows)
    return Prepared(rows, rows, operands, None, batch_stats, side, side, ticket, None)


def mining_result(mined: Mined, kind: str, device: torch.device) -> MiningResult:
    """What a mining kernel would have left."""
    sums = len(mined.row_sum) > 0
    rows = (mined.row_value, mined.row_index, mined.row_sum, mined.row_count)
    columns = (mined.column_value, mined.column_index, mined.column_sum, mined.column_count)
    sides = []
    for value, index, total, count in (rows, columns):
        keys = packed_keys(value, index).to(device)
        # Tops are not read where sums are final.
        tops = torch.zeros(len(value), dtype=torch.int64, device=device)
        given = (final(total, kind).to(device), count.int().to(device), tops) if sums else ()
        sides.append(Side(keys, *given))
    return MiningResult(*sides, FIXED if sums else NO_SUMS)


def packed_keys(value: Tensor, index: Tensor) -> Tensor:
    """`keys.pack` of `states.encode` in torch: int64 [B]."""
    bits = value.view(torch.int32)
    ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).masked_fill(value.isnan(), 2**31 - 1)
    packed = (ordered.long() << 32) | (2**31 - 1 - index)
    return packed.masked_fill(index < 0, -(2**63))


def check_close(found: Tensor, expected: Tensor, slack: float, what: str) -> None:
    """Within 64 ulp, as exp(z) has |z| < 32 here, plus `slack` ulp of 1; NaN in the same places."""
    found = found.cpu().double()
    assert torch.equal(found.isnan(), expected.isnan()), what
    error = (found - expected).nan_to_num().abs()
    bound = EPS * (64 * expected.nan_to_num().abs() + slack)
    assert (error <= bound).all(), f"{what}: {(error / bound).max():.3g} times the bound"


def check(
    device: torch.device, objective: Objective, batch: int, trouble: str, direction: str = "both"
) -> None:
    objective = objective_for(objective, trouble)
    positive, mined = found_batch(batch, trouble, objective.pair_element.relative)
    result = weigh_on(device, objective, (positive, mined), direction)
    wide = Mined(*(t.double() if t.is_floating_point() else t for t in mined))
    truth = weigh(objective, positive.double(), wide, direction)
    vectors = torch.stack([positive, mined.row_value, mined.column_value])
    torch.testing.assert_close(result.vectors[:3].cpu(), vectors, rtol=0, atol=0, equal_nan=True)
    # Linear relative similarities are sums of either sign: batch roundings of terms up to 2, in a
    # mean; the weight multiplies them by 1 - p or n, at most 2, of two directions.
    for row, name in enumerate(("positive", "row", "column"), start=3):
        check_close(result.vectors[row], truth[row - 2], 8.0 + 8 * math.log2(batch), name)
    check_close(result.value, truth.value, 8.0 * batch, "value")
    expected = torch.stack([mined.row_index, mined.column_index])
    assert torch.equal(result.hardest[:2].cpu(), expected)
    check_lists(result.hardest.cpu())


def check_lists(hardest: Tensor) -> None:
    """Rows 2 to 5 of `Forward.hardest` against lists made one entry after the other."""
    batch = hardest.shape[1]
    for order, span, mined in ((2, 4, 1), (3, 5, 0)):
        assert sorted(hardest[order].tolist()) == list(range(batch))
        lists: list[list[int]] = [[] for _ in range(batch)]
        for entry, item in enumerate(hardest[mined].tolist()):
            if item >= 0:
                lists[item].append(entry)
        place = 0
        for item, bounds in enumerate(hardest[span].tolist()):
            first, last = bounds >> 32, bounds & 0xFFFFFFFF
            assert first == place, "lists follow one another, and absent entries come last"
            assert hardest[order, first:last].tolist() == lists[item]
            place = last


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
def test_every_objective(backend, device, objective, direction) -> None:
    check(device, objective, 15, "absent", direction)


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sorted"])
@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("batch", [2, 3, 65])
def test_relative_similarity(backend, device, batch, trouble, dense, monkeypatch) -> None:
    """Ragged blocks, everything that can be wrong, both ways to compute it."""
    if not dense:
        monkeypatch.setattr(configs, "DENSE_LIMIT", 1)
    for objective in RELATIVE[:2]:
        check(device, objective, batch, trouble)


@pytest.mark.parametrize("objective", RELATIVE[-2:], ids=lambda o: o.name)
@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sorted"])
def test_several_chunks_and_programs(backend, device, dense, objective, monkeypatch) -> None:
    if not dense:
        monkeypatch.setattr(configs, "DENSE_LIMIT", 1)
    check(device, objective, 130, "absent")


@pytest.mark.parametrize("trouble", ["nan", "ties"])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
def test_weights_of_awkward_numbers(backend, device, objective, trouble) -> None:
    check(device, objective, 7, trouble)


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sorted"])
@pytest.mark.parametrize("pair", ["linear_ms", "sigmoid_ms"])
def test_positives_count_up_to_the_limit_without_their_own(
    backend, device, pair, dense, monkeypatch
) -> None:
    """R+ by hand: positives 0, 1/4, 1/4, 1/2, limits exactly on one of them."""
    if not dense:
        monkeypatch.setattr(configs, "DENSE_LIMIT", 1)
    objective = Objective("constant", pair, alpha=1.0, lam=0.0, epsilon=0.125)
    positive = torch.tensor([0.0, 0.25, 0.25, 0.5])
    negative = torch.tensor([-0.25, 0.125, 0.0, 0.375])  # limits -1/8, 1/4, 1/8, 1/2
    index, none = torch.tensor([1, 2, 3, 0]), torch.zeros(4)
    mined = Mined(negative, index, negative, index, none, index * 0, none, index * 0)
    result = weigh_on(device, objective, (positive, mined), "i2t")
    # Who counts: nobody; 0 (and for sigmoid the tie 1/4); 0; all three others.
    if pair == "linear_ms":
        relative = torch.tensor([0.0, 0.25, 0.25, (0.5 + 0.25 + 0.25) / 3])
        expected = (1 - relative) * (1 - positive)
    else:
        e = math.exp
        relative = torch.tensor([0.0, (e(0.25) + 1) / 2, e(0.25), (e(0.5) + e(0.25) + e(0.25)) / 3])
        expected = 1 / (positive.exp() + relative)
    torch.testing.assert_close(result.vectors[3].cpu(), expected, rtol=16 * EPS, atol=0)


@pytest.mark.parametrize("value", [1e-300, 1e300])
def test_any_scalar_a_float64_can_hold(backend, device, value) -> None:
    """Ties stay ties: a product of a huge number with 0 is 0."""
    objective = Objective("nca", "sigmoid", tau=value, alpha=value, beta=value, lam=0.25)
    positive, mined = found_batch(5, "collapsed", "none")
    mined = mined._replace(row_value=positive.clone(), column_value=positive.clone())
    result = weigh_on(device, objective, (positive, mined))
    assert torch.equal(result.vectors[3].cpu(), torch.full((5,), 0.5))
    assert torch.equal(result.vectors[4:6].cpu(), torch.full((2, 5), 0.25))


def test_reruns_are_bit_equal_and_complete(backend, device, nan_filled_memory) -> None:
    positive, mined = found_batch(40, "none", "exponential")
    found = (positive, mined)
    first = weigh_on(device, Objective("circle", "sigmoid_ms"), found)
    again = weigh_on(device, Objective("circle", "sigmoid_ms"), found)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)
        assert one.isfinite().all()
