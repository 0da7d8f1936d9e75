"""`goal-kernels report`: the page of a finished run written again, with others beside it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from goal_kernels.extras import importing

DESCRIPTION = """\
Write report.html of a finished run again: with other runs beside it, or as this version writes it.

Its best checkpoint is evaluated again for the examples. With --beside come tables and curves of
other runs, and how far they were the same run: objectives after one warm-up, say.
"""

EPILOG = """\
Examples
  goal-kernels report runs/goalworld
  goal-kernels report runs/goalworld --beside runs/all_negatives --output page.html
"""


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options and the help of `report`."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    parser.add_argument(
        "--beside", nargs="+", type=Path, default=[], metavar="RUN", help="finished runs, up to 3"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="where to (default: report.html of the run)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")


def run_report(args: argparse.Namespace) -> int:
    """Write the page and say where; 0. Raises: FileNotFoundError, ValueError, CheckpointError."""
    with importing():
        import torch

        from goal_kernels.data.files import write_text
        from goal_kernels.evaluate.checkpoints import encode_split, open_run
        from goal_kernels.training.evaluation import evaluate, read_oracle
        from goal_kernels.training.outcome import CheckpointResult, Outcome
        from goal_kernels.training.report.beside import MOST_BESIDE, read_finished
        from goal_kernels.training.report.page import report_page
        from goal_kernels.training.run_folder import RunFolder
    if len(args.beside) > MOST_BESIDE:
        raise ValueError(f"--beside: expected at most {MOST_BESIDE} runs, got {len(args.beside)}")
    run = RunFolder(args.run)
    [finished] = read_finished([run])
    record = finished.record
    if record["selected"] is None:
        raise ValueError(f"{run.path}: expected a training, got an evaluation (goal-kernels test)")
    file = getattr(run, record["selected"])
    opened = open_run(file, {"test_split": record["split"]}, args.device)
    encoded = encode_split(opened)
    split = encoded.split
    groups = None if split.groups is None else torch.from_numpy(split.groups)
    checkpoints: dict[str, Any] = {
        name: CheckpointResult(found["epoch"], found["step"], found["dev_rsum"], found)
        for name in ("best", "last")
        if (found := record.get(name)) is not None
    }
    outcome = Outcome(
        evaluation=evaluate(
            encoded.image_embeddings,
            encoded.text_embeddings,
            torch.from_numpy(split.image_of_caption),
            encoded.pairs,
            groups,
            split.families,
        ),
        split=split,
        oracle=read_oracle(split),
        objective=opened.module.objective,
        seed=record["seed"],
        epochs=record["epochs"],
        seconds=record["seconds"],
        warmup_steps=record.get("warmup_steps", 0),
        checkpoints=checkpoints,
        selected=record["selected"],
        dev=opened.data.split(opened.data.dev_split),
        ridge=record.get("ridge"),
    )
    page = args.output or run.report
    write_text(page, report_page(outcome, run, [RunFolder(path) for path in args.beside]))
    print(f"report   {page}")
    return 0
