"""Where what is logged goes: the CSV of the run, and what `run.loggers` names."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from goal_kernels.data.files import write_text
from goal_kernels.training.history import FIRST_COLUMNS, is_whole, read_rows
from goal_kernels.training.run_folder import RunFolder, read_record

TENSORBOARD = "tensorboard"
NAMES = (TENSORBOARD, "wandb", "trackio")
"""Each needs the package of its name, which is imported when it is asked for."""

PROJECT = "goal-kernels"  # unless WANDB_PROJECT or TRACKIO_PROJECT says another
SHOWN_DIGITS = 10  # of the digest in the id of a run


def check_loggers(names: Sequence[str]) -> None:
    """Raises: ValueError for a name that is not known, or whose package is not installed."""
    for name in names:
        if name not in NAMES:
            raise ValueError(f"run.loggers: expected some of {', '.join(NAMES)}, got {name!r}")
        if find_spec(name) is None:
            raise ValueError(
                f"run.loggers: {name} needs a package that is not installed: pip install {name}"
            )


def make_loggers(run: RunFolder, names: Sequence[str], step: int | None) -> list[Logger]:
    """The CSV that the report reads, then the loggers by name, from a step on.

    A run that is resumed goes on in the same run of Weights & Biases or Trackio.
    """
    makers = {
        TENSORBOARD: lambda: TensorBoardLogger(
            run.path, name=None, version="logs", purge_step=step
        ),
        "wandb": lambda: WandbLogger(
            name=run.path.name,
            id=_identity(run),
            save_dir=run.path,
            project=_project("WANDB_PROJECT"),
            resume="allow",
        ),
        "trackio": lambda: TrackioLogger(_identity(run), _project("TRACKIO_PROJECT")),
    }
    return [HistoryLogger(run.history), *(makers[name]() for name in dict.fromkeys(names))]


def _project(variable: str) -> str:
    """Named by the environment, as these packages themselves read it."""
    return os.environ.get(variable) or PROJECT


def _identity(run: RunFolder) -> str:
    """The name of the folder with a digest of where it is and when the run began."""
    began = read_record(run.environment).get("started") if run.environment.is_file() else None
    digest = hashlib.sha256(f"{run.path.resolve()} {began}".encode()).hexdigest()
    return f"{run.path.name}-{digest[:SHOWN_DIGITS]}"


class TrackioLogger(Logger):
    """Logs to a Trackio run, which is begun with the first values. Lightning has none of its own.

    Args:
        name: of the run; if there is one of that name, it is continued.
        project: its project.
    """

    def __init__(self, name: str, project: str) -> None:
        super().__init__()
        self._name, self.project = name, project
        self._config: dict[str, Any] = {}
        self._trackio: Any = None

    @property
    def name(self) -> str:
        """Of the project."""
        return self.project

    @property
    def version(self) -> str:
        """Of the run."""
        return self._name

    @rank_zero_only
    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        """Keep them, options by name, for the beginning of the run."""
        self._config.update(params)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log values at a step."""
        if self._trackio is None:
            self._trackio = import_module("trackio")
            self._trackio.init(
                project=self.project, name=self._name, config=self._config, resume="allow"
            )
        self._trackio.log(dict(metrics), step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run, however the training ended."""
        if self._trackio is not None:
            self._trackio.finish()
            self._trackio = None


class HistoryLogger(Logger):
    """Appends what is logged to a metrics CSV: one row for each step, with everything of that step.

    A row is written when a later step begins, so that the file never holds half of one. Columns
    stand in the order in which they were first logged; a new one rewrites the file. The state says
    how much of the file belongs to it: a run that is resumed from there drops what came later.
    Lightning's own CSV logger deletes the file it finds, which a resumed run must not.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.columns: list[str] = []
        self.rows = 0
        self.last_step = -1
        self._pending: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """Of the folder of the run."""
        return self.path.parent.name

    @property
    def version(self) -> str:
        """There is one history a run."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add values to the row of an optimiser step; steps come in ascending order."""
        step = step or 0
        if self._pending.get("step") != step:
            self.save()
            self._pending = {"step": step}
        self._pending.update(metrics)

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """The run folder has the configuration."""

    @rank_zero_only
    def save(self) -> None:
        """Write the row that is being collected, if there is one."""
        if not self._pending:
            return
        row, self._pending = self._pending, {}
        new = [name for name in (*FIRST_COLUMNS, *row) if name not in self.columns]
        if new:
            self.columns += dict.fromkeys(new)
            self._rewrite(self._kept_rows())
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n").writerow(row)
        self.rows += 1
        self.last_step = row["step"]

    def finalize(self, status: str) -> None:
        """Write out what is collected, however the training ended."""
        self.save()

    def _kept_rows(self) -> list[dict[str, str]]:
        """The rows of the file that belong to this history."""
        rows = (row for row in read_rows(self.path) if is_whole(row))
        return [row for row in rows if 0 <= _step(row) <= self.last_step]

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        """Replace the file by a header of the columns and these rows."""
        text = StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())

    def state_dict(self) -> dict[str, Any]:
        """Number of rows, step of the last one and the columns so far; plain values."""
        self.save()
        return {"rows": self.rows, "last_step": self.last_step, "columns": list(self.columns)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state: rows and columns that the file got later are dropped.

        Rows that are no longer there stay lost, which is said; logging continues.
        """
        self._pending = {}
        self.columns, self.last_step = list(state["columns"]), state["last_step"]
        kept = self._kept_rows()
        self.rows = len(kept)
        if self.rows != state["rows"]:
            print(
                f"{self.path}: has {self.rows:,} of the {state['rows']:,} rows logged up to step "
                f"{self.last_step:,}; the others are lost, curves will have a hole",
                flush=True,
            )
        if self.columns:
            self._rewrite(kept)


def _step(row: Mapping[str, str]) -> int:
    """The step of a row, -1 where it is none."""
    text = row.get("step") or ""
    return int(text) if text.isdecimal() else -1
