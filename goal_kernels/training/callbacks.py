"""What a run shows while it trains: a progress bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, RichProgressBar

from goal_kernels.terminal import duration
from goal_kernels.training.density import PairDensity
from goal_kernels.training.history import DATA_WAIT, PAIRS_PER_SECOND
from goal_kernels.training.resume_loop import ExactEpochLoop

MUCH_WAITING = 0.3  # share of the training time that batches are waited for, worth a remark
SECONDS_WORTH_A_REMARK = 5.0  # of waiting; below, nothing could be gained


class Stopwatch(Callback):
    """Logs pairs a second and the share of the time that batches are waited for.

    Validation is not counted. Give it before the callbacks that show what it knows.
    """

    def __init__(self) -> None:
        self._window = _Span()
        self._epoch = _Span()
        self._validation_began = 0.0
        self._first_step = 0
        self._began = time.perf_counter()
        self._remarked = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start every clock."""
        self._first_step = trainer.global_step
        self._began = time.perf_counter()
        self._window, self._epoch = _Span(_waited(trainer)), _Span(_waited(trainer))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of the epoch."""
        self._epoch = _Span(_waited(trainer))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Log the rates since the last logged step."""
        for span in (self._window, self._epoch):
            span.pairs += len(batch.image_ids) * trainer.world_size
        if trainer._logger_connector.should_update_logs:
            rates = self._window.rates(_waited(trainer))
            pl_module.log_dict(dict(zip((PAIRS_PER_SECOND, DATA_WAIT), rates, strict=True)))
            self._window = _Span(_waited(trainer))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clocks."""
        self._validation_began = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on."""
        for span in (self._window, self._epoch):
            span.began += time.perf_counter() - self._validation_began

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remark once that much time is spent waiting for batches, and what helps."""
        waited = _waited(trainer) - self._epoch.waited_before
        share = self._epoch.rates(_waited(trainer))[1]
        if share > MUCH_WAITING and waited > SECONDS_WORTH_A_REMARK and not self._remarked:
            self._remarked = True
            workers = cast(Any, trainer).datamodule.num_workers
            print(
                f"{100 * share:.0f} % of the epoch was spent waiting for batches. Load them in "
                f"other processes (--data.num_workers {workers + 2}, now {workers}), or store the "
                "features in half precision (goal-kernels data convert --help)",
                flush=True,
            )

    def epoch_rates(self, trainer: pl.Trainer) -> tuple[float, float]:
        """(pairs a second, share of waiting) of the epoch so far."""
        return self._epoch.rates(_waited(trainer))

    def seconds_left(self, trainer: pl.Trainer) -> float | None:
        """Until the last step at the pace of this session, None when there is no telling."""
        done = trainer.global_step - self._first_step
        steps = trainer.estimated_stepping_batches
        if not done or steps == float("inf"):
            return None
        return (time.perf_counter() - self._began) / done * (steps - trainer.global_step)


class _Span:
    """A stretch of training: when it began, pairs seen, seconds waited for data until then."""

    def __init__(self, waited_before: float = 0.0) -> None:
        self.began = time.perf_counter()
        self.waited_before = waited_before
        self.pairs = 0

    def rates(self, waited: float) -> tuple[float, float]:
        """(pairs a second, share of waiting) until now."""
        seconds = max(time.perf_counter() - self.began, 1e-9)
        return self.pairs / seconds, (waited - self.waited_before) / seconds


def _waited(trainer: pl.Trainer) -> float:
    """Seconds that the epoch loop has waited for batches, 0 where it does not measure."""
    loop = trainer.fit_loop.epoch_loop
    return loop.waited if isinstance(loop, ExactEpochLoop) else 0.0


class PairRecorder(Callback):
    """Records where the anchors of each epoch are, see `PairDensity`.

    Give it before what saves resume points, whose state is that after the step.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.density = PairDensity()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Count the anchors of the step."""
        statistics = getattr(pl_module, "statistics", None)
        if statistics is not None:
            self.density.add(statistics)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epochs so far."""
        self.density.finish_epoch(trainer.current_epoch + 1)
        if trainer.is_global_zero:
            self.density.write(self.path)

    def state_dict(self) -> dict[str, Any]:
        """For resume points."""
        return self.density.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Of a resume point."""
        self.density.load_state_dict(state_dict)


class EpochLines(Callback):
    """One plain line an epoch, for logs and pipes."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        self.stopwatch = stopwatch
        self._started = time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of the epoch."""
        self._started = time.monotonic()

    on_train_start = on_train_epoch_start  # a resumed run may be inside an epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print epoch, loss of the last step, rsum on dev, pace and time left."""
        if not trainer.is_global_zero:
            return
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
        pairs, share = self.stopwatch.epoch_rates(trainer)
        left = self.stopwatch.seconds_left(trainer)
        pace = [
            f"{time.monotonic() - self._started:.1f} s",
            f"{pairs:,.0f} pairs/s",
            f"data wait {100 * share:.0f} %",
            *([f"{duration(left)} left"] if left else []),
        ]
        epoch = f"epoch {trainer.current_epoch + 1}"
        if trainer.max_epochs and trainer.max_epochs > 0:
            epoch += f"/{trainer.max_epochs}"
        print("  ".join([epoch, *known]), f" ({', '.join(pace)})", flush=True)


class ProgressBar(RichProgressBar):
    """Lightning's bar, with loss, rsum, pace and time left beside it."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        super().__init__()
        self.stopwatch = stopwatch

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """What stands beside the bar, as text."""
        shown = trainer.progress_bar_metrics
        texts = {
            label: f"{float(shown[name]):.1f}"
            for name, label in (("train/loss", "loss"), ("val/rsum", "rsum"))
            if name in shown
        }
        pairs, share = self.stopwatch.epoch_rates(trainer)
        texts |= {"pairs/s": f"{pairs:,.0f}", "data wait": f"{100 * share:.0f} %"}
        left = self.stopwatch.seconds_left(trainer)
        return texts | ({"left": duration(left)} if left else {})


def progress_callbacks(stopwatch: Stopwatch) -> list[Callback]:
    """A rich progress bar when someone watches a terminal, plain lines otherwise."""
    return [ProgressBar(stopwatch)] if sys.stdout.isatty() else [EpochLines(stopwatch)]
