"""What a run says while it trains: pace, waiting, time left."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

pytest.importorskip("pytorch_lightning")

from goal_kernels.terminal import duration
from goal_kernels.training import callbacks
from goal_kernels.training.callbacks import EpochLines, Stopwatch
from goal_kernels.training.history import DATA_WAIT, PAIRS_PER_SECOND
from goal_kernels.training.resume_loop import ExactEpochLoop

BATCH = SimpleNamespace(image_ids=range(50))


class Clock:
    """A clock that tests move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        for name in ("perf_counter", "monotonic"):
            monkeypatch.setattr(callbacks.time, name, lambda: self.now)


class Training:
    """A trainer and a module that do nothing but count."""

    def __init__(self) -> None:
        self.loop = ExactEpochLoop.__new__(ExactEpochLoop)
        self.loop.waited = 0.0
        self.logged: dict[str, float] = {}
        self.trainer = SimpleNamespace(
            fit_loop=SimpleNamespace(epoch_loop=self.loop),
            _logger_connector=SimpleNamespace(should_update_logs=True),
            datamodule=SimpleNamespace(num_workers=1),
            callback_metrics={"train/loss": 3.0, "val/rsum": 120.0},
            global_step=0,
            world_size=2,
            is_global_zero=True,
            estimated_stepping_batches=40,
            current_epoch=0,
            max_epochs=4,
        )
        self.module = SimpleNamespace(log_dict=self.logged.update)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(**vars(time)))
    return Clock(monkeypatch)


def train(stopwatch: Stopwatch, clock: Clock, waiting: float) -> Training:
    """Ten steps of one second each, a part of which is waiting; then a validation of a minute."""
    training = Training()
    at = (training.trainer, training.module)
    stopwatch.on_train_start(*at)
    stopwatch.on_train_epoch_start(*at)
    for step in range(10):
        clock.now += 1
        training.loop.waited += waiting
        training.trainer.global_step = step + 1
        stopwatch.on_train_batch_end(*at, None, BATCH, step)
    stopwatch.on_validation_start(*at)
    clock.now += 60
    stopwatch.on_validation_end(*at)
    return training


def test_pace_and_waiting_are_logged_without_validation(clock: Clock) -> None:
    stopwatch = Stopwatch()
    training = train(stopwatch, clock, 0.25)
    assert training.logged == pytest.approx({PAIRS_PER_SECOND: 100, DATA_WAIT: 0.25})
    assert stopwatch.epoch_rates(training.trainer) == pytest.approx((100, 0.25))
    assert stopwatch.seconds_left(training.trainer) == pytest.approx(3 * 70)


def test_much_waiting_is_remarked_once_with_a_remedy(
    clock: Clock, capsys: pytest.CaptureFixture
) -> None:
    stopwatch = Stopwatch()
    training = train(stopwatch, clock, 0.6)
    for _ in range(2):
        stopwatch.on_train_epoch_end(training.trainer, training.module)
    printed = capsys.readouterr().out
    assert printed.count("60 % of the epoch was spent waiting") == 1
    assert "--data.num_workers 3, now 1" in printed


def test_little_waiting_is_not_remarked(clock: Clock, capsys: pytest.CaptureFixture) -> None:
    stopwatch = Stopwatch()
    training = train(stopwatch, clock, 0.2)
    stopwatch.on_train_epoch_end(training.trainer, training.module)
    assert capsys.readouterr().out == ""


def test_epoch_lines_say_loss_pace_and_time_left(
    clock: Clock, capsys: pytest.CaptureFixture
) -> None:
    stopwatch = Stopwatch()
    lines = EpochLines(stopwatch)
    training = train(stopwatch, clock, 0.2)
    lines.on_train_epoch_end(training.trainer, training.module)
    line = capsys.readouterr().out
    assert line.startswith("epoch 1/4  loss 3.0  rsum 120.0  (")
    assert "70.0 s, 100 pairs/s, data wait 20 %, 4 min left" in line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0.4, "0 s"), (99, "99 s"), (150, "2 min")),
        *((3600 * 3 + 1190, "3 h 20 min"), (86400 * 2 + 3600 * 4 + 5, "2 d 4 h")),
    ],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text
