"""The sum of hinges against a double loop, and the schedule counted in steps."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from goal_kernels import GOALLoss, Objective
from goal_kernels.training.dense_losses import sum_of_hinges
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


@pytest.mark.parametrize(
    ("schedule", "weights"),
    [
        (WarmupSchedule(), [1, 1, 1, 1, 1, 1]),
        (WarmupSchedule(3), [0, 0, 0, 1, 1, 1]),
        (WarmupSchedule(2, 3), [0, 0, 0.25, 0.5, 0.75, 1]),
    ],
)
def test_schedule_counts_steps(schedule: WarmupSchedule, weights: list[float]) -> None:
    assert [schedule.weight(step) for step in range(6)] == pytest.approx(weights)


@pytest.mark.parametrize("name", ["warmup_steps", "blend_steps"])
def test_schedule_refuses_negative_steps(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        WarmupSchedule(**{name: -1})


def test_warmed_loss_switches_loss_and_gradient_by_step() -> None:
    texts, ids = unit_rows(8, 5, 2), torch.arange(8) // 2
    objective = Objective("nca", "sigmoid_ms")
    loss = WarmedLoss(objective, WarmupSchedule(10, 1), backend="reference")

    def value_and_gradient(function):
        images = unit_rows(8, 5, 1).requires_grad_()
        value = function(images)
        value.backward()
        return torch.cat([value.detach()[None], images.grad.flatten()])

    hinges = value_and_gradient(lambda images: sum_of_hinges(images, texts, ids, MARGIN))
    goal = value_and_gradient(
        lambda images: GOALLoss(objective, backend="reference")(images, texts, ids, ids)
    )
    expected = {0: hinges, 9: hinges, 10: (hinges + goal) / 2, 11: goal, 500: goal}
    for step, wanted in expected.items():
        got = value_and_gradient(lambda images, step=step: loss(images, texts, ids, step)[0])
        torch.testing.assert_close(got, wanted)


def test_mining_is_reported_during_the_warm_up() -> None:
    images, texts = unit_rows(8, 5, 1), unit_rows(8, 5, 2)
    loss = WarmedLoss(Objective("hinge", "constant"), WarmupSchedule(10), backend="reference")
    _, statistics = loss(images, texts, None, 0)
    torch.testing.assert_close(statistics.mean_positive, (images * texts).sum(dim=1).mean())
