"""Checkpoints as Lightning writes them: whole and checked; the best weights on the dev split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins import CheckpointIO
from pytorch_lightning.utilities import rank_zero_info

from goal_kernels.training.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from goal_kernels.training.finite import not_finite_weights
from goal_kernels.training.run_folder import RunFolder

MONITORED = "val/rsum"


class BestCheckpoint(Callback):
    """Saves the weights whenever a validation finds a higher rsum than all before it.

    What is the best so far stands in the file itself, so that a resumed run can neither forget it
    nor believe in one that is not there: a run that is killed between a validation and its next
    resume point has replaced the file already.

    Attributes:
        record: {"rsum", "epoch" (counted from 1), "step", "tokenizer"} of the best; None before
            the first.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.record: dict[str, Any] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Agree on the folder, and learn what the best was when the run stopped."""
        self.run = trainer.strategy.broadcast(self.run)
        if stage != "fit" or not self.run.best.is_file():
            return
        try:
            record = load_checkpoint(self.run.best).get("record", {})
            if not all(isinstance(record.get(n), int | float) for n in ("rsum", "epoch", "step")):
                raise CheckpointError(f"{self.run.best}: does not say which rsum and step it is of")
            self.record = record
        except CheckpointError as error:
            rank_zero_info(f"{error}; the next validation saves it anew")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save if this is the best so far; of equals the earliest stays."""
        if trainer.sanity_checking or MONITORED not in trainer.callback_metrics:
            return
        if not_finite_weights(pl_module):
            return
        rsum = float(trainer.callback_metrics[MONITORED])
        if self.record is not None and not rsum > self.record["rsum"]:
            return
        record = {
            "rsum": rsum,
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "tokenizer": cast(Any, trainer).datamodule.tokenizer.identity,
        }
        trainer.save_checkpoint(
            self.run.best, weights_only=True, storage_options={"record": record}
        )
        self.record = record


class CheckedFiles(CheckpointIO):
    """Has Lightning write whole checkpoints with a checksum and read them without unpickling."""

    def save_checkpoint(
        self,
        checkpoint: Mapping[str, Any],
        path: str | Path,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a checkpoint in full or not at all.

        Args:
            checkpoint: tensors and plain values.
            path: the file.
            storage_options: "previous": where the file it replaces is kept; "record": plain values
                that are added to the checkpoint under that name.
        """
        options = dict(storage_options or {})
        added = {name: options[name] for name in ("record",) if name in options}
        save_checkpoint({**checkpoint, **added}, Path(path), options.get("previous"))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint to the CPU, checked; whatever Lightning asks, never unpickling."""
        return load_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a file, if it is there."""
        Path(path).unlink(missing_ok=True)
