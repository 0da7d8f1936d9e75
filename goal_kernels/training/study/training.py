"""Trains one cell with the module, data and trainer of `fit`, from a shared warm-up or scratch."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger

from goal_kernels.data.files import replacing, write_text
from goal_kernels.training.data_module import RetrievalDataModule
from goal_kernels.training.evaluation import read_oracle
from goal_kernels.training.lightning_module import RetrievalModule
from goal_kernels.training.lightning_options import TRAINER_DEFAULTS
from goal_kernels.training.ridge import ridge_metrics
from goal_kernels.training.study.mined import mined_truth
from goal_kernels.training.study.recipe import Cell

OF_THE_OBJECTIVE = (
    "mining/active_fraction",
    "mining/mean_absolute_gap",
    "mining/mean_hardest_negative",
    "mining/skipped_negatives",
)
"""Logged names that, in the warm-up too, depend on the objective and the negatives chosen later."""
Columns = dict[str, list[list[float]]]
"""By logged name: its optimiser steps and its values, two lists of equal length."""


class Warmup(NamedTuple):
    """A trained warm-up on disk: a full checkpoint, and what it logged."""

    checkpoint: Path
    history: Path

    @property
    def complete(self) -> bool:
        """The checkpoint is written last, whole or not at all."""
        return self.checkpoint.is_file()


class Trained(NamedTuple):
    """What a cell's training logged, and the `result` of its `results.CellResult`."""

    history: Columns
    result: dict[str, Any]


class _StopAt(pl.Callback):
    """Saves the whole state when `steps` are done at the end of an epoch, and ends the run."""

    def __init__(self, steps: int, path: Path) -> None:
        self.steps, self.path = steps, path
        self.reached = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == self.steps:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = self.reached = True


def build_data(cell: Cell) -> RetrievalDataModule:
    """The data of a cell. Raises: ValueError when its configuration has an unknown entry."""
    _check_section(cell, "data", RetrievalDataModule)
    return RetrievalDataModule(**cell.config["data"], seed=cell.seed)


def build_module(cell: Cell, data: RetrievalDataModule) -> RetrievalModule:
    """The module of a cell, seeded as `fit` does: equal seeds give equal weights.

    Raises: ValueError when the configuration has an unknown entry.
    """
    _check_section(cell, "model", RetrievalModule)
    pl.seed_everything(cell.seed, workers=True, verbose=False)
    return RetrievalModule(data.sizes, **cell.config["model"], seed=cell.seed)


def _check_section(cell: Cell, section: str, owner: type) -> None:
    known = [name for name in signature(owner).parameters if name not in ("seed", "sizes")]
    for name in cell.config.get(section, {}):
        if name not in known:
            raise ValueError(
                f"{section}.{name}: expected one of {', '.join(known)}; check the name"
            )


def steps_per_epoch(cell: Cell) -> int:
    """Optimiser steps of an epoch, which `limit_train_batches` may cut short."""
    trainer = cell.config["trainer"]
    batches = len(build_data(cell).train_dataloader())
    limit = trainer.get("limit_train_batches", 1.0)
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    return batches // int(trainer.get("accumulate_grad_batches", 1))


def can_branch(cell: Cell) -> bool:
    """Whether training on from a checkpoint is the same as training from the start.

    Lightning 2.6 resumed at the end of an epoch counts that epoch twice when `max_steps` is set,
    and so trains less than it should.
    """
    return cell.config["trainer"].get("max_steps", -1) == -1


def train_warmup(cell: Cell, warmup: Warmup) -> None:
    """Train the warm-up of a cell and save everything that training on from it needs.

    Raises: ValueError when the warm-up does not end with an epoch.
    """
    data = build_data(cell)
    module = build_module(cell, data)
    logger = MemoryLogger()
    with replacing(warmup.checkpoint) as partial:
        stop = _StopAt(cell.warmup_steps, partial)
        with _threads(cell):
            _trainer(cell, logger, stop).fit(module, datamodule=data)
        if not stop.reached:
            raise ValueError(
                f"model.warmup_steps: expected a number of steps at which an epoch ends, got "
                f"{cell.warmup_steps}; only then can cells share a warm-up"
            )
        common = {k: v for k, v in logger.columns.items() if k not in OF_THE_OBJECTIVE}
        write_text(warmup.history, json.dumps(common) + "\n")


def train_cell(cell: Cell, warmup: Warmup | None) -> Trained:
    """Train a cell to its end and test its last weights.

    Args:
        cell: what to train.
        warmup: of `train_warmup`, to go on from; the whole run is trained when None.
    """
    started, cpu_started = time.monotonic(), time.process_time()
    data = build_data(cell)
    module = build_module(cell, data)
    before = None if warmup is None else json.loads(warmup.history.read_text(encoding="utf-8"))
    logger = MemoryLogger(before)
    trainer = _trainer(cell, logger)
    with _threads(cell):
        trainer.fit(
            module,
            datamodule=data,
            ckpt_path=None if warmup is None else str(warmup.checkpoint),
            weights_only=True,
        )
        steps = trainer.global_step
        if steps != trainer.estimated_stepping_batches:
            raise RuntimeError(
                f"expected to train {trainer.estimated_stepping_batches} steps, trained {steps}"
            )
        history = dict(logger.columns)  # without what the test is about to log
        trainer.test(module, datamodule=data, verbose=False)
        mined = mined_truth(module, data)
    evaluation = module.evaluation
    assert evaluation is not None  # `test` has just made it
    result = {
        "split": data.test_split,
        "metrics": evaluation.metrics,
        "chance": evaluation.chance,
        "oracle": read_oracle(data.split(data.test_split)),
        "steps": steps,
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu_started, 1),
        "weights_sha256": weights_digest(module.model.state_dict()),
    }
    known = {
        "mined": mined,
        "ridge": ridge_metrics(data) if cell.config.get("run", {}).get("ridge") else None,
        "rankings": evaluation.rankings,
        "siblings": evaluation.siblings,
    }
    return Trained(history, result | {name: found for name, found in known.items() if found})


def weights_digest(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 over names and bytes of all weights: equal for models equal bit for bit."""
    digest = hashlib.sha256()
    for name, weight in sorted(state.items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _trainer(cell: Cell, logger: MemoryLogger, *callbacks: pl.Callback) -> pl.Trainer:
    """The trainer of `fit`, silent and without files of its own."""
    options = {
        **TRAINER_DEFAULTS,
        **cell.config.get("trainer", {}),
        "logger": logger,
        "callbacks": list(callbacks),
        "enable_checkpointing": False,
        "enable_progress_bar": False,
    }
    return pl.Trainer(**options)


@contextmanager
def _threads(cell: Cell) -> Iterator[None]:
    """The cell's number of CPU threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(cell.config.get("run", {}).get("threads") or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class MemoryLogger(Logger):
    """Collects logged numbers.

    Args:
        columns: what earlier parts of the run logged; it is continued, not modified.
    """

    def __init__(self, columns: Columns | None = None) -> None:
        super().__init__()
        self.columns: Columns = {
            name: [list(steps), list(values)] for name, (steps, values) in (columns or {}).items()
        }

    @property
    def name(self) -> str:
        """Part of paths that are never made."""
        return "study"

    @property
    def version(self) -> str:
        """Part of paths that are never made."""
        return "0"

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Hyper-parameters are recorded with the cell."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append each number under its name; the epoch follows from the step."""
        for name, value in metrics.items():
            if name != "epoch" and step is not None:
                steps, values = self.columns.setdefault(name, [[], []])
                steps.append(step)
                values.append(float(f"{value:.6g}"))  # what a page can show, in a small file
