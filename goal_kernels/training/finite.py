"""Ends a training whose loss is not finite, and says where that began."""

from __future__ import annotations

from itertools import chain
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from goal_kernels.data.split import PrecomputedSplit
from goal_kernels.terminal import some

LOOK_EVERY = 16  # steps between looks that have to wait: for a GPU, or for other processes
NAMED_ROWS = 8  # image rows that a message lists
NAMED_WEIGHTS = 3


class NotFiniteError(Exception):
    """The training failed: its loss or its weights are NaN or infinite."""


class FiniteLoss(Callback):
    """Raises `NotFiniteError` after so many steps in a row whose loss is not finite.

    A gradient that is not finite and that mixed precision skips does not count: its loss is finite.

    Args:
        allowed: losses in a row that may be NaN or infinite.
    Attributes:
        in_a_row: steps up to now whose loss was not finite.
    """

    def __init__(self, allowed: int) -> None:
        if allowed < 0:
            raise ValueError(
                f"run.not_finite_losses: expected a number >= 0, got {allowed}; it counts steps in "
                "a row whose loss may be NaN or infinite"
            )
        self.allowed = allowed
        self.in_a_row = 0
        self._first: tuple[int, Tensor] | None = None  # step and image rows of its batch
        self._unseen: list[tuple[int, Tensor, Tensor]] = []  # step, loss, image rows

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keep the loss, and look at those that were kept when it is time to."""
        self._unseen.append((trainer.global_step, outputs["loss"].detach(), batch.image_ids))
        waits = pl_module.device.type != "cpu" or trainer.world_size > 1
        if not waits or len(self._unseen) == LOOK_EVERY:
            self._look(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Weights and statistics that are not finite never become so again, whatever the loss."""
        self._look(trainer)
        if not self.in_a_row and (names := not_finite_weights(pl_module)):
            raise NotFiniteError(
                f"failed: after step {trainer.global_step:,} the loss is finite, but the weights "
                f"or running statistics {some(names, NAMED_WEIGHTS)} are not; lower --model.lr, "
                "and see whether some features are far larger than the others"
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A training that ends on a loss that is not finite has failed too."""
        self._look(trainer)
        if self.in_a_row:
            raise self._failure(trainer)

    def _look(self, trainer: pl.Trainer) -> None:
        unseen, self._unseen = self._unseen, []
        if not unseen:
            return
        finite = torch.stack([loss for _, loss, _ in unseen]).isfinite().int()
        if trainer.world_size > 1:  # all processes stop at the same step
            torch.distributed.all_reduce(finite, torch.distributed.ReduceOp.MIN)
        for (step, _, rows), good in zip(unseen, finite.tolist(), strict=True):
            if good:
                self.in_a_row, self._first = 0, None
                continue
            self.in_a_row += 1
            self._first = self._first or (step, rows)
            if self.in_a_row > self.allowed:
                raise self._failure(trainer)

    def _failure(self, trainer: pl.Trainer) -> NotFiniteError:
        assert self._first is not None
        step, rows = self._first
        return NotFiniteError(
            f"failed: the loss has not been finite since step {step:,} ({self.in_a_row} steps in a "
            f"row; run.not_finite_losses allows {self.allowed}); {_cause(trainer, rows)}"
        )


def _cause(trainer: pl.Trainer, rows: Tensor) -> str:
    """What is known of the first batch whose loss was not finite."""
    images = np.unique(rows.cpu().numpy())
    split = cast(Any, trainer).datamodule.split("train")
    if isinstance(split, PrecomputedSplit):
        broken = [
            int(row)
            for row in images
            if not np.isfinite(np.asarray(split.features[row], dtype=np.float32)).all()
        ]
        if broken:
            return (
                "its batch holds features that are not finite in float32: rows "
                f"{some(broken, NAMED_ROWS)} of the training images in {split.folder}; repair "
                "or remove them (`goal-kernels data inspect` lists all)"
            )
    return (
        f"its batch held the training images {some(list(images), NAMED_ROWS)}, whose features are "
        "finite; lower --model.lr or warm up longer (--model.warmup_steps)"
    )


def not_finite_weights(module: torch.nn.Module) -> list[str]:
    """Names of the parameters and floating buffers that hold NaN or infinity."""
    tensors = chain(module.named_parameters(), module.named_buffers())
    return [n for n, t in tensors if t.is_floating_point() and not bool(t.isfinite().all())]
