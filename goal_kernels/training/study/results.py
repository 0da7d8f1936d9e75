"""The result file of a cell: JSON lines, written when the cell is finished, whole or not at all.

The first line says what was run and where, one line a logged name holds what training logged, the
last line holds the test metrics.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from goal_kernels.data.files import read_lines, write_text
from goal_kernels.recipes import flat
from goal_kernels.training.environment import describe_environment, git_state, processor_name
from goal_kernels.training.history import History
from goal_kernels.training.study.recipe import Cell, canonical

if TYPE_CHECKING:
    from goal_kernels.training.study.training import Trained  # which needs Lightning

FORMAT = 1  # of the file; another number is refused
PACKAGE = Path(__file__).resolve().parents[2]
COMMIT_DIGITS = 12


@dataclass(frozen=True)
class CellResult:
    """A finished cell as read back.

    Attributes:
        path: its file.
        header: format, study, group, label, seed, config, dataset, environment.
        history: logged numbers by name, over optimiser steps.
        result: split, metrics, chance, oracle, steps, seconds, cpu_seconds, weights_sha256;
            `mined` of `mined_truth` where that is known; `ridge` of `ridge_metrics` where
            `run.ridge` asks for it; `rankings` and `siblings` of the `Evaluation` where it has
            them.
    """

    path: Path
    header: dict[str, Any]
    history: History
    result: dict[str, Any]


def result_path(folder: Path, cell: Cell) -> Path:
    """The file of a cell in the results folder of its study."""
    return folder / f"{cell.name}.jsonl"


def write_result(path: Path, study: str, cell: Cell, trained: Trained) -> None:
    """Write the file of a finished cell."""
    folder, digest = Path(cell.config["data"]["folder"]), None
    if (description := folder / "dataset.json").is_file():
        digest = hashlib.sha256(description.read_bytes()).hexdigest()
    header = {
        "kind": "cell",
        "format": FORMAT,
        "study": study,
        "group": cell.group,
        "label": cell.label,
        "seed": cell.seed,
        "config": dict(cell.config),
        "dataset": {"name": folder.name, "description_sha256": digest},
        "environment": {
            **describe_environment(cell.seed, ["study", "--config", study]),
            "processor": f"{processor_name()}, {os.cpu_count()} processors",
            "commit": source_commit(),
        },
    }
    history = [
        {"kind": "history", "name": name, "steps": steps, "values": values}
        for name, (steps, values) in sorted(trained.history.items())
    ]
    result = {"kind": "result", **trained.result}
    lines = [json.dumps(record, allow_nan=False) for record in (header, *history, result)]
    write_text(path, "\n".join(lines) + "\n")


def read_result(path: Path) -> CellResult:
    """Read a cell's file.

    Raises: ValueError when it is not a whole one of this format.
    """
    try:
        records = [json.loads(line) for line in read_lines(path)]
        header, *middle, result = records
        if (header["kind"], header["format"], result["kind"]) != ("cell", FORMAT, "result"):
            raise ValueError(f"found format {header['format']}")
        history = {
            record["name"]: list(zip(record["steps"], record["values"], strict=True))
            for record in middle
        }
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path}: expected the result of a study's cell (format {FORMAT}), got something else "
            f"({error}); move it elsewhere, and if a study wrote it, run that again"
        ) from error
    return CellResult(path, header, History(history), result)


def is_finished(folder: Path, cell: Cell) -> bool:
    """Whether the cell's file is there.

    Raises: ValueError when it is, but comes from another configuration: the two never mix.
    """
    path = result_path(folder, cell)
    if not path.is_file():
        return False
    recorded = read_result(path).header["config"]
    if canonical(recorded) != canonical(cell.config):
        one, other = flat(recorded), flat(cell.config)
        differing = {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}
        changed = ", ".join(sorted(differing))
        raise ValueError(
            f"{path}: expected a result of this study, got one made with another value of "
            f"{changed}; give another --folder, or delete the results"
        )
    return True


@cache
def source_commit() -> str | None:
    """Commit of the package's checkout, with "+" when its files differ; None outside of one."""
    state = git_state(PACKAGE)
    return state["commit"][:COMMIT_DIGITS] + "+" * state["dirty"] if state else None
