"""The miner and the loss for pytorch-metric-learning against its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compat_cases import assert_same, outcome, unit_rows
from real_packages import real_package
from torch import Tensor

from goal_kernels import goal_loss
from goal_kernels.compat.metric_learning import GOALLoss, GOALMiner

LABELS = torch.tensor([0, 3, 1, 0, 2, 1, 0, 1, 9, 2])
"""Of ten rows; 3 and 9 have a single one."""

REFERENCE_LABELS = torch.tensor([1, 0, 2, 2, 7, 0, 1])


def package(part: str) -> Any:
    real_package("pytorch_metric_learning")
    return pytest.importorskip(f"pytorch_metric_learning.{part}")


def distance(normalize: bool) -> Any:
    distances = package("distances")
    if normalize:
        return distances.CosineSimilarity()
    return distances.DotProductSimilarity(normalize_embeddings=False)


def batch(referred: bool) -> tuple[Any, ...]:
    """embeddings, labels, ref_emb, ref_labels; rows of other lengths than 1."""
    length = 0.5 + torch.rand(10, 1, dtype=torch.float64)
    rows = (length * unit_rows(10, 5).detach()).requires_grad_()
    if not referred:
        return rows, LABELS, None, None
    return rows, LABELS, unit_rows(7, 5, seed=1), REFERENCE_LABELS


@pytest.mark.parametrize("normalize", [True, False], ids=["cosine", "dot"])
@pytest.mark.parametrize("referred", [False, True], ids=["alone", "references"])
def test_miner_finds_what_batch_hard_miner_finds(referred: bool, normalize: bool) -> None:
    given = batch(referred)
    wanted = package("miners").BatchHardMiner(distance=distance(normalize))(*given)
    got = GOALMiner(normalize=normalize)(*given)
    assert len(got[0]) > 3
    for one, other in zip(got, wanted, strict=True):
        assert torch.equal(one, other)


def test_miner_works_in_small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    given = batch(referred=True)
    wanted = GOALMiner()(*given)
    monkeypatch.setattr("goal_kernels.compat.metric_learning.RESCORE_ELEMENTS", 1)
    for one, other in zip(GOALMiner()(*given), wanted, strict=True):
        assert torch.equal(one, other)


def test_equal_positives_and_negatives_go_by_the_lowest_row() -> None:
    rows = torch.eye(2, dtype=torch.float64)[[0, 0, 0, 1, 1]]
    anchors, positives, negatives = GOALMiner()(rows, torch.tensor([4, 4, 4, 5, 5]))
    assert anchors.tolist() == [0, 1, 2, 3, 4]
    assert positives.tolist() == [1, 0, 0, 4, 3]
    assert negatives.tolist() == [3, 3, 3, 0, 0]


@pytest.mark.parametrize(
    "reducer", ["MeanReducer", "SumReducer", "AvgNonZeroReducer", "ThresholdReducer"]
)
@pytest.mark.parametrize("mined", [True, False], ids=["miner", "own"])
@pytest.mark.parametrize("referred", [False, True], ids=["alone", "references"])
def test_hinge_is_triplet_margin_loss(referred: bool, mined: bool, reducer: str) -> None:
    """With the hardest triplets, and every reducer of theirs: value and gradients."""
    rows, labels, others, other_labels = batch(referred)
    made = package("reducers")
    reduce = getattr(made, reducer)(**({"low": 0.1} if reducer == "ThresholdReducer" else {}))
    real = package("losses").TripletMarginLoss(0.6, distance=distance(True), reducer=reduce)
    goal = GOALLoss("hinge/constant", margin=0.6, reducer=reduce)
    triplets = package("miners").BatchHardMiner(distance=distance(True))(
        rows, labels, others, other_labels
    )
    inputs = (rows, others) if referred else (rows,)

    def run(loss: Any, indices: Any) -> tuple[Tensor, ...]:
        return outcome(
            lambda x, *y: loss(x, labels, indices, *y, *[other_labels][: len(y)]), *inputs
        )

    wanted = run(real, triplets)
    assert wanted[0] > 0
    assert_same(run(goal, triplets if mined else None), wanted)


def test_pairs_are_joined_as_theirs_are() -> None:
    rows, labels, *_ = batch(referred=False)
    pairs = package("miners").BatchEasyHardMiner("hard", "all")(rows, labels)
    assert len(pairs) == 4
    real = package("losses").TripletMarginLoss(
        0.6, distance=distance(True), reducer=package("reducers").MeanReducer()
    )
    goal = GOALLoss("hinge/constant", margin=0.6)
    assert_same(
        outcome(lambda x: goal(x, labels, pairs), rows),
        outcome(lambda x: real(x, labels, pairs), rows),
    )


def test_nca_has_the_gradient_of_the_smooth_triplet_loss() -> None:
    rows, labels, *_ = batch(referred=False)
    real = package("losses").TripletMarginLoss(
        0.0, smooth_loss=True, distance=distance(True), reducer=package("reducers").MeanReducer()
    )
    triplets = GOALMiner()(rows, labels)
    _, wanted = outcome(lambda x: real(x, labels, triplets), rows)
    _, got = outcome(lambda x: GOALLoss("nca/constant", tau=1.0)(x, labels), rows)
    assert_same((got,), (wanted,))


@pytest.mark.parametrize("objective", ["nca/sigmoid_ms", "circle/linear_ms", "hinge/sigmoid"])
def test_pairs_across_two_sets_are_goal_loss(objective: str) -> None:
    """Each row with one reference of its label: the anchors of one direction."""
    rows, others = unit_rows(6, 4), unit_rows(6, 4, seed=1)
    numbers = torch.arange(6)
    goal = GOALLoss(objective, normalize=False)
    got = outcome(lambda x, y: goal(x, numbers, None, y, numbers), rows, others)
    wanted = outcome(
        lambda x, y: goal_loss(x, y, objective, direction="i2t", reduction="mean"), rows, others
    )
    assert_same(got, wanted)


@pytest.mark.parametrize("reducer", [None, "MeanReducer"])
def test_without_a_triplet_a_zero_with_a_graph(reducer: str | None) -> None:
    reduce = None if reducer is None else getattr(package("reducers"), reducer)()
    value, gradient = outcome(
        lambda x: GOALLoss(reducer=reduce)(x, torch.tensor([0])), unit_rows(1, 4)
    )
    assert value == 0
    assert gradient.eq(0).all()
    empty = (torch.zeros(0, dtype=torch.int64),) * 3
    value, gradient = outcome(
        lambda x: GOALLoss("nca/sig", reducer=reduce)(x, None, empty), unit_rows(3, 4)
    )
    assert value == 0
    assert gradient.eq(0).all()


def test_miner_serves_their_memory() -> None:
    """CrossBatchMemory with the miner gives the loss it gives with BatchHardMiner."""
    losses, miners = package("losses"), package("miners")
    values = []
    for miner in (miners.BatchHardMiner(distance=distance(True)), GOALMiner()):
        inner = losses.TripletMarginLoss(0.6, distance=distance(True))
        memory = losses.CrossBatchMemory(inner, 5, memory_size=30, miner=miner)
        values.append([memory(unit_rows(10, 5, seed=seed), LABELS).item() for seed in range(3)])
    assert values[0] == pytest.approx(values[1], rel=1e-12)


def test_refusals() -> None:
    rows = unit_rows(4, 3)
    labels = torch.tensor([0, 0, 1, 1])
    triplets = GOALMiner()(rows, labels)
    with pytest.raises(ValueError, match="indices_tuple: expected None with nca/sigmoid_ms"):
        GOALLoss()(rows, labels, triplets)
    with pytest.raises(ValueError, match="labels: expected the classes"):
        GOALLoss()(rows)
    with pytest.raises(ValueError, match=r"indices_tuple: expected .* got 2 tensors"):
        GOALLoss("nca/sig")(rows, labels, triplets[:2])
    with pytest.raises(ValueError, match="ref_emb: expected the width"):
        GOALMiner()(rows, labels, unit_rows(4, 5), labels)
