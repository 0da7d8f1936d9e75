"""Optimisers by name, learning rates that drop, and backbones that are frozen for some epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from goal_kernels.training.options import BLOCKS, choose

LR_DROP_FACTOR = 0.1  # of the learning rate at each drop; VSE++, SCAN, VSE-infinity
LR_DROP_AT = 0.6  # of all steps; VSE-infinity drops at epoch 15 of 25

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
}
"""By the name that `model.optimizer` takes. VSE-infinity trains with AdamW, VSE++ with Adam."""


def make_optimizer(name: str, groups: Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
    """The named optimiser over parameter groups that hold their learning rate and weight decay.

    Raises: ValueError when there is none of that name.
    """
    return choose("model.optimizer", name, OPTIMIZERS)(list(groups))


def check_amounts(warmup_steps: int, warmup_epochs: float, accumulate_negatives: int) -> None:
    """Raises: ValueError naming the option that is out of range or given twice."""
    if warmup_steps and warmup_epochs:
        raise ValueError(
            f"model.warmup_steps, model.warmup_epochs: expected one of them, got {warmup_steps} "
            f"and {warmup_epochs}; set one to 0"
        )
    if warmup_epochs < 0:
        raise ValueError(f"model.warmup_epochs: expected a number >= 0, got {warmup_epochs}")
    if accumulate_negatives < 1:
        raise ValueError(
            f"model.accumulate_negatives: expected at least 1 chunk, got {accumulate_negatives}"
        )


def check_rates(**rates: float) -> None:
    """Raises: ValueError naming the first that no optimiser can use."""
    for name, rate in rates.items():
        if not 0 <= rate < math.inf:
            raise ValueError(f"model.{name}: expected a finite number >= 0, got {rate}")


@dataclass(frozen=True)
class DropSchedule:
    """When the learning rate drops to a tenth, in one of three units; the other two stay None.

    Attributes:
        at: fraction of all steps, 1 or more for never.
        epochs: at the start of these epochs, counted from 0.
        steps: after so many optimiser steps each.
    """

    at: float | None = None
    epochs: Sequence[int] | None = None
    steps: Sequence[int] | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("at", "epochs", "steps") if getattr(self, name) is not None]
        if len(given) > 1:
            names = ", ".join(f"model.lr_drop_{name}" for name in given)
            raise ValueError(f"{names}: expected at most one of them, got {len(given)}; drop one")
        values = [self.at or 0, *(self.epochs or ()), *(self.steps or ())]
        if min(values) < 0:
            name = (given or ["at"])[0]
            raise ValueError(f"model.lr_drop_{name}: expected no negative number, got {values[1:]}")

    def drop_steps(self, total_steps: float, steps_per_epoch: int) -> list[int]:
        """Optimiser steps before which the learning rate drops, in ascending order.

        Args:
            total_steps: of the whole training; may be infinite where it has no planned end.
            steps_per_epoch: optimiser steps in an epoch.
        """
        if self.epochs is not None:
            return sorted(epoch * steps_per_epoch for epoch in self.epochs)
        if self.steps is not None:
            return sorted(self.steps)
        place = (LR_DROP_AT if self.at is None else self.at) * total_steps
        return [round(place)] if place != float("inf") else []


class DroppedRate:
    """Factor of the learning rate at an optimiser step: 0.1 to the number of drops so far."""

    def __init__(self, drop_steps: Sequence[int]) -> None:
        self.drop_steps = list(drop_steps)

    def __call__(self, step: int) -> float:
        """`step`: optimiser steps taken so far."""
        return LR_DROP_FACTOR ** sum(step >= drop for drop in self.drop_steps)


@dataclass(frozen=True)
class Unfreezing:
    """A backbone that is frozen first and then trains from its last block to its first.

    Attributes:
        frozen_epochs: epochs with the whole backbone frozen. In the epoch after them the loss is
            multiplied by the share of the epoch that is done, so that the backbone starts gently.
        stage_epochs: epochs with 3, then 2, then 1 fixed blocks; 0 skips these stages.

    Source: VSE-infinity's training on grid features: frozen for one epoch, then all at once.
    """

    frozen_epochs: int = 0
    stage_epochs: int = 0

    def __post_init__(self) -> None:
        for name, argument in (("frozen_epochs", "frozen"), ("stage_epochs", "unfreezing")):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"model.{argument}_epochs: expected a number of epochs >= 0, got "
                    f"{getattr(self, name)}"
                )

    @property
    def planned(self) -> bool:
        """Whether anything changes during training."""
        return self.frozen_epochs > 0 or self.stage_epochs > 0

    def fixed_blocks(self, epoch: int) -> int:
        """Blocks that do not train in `epoch` (0 is the first): 4, all, to 0, none."""
        if epoch < self.frozen_epochs:
            return BLOCKS
        if self.stage_epochs == 0:
            return 0
        return max(0, BLOCKS - 1 - (epoch - self.frozen_epochs) // self.stage_epochs)

    def loss_factor(self, epoch: int, done: float) -> float:
        """Factor of the loss, `done` being the share of the epoch's batches seen, in [0, 1]."""
        return done if self.frozen_epochs > 0 and epoch == self.frozen_epochs else 1.0
