"""The test after a training: of the weights it ended with, and of the best on dev."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from goal_kernels.training.best_checkpoint import MONITORED
from goal_kernels.training.evaluation import Evaluation
from goal_kernels.training.history import read_history
from goal_kernels.training.lightning_module import RetrievalModule
from goal_kernels.training.outcome import CheckpointResult
from goal_kernels.training.run_folder import RunFolder


def test_last_and_best(
    trainer: pl.Trainer,
    model: RetrievalModule,
    data: pl.LightningDataModule,
    run: RunFolder,
    best: dict[str, Any] | None,
) -> tuple[Evaluation, dict[str, CheckpointResult]]:
    """Evaluate both on the test split.

    Args:
        trainer: as the training left it.
        model: with the weights the training ended with; it then has the best ones.
        data: of the run.
        run: its folder.
        best: record of the best checkpoint, see `BestCheckpoint`; None when none was saved.
    Returns: the evaluation of the best checkpoint, of the last one where there is no best; and
        the results as "last" and "best".
    """
    epoch, step = trainer.current_epoch, trainer.global_step
    trainer.loggers = []  # what a test finds goes into metrics.json
    evaluation = _test(trainer, model, data)
    results = {"last": CheckpointResult(epoch, step, _dev_rsum(run, step), evaluation.metrics)}
    if best is not None:
        if best["step"] != step:
            evaluation = _test(trainer, model, data, run.best)
        results["best"] = CheckpointResult(
            best["epoch"], best["step"], best["rsum"], evaluation.metrics
        )
    return evaluation, results


def _test(
    trainer: pl.Trainer,
    model: RetrievalModule,
    data: pl.LightningDataModule,
    checkpoint: Path | None = None,
) -> Evaluation:
    """Evaluate the weights of the model, or those of a checkpoint."""
    trainer.test(model, datamodule=data, ckpt_path=checkpoint, verbose=False)
    assert model.evaluation is not None
    return model.evaluation


def _dev_rsum(run: RunFolder, step: int) -> float | None:
    """The rsum that was logged after the last step, None when that was not validated."""
    logged = read_history(run.history).by_step(MONITORED)
    return logged[-1][1] if logged and logged[-1][0] == step - 1 else None
