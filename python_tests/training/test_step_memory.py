"""`goal-kernels memory`: two small steps tell what a large one needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from run_cases import SMALL
from torch.profiler import ProfilerActivity, profile

from goal_kernels.cli import main
from goal_kernels.training import step_memory
from goal_kernels.training.allocations import Allocations, Step
from goal_kernels.training.lightning_cli import RetrievalCLI
from goal_kernels.training.lightning_options import ConfigurationError
from goal_kernels.training.step_memory import MIB, StepMemory, bytes_said

WIDE = ("--data.batch_size", "48", "--model.embed_dim", "96", "--model.text.word_dim", "64")


def told(monkeypatch: pytest.MonkeyPatch, *options: str) -> StepMemory:
    """What the command measured."""
    kept: list[StepMemory] = []
    really = step_memory.MemoryCLI.measure

    def measure(self: Any, batch: Any) -> StepMemory:
        kept.append(really(self, batch))
        return kept[-1]

    monkeypatch.setattr(step_memory.MemoryCLI, "measure", measure)
    monkeypatch.setattr(step_memory, "FEATURE_ROWS", 12)
    monkeypatch.setattr(step_memory, "SCORE_ROWS", 24)
    assert main(["memory", *options]) == 0
    return kept[0]


def most_allocated(monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    """Bytes of torch's allocator at the peak of the second step of `fit`, beyond the parameters."""
    found: list[int] = []

    class Measured(pl.Callback):
        def on_train_start(self, *_: Any) -> None:
            self.profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
            self.profiler.__enter__()

        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step == 2:
                self.profiler.__exit__(None, None, None)
                events = self.profiler.profiler.kineto_results.events()
                live = torch.tensor(
                    [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())
                     if e.name() == "[memory]"]
                )  # fmt: skip
                found.append(int(live.cumsum(0).max()))
                trainer.should_stop = True

    really = RetrievalCLI.instantiate_trainer

    def with_measured(self: Any, **kwargs: Any) -> pl.Trainer:
        trainer = really(self, **kwargs)
        trainer.callbacks.append(Measured())
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(RetrievalCLI, "instantiate_trainer", with_measured)
        steps = ("--trainer.max_epochs", "2", "--trainer.limit_val_batches", "0")
        assert main(["fit", *options, *steps]) == 0
    return found[0]


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        (("--model.accumulate_negatives", "1"), [6, 12]),
        (("--model.accumulate_negatives", "4"), [8, 16]),
        (("--model.scores.kind", "late", "--model.scores.block", "16"), [6, 12, 24]),
    ],
    ids=["plain", "accumulated", "scores"],
)
def test_a_part_of_the_batch_tells_the_peak(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: tuple, rows: list[int]
) -> None:
    options = [*SMALL, "--data.folder", str(folder), "--run.root", str(tmp_path), *WIDE, *given]
    memory = told(monkeypatch, *options)
    assert not list(tmp_path.iterdir())  # no run was begun
    assert [step.rows for step in memory.steps] == rows
    assert memory.gradients == pytest.approx(memory.optimiser / 2, rel=0.01)
    measured = most_allocated(monkeypatch, *options)
    assert memory.peak(48) - memory.fixed == pytest.approx(measured, rel=0.15)


def test_where_pairs_are_scored_a_small_batch_is_repeated(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until blocks of scores have their full size, so that a larger batch can be told from it."""
    options = [*SMALL, "--data.folder", str(folder), "--run.root", str(tmp_path), *WIDE]
    options += ["--model.scores.kind", "late", "--model.scores.block", "100"]
    memory = told(monkeypatch, *options, "--data.batch_size", "12")
    assert [step.rows for step in memory.steps] == [12, 15, 30, 60]
    measured = most_allocated(monkeypatch, *options)
    assert memory.peak(48) - memory.fixed == pytest.approx(measured, rel=0.15)


def test_losses_that_start_late_are_measured(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*SMALL, "--data.folder", str(folder), "--run.root", str(tmp_path)]
    options += ["--model.scores.kind", "late", "--model.scores.block", "16"]
    options += ["--model.fusion.layers", "1", "--model.fusion.width", "8"]
    options += ["--model.fusion.heads", "2"]
    late = told(monkeypatch, *options, "--model.fusion.start_epochs", "2")
    at_once = told(monkeypatch, *options, "--model.warmup_steps", "0")
    assert late.optimiser == at_once.optimiser
    assert late.peak(12) == at_once.peak(12)


def test_no_curve_falls_or_bends_down_beyond_the_steps() -> None:
    """As one through steps of which only the smallest keeps the products of its scores would."""
    bent = StepMemory(
        tuple(Step(n, 0, (s,), 0) for n, s in ((1, 10), (2, 40), (4, 50))), 0, 0, 0, 0
    )
    assert [bent.peak(n) for n in (4, 8, 16)] == [50, 70, 110]
    assert [bent.most(n) for n in (49, 50, 70)] == [3, 4, 8]
    fallen = StepMemory((Step(2, 0, (30,), 0), Step(4, 0, (20,), 0)), 0, 0, 0, 1.0)
    assert fallen.peak(101) - fallen.peak(100) == 1.0


def test_every_phase_has_its_own_curve() -> None:
    """The one that grows fastest is at the peak of large steps, if not of the measured ones."""
    steps = tuple(Step(n, n, (100 + n, n * n), 0, (2 * n + 20,)) for n in (2, 4, 8))
    memory = StepMemory(steps, 0, 0, 0, 0.0)
    assert [memory.peak(n) for n in (8, 10, 100)] == [108, 110, 10_000]
    assert memory.most(10_000) == 100


def test_the_largest_batch_that_fits_is_told(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["memory", *SMALL, "--data.folder", str(folder), "--fits", "64 MiB"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "a step of 12 on cpu" in out
    assert "64 MiB hold a batch of " in out
    assert main([*command, "--data.batch_size", "64"]) == 2
    assert (
        "data.batch_size: expected at most the 48 training pairs, got 64" in capsys.readouterr().err
    )


def test_batches_that_fit() -> None:
    """1 MiB whatever the batch, 1 KiB a pair and as much of the batch itself."""
    small, large = Step(2, 0, (2048,), 10 * MIB), Step(4, 0, (4096,), 10 * MIB)
    memory = StepMemory((small, large), MIB, 0, 0, 1024.0)
    assert memory.peak(4) == 11 * MIB + 4096
    assert memory.most(11 * MIB + 4096) == 4
    assert memory.most(11 * MIB) == 0  # the optimiser's step alone needs more
    assert memory.most(81 * MIB) == 40 * 1024
    assert memory.peak(40 * 1024) == 81 * MIB


def test_memory_is_said_in_units() -> None:
    assert bytes_said("24GB") == 24 * 10**9
    assert bytes_said(" 1.5 GiB") == 3 * 2**29
    assert bytes_said("1000") == 1000
    for wrong in ("much", "3 GX", "GB", "1.2.3 GB"):
        with pytest.raises(ConfigurationError, match="--fits: expected memory such as 24GB"):
            bytes_said(wrong)


def test_what_was_there_before_is_not_counted() -> None:
    before = torch.zeros(256)
    with Allocations() as counted:
        before.add_(1)
        view = before.view(16, 16).t()
        made = view.clone()
        again = made[0]
        assert counted.live == counted.peak == 1024
        del made
        assert counted.live == 1024  # a view holds it
        del again
        assert counted.live == 0
        assert counted.peak == 1024
