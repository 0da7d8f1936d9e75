"""What a run shows while it trains: a progress bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import sys
import time

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, RichProgressBar


class EpochLines(Callback):
    """One plain line an epoch, for logs and pipes."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of the epoch."""
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print epoch, loss of the last step, rsum on dev and seconds."""
        shown = trainer.callback_metrics
        known = [
            f"{label} {float(shown[name]):.1f}"
            for name, label in (
                ("train/loss", "loss"),
                ("val/i2t_R@1", "i2t R@1"),
                ("val/t2i_R@1", "t2i R@1"),
                ("val/rsum", "rsum"),
            )
            if name in shown
        ]
        seconds = time.monotonic() - self._started
        parts = [f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", *known]
        print("  ".join(parts), f" ({seconds:.1f} s)", flush=True)


def progress_callbacks() -> list[Callback]:
    """A rich progress bar when someone watches a terminal, plain lines otherwise."""
    return [RichProgressBar()] if sys.stdout.isatty() else [EpochLines()]
