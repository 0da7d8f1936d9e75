"""The end of a run: the test, metrics.json, report.html and a table on the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.table import Table

from goal_kernels.data.files import write_text
from goal_kernels.retrieval.metrics import DIRECTIONS, RECALLS
from goal_kernels.training.best_checkpoint import MONITORED
from goal_kernels.training.evaluation import Evaluation, describe_scoring, worse_reranked
from goal_kernels.training.history import read_history
from goal_kernels.training.lightning_module import RetrievalModule
from goal_kernels.training.outcome import CheckpointResult, Outcome
from goal_kernels.training.report.page import report_page
from goal_kernels.training.run_folder import RunFolder, write_json


def print_outcome(outcome: Outcome) -> None:
    """Print the metrics beside chance and, where they are known, ridge regression and oracle."""
    table = Table(title=f"{outcome.where}: recall in percent")
    columns = {
        "": None,
        **(outcome.evaluation.rankings or {outcome.objective.name: outcome.evaluation.metrics}),
        "chance": outcome.evaluation.chance,
        "ridge": outcome.ridge,
        "oracle": outcome.oracle,
    }
    shown = [metrics for metrics in columns.values() if metrics is not None]
    for name, metrics in columns.items():
        if metrics is not None or not name:
            table.add_column(name, justify="right" if name else "left")
    for direction in DIRECTIONS:
        for recall in RECALLS:
            cells = [f"{metrics[direction][recall]:.1f}" for metrics in shown]
            table.add_row(f"{direction} {recall}", *cells)
    table.add_row("rsum", *(f"{metrics['rsum']:.1f}" for metrics in shown))
    siblings = outcome.evaluation.siblings.values()  # in the order of the columns
    for direction in DIRECTIONS if siblings else ():
        cells = [f"{recalls[direction]:.1f}" for recalls in siblings]
        table.add_row(f"{direction} R@1 among siblings", *cells)
    Console().print(table)
    scoring = outcome.evaluation.scoring
    if scoring:
        print(describe_scoring(scoring))
        if message := worse_reranked(outcome.evaluation.rankings):
            print(f"WARNING: {message}", file=sys.stderr)


def finish_run(outcome: Outcome, run: RunFolder) -> None:
    """Write `metrics.json` and `report.html` into the run folder and say where they are."""
    write_text(run.report, report_page(outcome, run))
    write_json(run.metrics, outcome.record())  # last: a run that has its metrics is finished
    print_outcome(outcome)
    last = outcome.checkpoints.get("last")
    if outcome.selected == "best" and last is not None:
        best = outcome.checkpoints["best"]
        print(
            f"above: the best checkpoint on dev (epoch {best.epoch}, step {best.step:,}); the last "
            f"(epoch {last.epoch}, step {last.step:,}) has rsum {last.metrics['rsum']:.1f}"
        )
    print(f"metrics  {run.metrics}\nreport   {run.report}")


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
