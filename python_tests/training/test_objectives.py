"""The names that choose what a run trains on, and losses over all negatives in its place."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from goal_kernels import Objective, info_nce_loss, sum_of_hinges_loss
from goal_kernels.distributed import gather_pairs
from goal_kernels.training.objectives import WHOLE_BATCH_LOSSES, make_objective
from goal_kernels.training.warmup import WarmedLoss, WarmupSchedule

MARGIN = 0.2


def unit_rows(rows: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=generator, dtype=torch.float64), dim=1)


def test_sum_of_hinges_plateau_of_collapsed_embeddings() -> None:
    same = unit_rows(1, 5, 1).expand(6, -1)
    found = sum_of_hinges_loss(same, same, margin=MARGIN)
    assert found.item() == pytest.approx(2 * 6 * 5 * MARGIN)


def test_hyper_parameters_reach_the_loss() -> None:
    images, texts = unit_rows(6, 5, 1), unit_rows(6, 5, 2)
    found = make_objective("info_nce", {"tau": 20}).loss(images, texts)
    torch.testing.assert_close(found, info_nce_loss(images, texts, scale=20.0))


@pytest.mark.parametrize("name", WHOLE_BATCH_LOSSES)
def test_one_text_an_image_is_a_batch_of_pairs(name: str) -> None:
    images, texts, ids = unit_rows(7, 5, 1), unit_rows(7, 5, 2), torch.arange(7) // 2
    objective = make_objective(name)
    owner = torch.tensor([3, 0, 6, 5, 1, 2, 4])
    several = objective.loss(images, texts, image_ids=ids, text_to_image=owner)
    square = objective.loss(images[owner], texts, image_ids=ids[owner])
    torch.testing.assert_close(several, square)


def test_objectives_by_name() -> None:
    assert make_objective("nca/sigmoid_ms", {"tau": 5}) == Objective("nca", "sigmoid_ms", tau=5)
    assert make_objective("nca/sigmoid/tangent", {"tau": 5}) == Objective(
        "nca", "sigmoid", tau=5, direction_element="tangent"
    )
    baseline = make_objective("info_nce", {"tau": 20.0})
    assert (baseline.name, baseline.tau) == ("info_nce", 20.0)
    assert make_objective("sum_of_hinges") != make_objective("hinge/constant")
    with pytest.raises(ValueError, match=r"sum_of_hinges, soft_margin, .*; got 'infonce'"):
        make_objective("infonce")
    with pytest.raises(TypeError, match=r"^model\.objective_parameters: .*margin\), got gamma=1.0"):
        make_objective("info_nce", {"gamma": 1.0})


def test_all_negatives_are_no_choice_of_negatives() -> None:
    with pytest.raises(ValueError, match=r"^model\.negatives, .*_ratio: .* info_nce counts all"):
        WarmedLoss(
            *(make_objective("info_nce"), WarmupSchedule(), "reference"),
            negatives="semi_hard",
            false_negative_ratio=1.2,
        )
    with pytest.raises(ValueError, match=r"negative_memory: .* sum_of_hinges counts all"):
        WarmedLoss(make_objective("sum_of_hinges"), WarmupSchedule(), "reference", memory=8)


@pytest.mark.parametrize("name", WHOLE_BATCH_LOSSES)
def test_a_baseline_trains_like_an_objective(name: str) -> None:
    objective = make_objective(name)
    loss = WarmedLoss(objective, WarmupSchedule(2), "reference")
    texts, ids = unit_rows(8, 5, 2), torch.arange(8) // 2

    def value_and_gradient(function):
        images = unit_rows(8, 5, 1).requires_grad_()
        value = function(images)
        value.backward()
        return torch.cat([value.detach()[None], images.grad.flatten()])

    warming = value_and_gradient(lambda images: loss(gather_pairs(images, texts, ids), 0)[0])
    trained = value_and_gradient(lambda images: loss(gather_pairs(images, texts, ids), 2)[0])
    hinges = value_and_gradient(
        lambda images: sum_of_hinges_loss(images, texts, image_ids=ids, margin=MARGIN)
    )
    expected = value_and_gradient(lambda images: objective.loss(images, texts, image_ids=ids))
    torch.testing.assert_close(warming, hinges)
    torch.testing.assert_close(trained, expected)
