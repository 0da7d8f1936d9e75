"""Saves and restores everything that an exact resumption needs."""

from __future__ import annotations

import random
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_info

from goal_kernels.training.checkpoints import CheckpointError
from goal_kernels.training.data_module import RetrievalDataModule
from goal_kernels.training.finite import not_finite_weights
from goal_kernels.training.loggers import HistoryLogger
from goal_kernels.training.resume_loop import loops_between_steps
from goal_kernels.training.run_folder import RunFolder
from goal_kernels.training.stopping import Stopped, StopRequest

RESUME = "resume"  # name of our part of a checkpoint


class ResumePoints(Callback):
    """Saves `last.ckpt` between two optimiser steps; the one before stays as `previous.ckpt`.

    The moment is when the next batch is there and nothing has been done with it: whatever belongs
    to the steps before, a validation and the log included, is finished. Give this callback before
    all others, so that none has begun with the next step.

    Args:
        run: the folder of the run.
        every_steps: optimiser steps from one save to the next, None for no such rule.
        every_minutes: the same in minutes of wall time. Each epoch is followed by a save anyway.
        longer: a training that had ended goes on, since its end was moved.

    Attributes:
        seconds: of training in all sessions of the run so far.
        restored: a batch has begun, so whatever a resume point held has been taken over.
    """

    def __init__(
        self,
        run: RunFolder,
        every_steps: int | None = None,
        every_minutes: float | None = None,
        longer: bool = False,
    ) -> None:
        self.run = run
        self.longer = longer
        self.every_steps = every_steps
        self.every_minutes = every_minutes
        self.stop = StopRequest()
        self.saved_step = -1
        self.finished = False
        self.restored = False
        self._saved_at = self._began = time.monotonic()
        self._seconds_before = 0.0
        self._random: dict[str, Any] | None = None

    @property
    def seconds(self) -> float:
        """Of training in all sessions of the run so far."""
        return self._seconds_before + time.monotonic() - self._began

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Broadcast the folder, whose name only the first process knows."""
        self.run = trainer.strategy.broadcast(self.run)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock and take over Ctrl-C and SIGTERM, from Lightning too."""
        self._began = self._saved_at = time.monotonic()
        self.stop.listen()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time to, or when asked to stop, and then stop."""
        if self._random is not None:
            set_random_state(self._random)
            self._random = None
        self.restored = True
        if batch_idx % trainer.accumulate_grad_batches:
            return  # gradients of a part of a step are not saved
        stop, due = _any_process(
            trainer, self.stop.received is not None, self._is_due(trainer.global_step, batch_idx)
        )
        if (due or stop) and trainer.global_step > self.saved_step:
            self._save(trainer)
        if stop:
            raise Stopped(self.stop.received or signal.SIGTERM, saved=True)

    def _is_due(self, step: int, batch_idx: int) -> bool:
        """Whether a save is due before the next step."""
        if step == 0:
            return False
        if self.every_steps is not None and step % self.every_steps == 0:
            return True
        waited = time.monotonic() - self._saved_at
        return batch_idx == 0 or (
            self.every_minutes is not None and waited >= 60 * self.every_minutes
        )

    def _save(self, trainer: pl.Trainer) -> None:
        """Save, unless the weights are not finite: the last finite resume point stays."""
        if not_finite_weights(trainer.lightning_module):
            return
        record = {"tokenizer": _data(trainer).tokenizer.identity}
        trainer.save_checkpoint(
            self.run.last,
            weights_only=False,
            storage_options={"previous": self.run.previous, "record": record},
        )
        self.saved_step = trainer.global_step
        self._saved_at = time.monotonic()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the final state, from which a resumed run repeats the test."""
        self.stop.ignore()
        self.finished = True
        self._save(trainer)

    def say_how_to_resume(self) -> None:
        """Name the command that resumes, where there is a resume point."""
        if self.saved_step >= 0:
            print(
                f"\nThe run can be resumed from step {self.saved_step:,}:\n"
                f"  goal-kernels fit --resume {self.run.path}",
                file=sys.stderr,
                flush=True,
            )

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Give Ctrl-C and SIGTERM back."""
        self.stop.ignore()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add our part: randomness, position in the data, length of the log."""
        epoch, pairs = _position(trainer)
        checkpoint["loops"] = loops_between_steps(checkpoint["loops"])
        checkpoint[RESUME] = {
            "random": _of_every_process(trainer, random_state()),
            "data": {"epoch": epoch, "pairs": pairs, "of": _data(trainer).training_pairs},
            "history": [logger.state_dict() for logger in _histories(trainer)],
            "seconds": self.seconds,
            "finished": self.finished,
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take our part up again; a checkpoint without one is a start with other weights.

        Raises: CheckpointError when the training data have another size than before.
        """
        state = checkpoint.get(RESUME)
        if state is None:
            return
        place, pairs = state["data"], _data(trainer).training_pairs
        if place["of"] != pairs:
            raise CheckpointError(
                f"data.folder: expected the {place['of']:,} training pairs that the run began "
                f"with, found {pairs:,}; a run goes on with its own data only"
            )
        _data(trainer).start_at(place["epoch"], place["pairs"])
        self._take_random(state["random"], trainer)
        if trainer.is_global_zero:
            for logger, kept in zip(_histories(trainer), state["history"], strict=True):
                logger.load_state_dict(kept)
        self._seconds_before = state["seconds"]
        self.saved_step = checkpoint["global_step"]
        # A training that ended early, by a callback, is not begun again.
        trainer.should_stop = state["finished"] and not self.longer

    def _take_random(self, states: list[dict[str, Any]], trainer: pl.Trainer) -> None:
        """Keep the state of this process's generators for the moment of the first step."""
        if len(states) == trainer.world_size:
            self._random = states[trainer.global_rank]
        else:
            rank_zero_info(
                f"resumed on {trainer.world_size} devices instead of {len(states)}: the states of "
                "their random generators are not taken over"
            )


def _data(trainer: pl.Trainer) -> RetrievalDataModule:
    """The data of a run."""
    return cast(Any, trainer).datamodule


def _position(trainer: pl.Trainer) -> tuple[int, int]:
    """(epoch, pairs, or images, of it that finished steps have used), by all processes."""
    epochs: Any = trainer.fit_loop.epoch_progress.current
    inside = epochs.ready > epochs.processed
    batches = trainer.fit_loop.epoch_loop.batch_progress.current.completed
    # The devices of a run share a batch, so that another number of them goes on at the same place.
    return epochs.processed, batches * _data(trainer).batch_size if inside else 0


def _histories(trainer: pl.Trainer) -> list[HistoryLogger]:
    """The loggers whose length belongs to the state of the run."""
    return [logger for logger in trainer.loggers if isinstance(logger, HistoryLogger)]


def _any_process(trainer: pl.Trainer, *flags: bool) -> list[bool]:
    """For each flag, whether it is up in any process; nothing is sent when there is only one."""
    if trainer.world_size == 1:
        return list(flags)
    shared = torch.tensor(flags, dtype=torch.int32, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
    return [bool(flag) for flag in shared.tolist()]


def _of_every_process(trainer: pl.Trainer, own: dict[str, Any]) -> list[dict[str, Any]]:
    """A record of this process and those of all others, by rank."""
    if trainer.world_size == 1:
        return [own]
    gathered: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(gathered, own)
    return gathered


def random_state() -> dict[str, Any]:
    """State of python's, numpy's and torch's global generators, all CUDA devices included.

    Returns: tensors and plain values; "cuda" is one uint8 tensor a device, none without CUDA.
    """
    version, words, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=True)  # noqa: NPY002
    _, key, position, has_gauss, cached = numpy_state
    return {
        "python": [version, list(words), gauss],
        "numpy": [torch.from_numpy(key.astype(np.int64)), int(position), int(has_gauss), cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Set every global generator to a state that `random_state` returned.

    States of CUDA devices that are not here are left out.
    """
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    key, position, has_gauss, cached = state["numpy"]
    legacy = ("MT19937", key.numpy().astype(np.uint32), position, has_gauss, cached)
    np.random.set_state(legacy)  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    for device, generator in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(generator, device)
