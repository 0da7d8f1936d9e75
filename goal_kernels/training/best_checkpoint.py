"""The weights with the highest rsum on the dev split."""

from __future__ import annotations

from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_info

from goal_kernels.training.checkpoints import CheckpointError, load_checkpoint
from goal_kernels.training.finite import has_finite_weights
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
        if not has_finite_weights(pl_module):
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
