"""When the learning rate drops, which optimisers there are, what is frozen when."""

from __future__ import annotations

import math

import pytest
import torch

from goal_kernels.training.optimisation import DroppedRate, DropSchedule, Unfreezing, make_optimizer


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        (DropSchedule(), [60]),
        (DropSchedule(at=0.25), [25]),
        (DropSchedule(epochs=[15, 6]), [60, 150]),
        (DropSchedule(steps=[7, 3]), [3, 7]),
        (DropSchedule(epochs=[]), []),
    ],
)
def test_drops_are_counted_in_steps(schedule: DropSchedule, steps: list[int]) -> None:
    assert schedule.drop_steps(total_steps=100, steps_per_epoch=10) == steps


def test_training_without_an_end_has_no_fraction_of_it() -> None:
    assert DropSchedule(at=0.6).drop_steps(math.inf, 10) == []


def test_each_drop_is_to_a_tenth() -> None:
    rate = DroppedRate([2, 4])
    assert [rate(step) for step in range(6)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at": 0.5, "epochs": [3]}, r"model\.lr_drop_at, model\.lr_drop_epochs.*at most one"),
        ({"steps": [5, -1]}, r"model\.lr_drop_steps"),
        ({"at": -0.5}, r"model\.lr_drop_at"),
    ],
)
def test_unusable_schedules(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DropSchedule(**options)


def test_optimisers_by_name() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.1, "weight_decay": 0.3}]
    for name, kind in (("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam)):
        optimizer = make_optimizer(name, groups)
        assert type(optimizer) is kind
        assert optimizer.param_groups[0]["weight_decay"] == 0.3
    with pytest.raises(ValueError, match=r"model\.optimizer: expected 'adamw' or 'adam', got"):
        make_optimizer("lion", groups)


def test_backbones_unfreeze_from_the_last_block_on() -> None:
    def blocks(plan: Unfreezing) -> list[int]:
        return [plan.fixed_blocks(epoch) for epoch in range(8)]

    assert blocks(Unfreezing()) == [0] * 8
    assert blocks(Unfreezing(1)) == [4] + [0] * 7  # VSE-infinity
    assert blocks(Unfreezing(2, 1)) == [4, 4, 3, 2, 1, 0, 0, 0]
    assert blocks(Unfreezing(0, 2)) == [3, 3, 2, 2, 1, 1, 0, 0]
    with pytest.raises(ValueError, match=r"model\.unfreezing_epochs"):
        Unfreezing(stage_epochs=-1)


def test_the_loss_is_ramped_up_in_the_epoch_after_the_frozen_ones() -> None:
    plan = Unfreezing(frozen_epochs=2)
    assert [plan.loss_factor(epoch, 0.25) for epoch in range(4)] == [1, 1, 0.25, 1]
    assert Unfreezing().loss_factor(0, 0.25) == 1
