"""Lightning's epoch loop, resuming exactly between two optimiser steps.

Lightning 2.6 restores its counters, but then tells from them where in a step it was saved and makes
up for it: it skips a validation that is due, or counts a batch again when one has just run. A
resume point of ours lies between two steps, where nothing has to be made up for.
"""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop


class ExactEpochLoop(_TrainingEpochLoop):
    """The epoch loop of a trainer, without repairs on resuming, and timing the data loader.

    Attributes:
        waited: seconds spent waiting for batches, all in all.
    """

    waited = 0.0
    _asked = 0.0

    def reset(self) -> None:
        """Begin an epoch, or resume inside one."""
        inside = self.restarting and self.trainer.fit_loop.restarted_mid_epoch
        self.restarting = False
        if not inside:
            super().reset()

    def _on_before_fetch(self) -> None:
        super()._on_before_fetch()
        self._asked = time.perf_counter()

    def _on_after_fetch(self) -> None:
        self.waited += time.perf_counter() - self._asked
        super()._on_after_fetch()


def use_exact_epoch_loop(trainer: pl.Trainer) -> None:
    """Replace the epoch loop of a trainer that has not run yet."""
    old = trainer.fit_loop.epoch_loop
    trainer.fit_loop.epoch_loop = ExactEpochLoop(trainer, old.min_steps, old.max_steps)


def loops_between_steps(loops: dict[str, Any]) -> dict[str, Any]:
    """The state of Lightning's loops as of the last finished batch.

    Args:
        loops: as Lightning saves it when the next batch has been fetched, but not begun.
    Returns: the same, the fetched batch taken back.
    """
    fit = dict(loops["fit_loop"])
    progress = fit["epoch_loop.batch_progress"]
    fit["epoch_loop.batch_progress"] = {
        "total": _all_completed(progress["total"]),
        "current": _all_completed(progress["current"]),
        "is_last_batch": False,  # known again when the next batch is fetched
    }
    return {**loops, "fit_loop": fit}


def _all_completed(counts: dict[str, int]) -> dict[str, int]:
    """Every stage of a batch as often as the last one."""
    return dict.fromkeys(counts, counts["completed"])
