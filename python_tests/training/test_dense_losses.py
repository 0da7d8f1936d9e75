"""Losses over all negatives against double loops, and the names that choose them."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from goal_kernels import Objective
from goal_kernels.training.dense_losses import DENSE_LOSSES, info_nce, make_objective, sum_of_hinges
from goal_kernels.training.warmup import WarmedLoss, WarmupSchedule

MARGIN = 0.2


def unit_rows(rows: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=generator, dtype=torch.float64), dim=1)


def slow_sum_of_hinges(images: torch.Tensor, texts: torch.Tensor, ids: list[int]) -> float:
    total = 0.0
    for i in range(len(images)):
        positive = float(images[i] @ texts[i])
        for j in range(len(images)):
            if ids[i] != ids[j]:
                total += max(0.0, MARGIN + float(images[i] @ texts[j]) - positive)
                total += max(0.0, MARGIN + float(images[j] @ texts[i]) - positive)
    return total


@pytest.mark.parametrize("ids", [None, [0, 1, 0, 2, 3, 1, 0]])
def test_sum_of_hinges_equals_the_double_loop(ids: list[int] | None) -> None:
    images, texts = unit_rows(7, 5, 1), unit_rows(7, 5, 2)
    given = None if ids is None else torch.tensor(ids)
    expected = slow_sum_of_hinges(images, texts, ids or list(range(7)))
    assert sum_of_hinges(images, texts, given, MARGIN).item() == pytest.approx(expected, abs=1e-12)


def test_sum_of_hinges_plateau_of_collapsed_embeddings() -> None:
    same = unit_rows(1, 5, 1).expand(6, -1)
    assert sum_of_hinges(same, same, margin=MARGIN).item() == pytest.approx(2 * 6 * 5 * MARGIN)


def slow_info_nce(images: torch.Tensor, texts: torch.Tensor, ids: list[int], scale: float) -> float:
    total = 0.0
    for i in range(len(images)):
        others = [j for j in range(len(images)) if j == i or ids[j] != ids[i]]
        for anchor, candidates in ((images[i], texts), (texts[i], images)):
            logits = [scale * float(anchor @ candidates[j]) for j in others]
            positive = logits[others.index(i)]
            total += math.log(sum(math.exp(logit - positive) for logit in logits))
    return total


@pytest.mark.parametrize("ids", [None, [0, 1, 0, 2, 3, 1, 0]])
def test_info_nce_equals_the_double_loop(ids: list[int] | None) -> None:
    images, texts = unit_rows(7, 5, 1), unit_rows(7, 5, 2)
    given = None if ids is None else torch.tensor(ids)
    expected = slow_info_nce(images, texts, ids or list(range(7)), 3.0)
    assert info_nce(images, texts, given, 3.0).item() == pytest.approx(expected, abs=1e-11)


def test_info_nce_is_clips_loss_times_two_b() -> None:
    images, texts = unit_rows(6, 5, 1), unit_rows(6, 5, 2)
    logits, diagonal = 20 * images @ texts.T, torch.arange(6)
    clip = (F.cross_entropy(logits, diagonal) + F.cross_entropy(logits.T, diagonal)) / 2
    assert info_nce(images, texts, scale=20.0).item() == pytest.approx(12 * clip.item())


OWNER = [2, 0, 0, 3, 2, 2]  # of six texts, among four images, of which one has none


def slow_captioned(images: torch.Tensor, texts: torch.Tensor, ids: list[int]) -> tuple:
    """The sum of hinges and InfoNCE (scale 3) by loops over pairs, texts and images."""
    score = (images @ texts.T).tolist()
    hinges = nce = 0.0
    for j, own in enumerate(OWNER):
        positive = score[own][j]
        wrong_texts = [score[own][k] for k in range(6) if ids[OWNER[k]] != ids[own]]
        wrong_images = [score[i][j] for i in range(4) if ids[i] != ids[own]]
        for wrong in (wrong_texts, wrong_images):
            hinges += sum(max(0.0, MARGIN + n - positive) for n in wrong)
            nce += math.log(1 + sum(math.exp(3 * (n - positive)) for n in wrong))
    return hinges, nce


@pytest.mark.parametrize("ids", [None, [0, 1, 1, 0]])
def test_several_texts_an_image_equal_the_loops(ids: list[int] | None) -> None:
    images, texts = unit_rows(4, 5, 1), unit_rows(6, 5, 2)
    given, owner = None if ids is None else torch.tensor(ids), torch.tensor(OWNER)
    hinges, nce = slow_captioned(images, texts, ids or list(range(4)))
    found = sum_of_hinges(images, texts, given, MARGIN, owner)
    assert found.item() == pytest.approx(hinges, abs=1e-12)
    found = info_nce(images, texts, given, 3.0, owner)
    assert found.item() == pytest.approx(nce, abs=1e-11)


@pytest.mark.parametrize("name", DENSE_LOSSES)
def test_one_text_an_image_is_a_batch_of_pairs(name: str) -> None:
    images, texts, ids = unit_rows(7, 5, 1), unit_rows(7, 5, 2), torch.arange(7) // 2
    objective = make_objective(name)
    owner = torch.tensor([3, 0, 6, 5, 1, 2, 4])
    several = objective.loss(images, texts, ids, owner)
    torch.testing.assert_close(several, objective.loss(images[owner], texts, ids[owner]))


def test_gradients_stay_finite_where_all_others_are_of_the_same_image() -> None:
    images = unit_rows(4, 5, 1).requires_grad_()
    for name in DENSE_LOSSES:
        objective = make_objective(name)
        loss = objective.loss(images, unit_rows(4, 5, 2), torch.zeros(4, dtype=torch.int64))
        (gradient,) = torch.autograd.grad(loss, images)
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_objectives_by_name() -> None:
    assert make_objective("nca/sigmoid_ms", {"tau": 5}) == Objective("nca", "sigmoid_ms", tau=5)
    baseline = make_objective("info_nce", {"tau": 20.0})
    assert (baseline.name, baseline.tau) == ("info_nce", 20.0)
    assert make_objective("sum_of_hinges") != make_objective("hinge/constant")
    with pytest.raises(ValueError, match=r"sum_of_hinges, info_nce; got 'infonce'"):
        make_objective("infonce")
    with pytest.raises(TypeError, match=r"objective_parameters.*gamma"):
        make_objective("info_nce", {"gamma": 1.0})


def test_all_negatives_are_no_choice_of_negatives() -> None:
    with pytest.raises(ValueError, match=r"negatives, .*_ratio: .* info_nce counts all"):
        WarmedLoss(
            *(make_objective("info_nce"), WarmupSchedule(), "reference"),
            negatives="semi_hard",
            false_negative_ratio=1.2,
        )
    with pytest.raises(ValueError, match=r"negative_memory: .* sum_of_hinges counts all"):
        WarmedLoss(make_objective("sum_of_hinges"), WarmupSchedule(), "reference", memory=8)


@pytest.mark.parametrize("name", DENSE_LOSSES)
def test_a_baseline_trains_like_an_objective(name: str) -> None:
    objective = make_objective(name)
    loss = WarmedLoss(objective, WarmupSchedule(2), "reference")
    texts, ids = unit_rows(8, 5, 2), torch.arange(8) // 2

    def value_and_gradient(function):
        images = unit_rows(8, 5, 1).requires_grad_()
        value = function(images)
        value.backward()
        return torch.cat([value.detach()[None], images.grad.flatten()])

    warming = value_and_gradient(lambda images: loss(images, texts, ids, 0)[0])
    trained = value_and_gradient(lambda images: loss(images, texts, ids, 2)[0])
    hinges = value_and_gradient(lambda images: sum_of_hinges(images, texts, ids, MARGIN))
    expected = value_and_gradient(lambda images: objective.loss(images, texts, ids))
    torch.testing.assert_close(warming, hinges)
    torch.testing.assert_close(trained, expected)
