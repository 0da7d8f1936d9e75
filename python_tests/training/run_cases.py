"""Runs of the whole command in this process, small enough to compare bit for bit."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from goal_kernels.cli import main
from goal_kernels.training.checkpoints import load_checkpoint
from goal_kernels.training.lightning_module import RetrievalModule
from goal_kernels.training.run_folder import RunFolder

SMALL = (
    *("--seed_everything", "3", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "2"),
    *("--trainer.log_every_n_steps", "1", "--run.threads", "1", "--run.name", "run"),
    *("--data.batch_size", "12", "--model.embed_dim", "8", "--model.text.word_dim", "8"),
    *("--model.lr", "0.01", "--model.warmup_steps", "6", "--run.save_every_steps", "3"),
)
"""48 training pairs: 4 batches an epoch, 8 altogether."""
NOT_REPEATED = ("time/", "seconds")  # measured, so different in every run


class PowerCut(BaseException):
    """Ends a training as if the process were gone: nothing may be saved for it."""


def fit(folder: Path, root: Path, *options: str) -> int:
    """`goal-kernels fit` on a data folder, into `root/run`; returns the exit status."""
    threads = torch.get_num_threads()
    try:
        return main(
            ["fit", *SMALL, "--data.folder", str(folder), "--run.root", str(root), *options]
        )
    finally:
        torch.set_num_threads(threads)


def resume(run: RunFolder, *options: str) -> int:
    """`goal-kernels fit --resume`; returns the exit status."""
    return main(["fit", "--resume", str(run.path), *options])


@contextmanager
def before_training_step(act: Callable[[RetrievalModule], None]) -> Iterator[None]:
    """Run something at the beginning of every training step."""
    patch = pytest.MonkeyPatch()
    original = RetrievalModule.training_step

    def step(module: RetrievalModule, batch: Any, index: int) -> Tensor:
        act(module)
        return original(module, batch, index)

    patch.setattr(RetrievalModule, "training_step", step)
    try:
        yield
    finally:
        patch.undo()


def interrupted_fit(folder: Path, root: Path, batches: int, *options: str) -> RunFolder:
    """A run that dies in the training step after so many batches."""
    left = [batches]

    def count(_: RetrievalModule) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise PowerCut

    with before_training_step(count), pytest.raises(PowerCut):
        fit(folder, root, *options)
    return RunFolder(root / "run")


def rows(run: RunFolder) -> list[dict[str, str]]:
    """The rows of the log, without what is measured."""
    with run.history.open(newline="", encoding="utf-8") as lines:
        return [_repeated(row) for row in csv.DictReader(lines)]


def _repeated(record: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in record.items() if not str(k).startswith(NOT_REPEATED)}


def assert_equal_state(left: Any, right: Any, where: str = "checkpoint") -> None:
    """Nested records are equal, tensors bit by bit."""
    assert type(left) is type(right), where
    if isinstance(left, Tensor):
        assert torch.equal(left, right), where
    elif isinstance(left, dict):
        left, right = _repeated(left), _repeated(right)
        assert list(left) == list(right), where
        for name in left:
            assert_equal_state(left[name], right[name], f"{where}.{name}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), where
        for index, pair in enumerate(zip(left, right, strict=True)):
            assert_equal_state(*pair, f"{where}[{index}]")
    else:
        assert left == right, where


def assert_same_run(left: RunFolder, right: RunFolder) -> None:
    """Weights, optimiser, counters, randomness, logs, best checkpoint and metrics are equal."""
    for path in ("last", "best"):
        mine, other = (load_checkpoint(getattr(run, path)) for run in (left, right))
        for checkpoint in (mine, other):
            checkpoint["resume"] = {
                k: v for k, v in checkpoint.get("resume", {}).items() if k != "history"
            }
        assert_equal_state(mine, other, path)
    assert rows(left) == rows(right)
    assert left.pairs.read_text() == right.pairs.read_text()
    mine, other = (json.loads(run.metrics.read_text()) for run in (left, right))
    assert_equal_state(mine, other, "metrics")
