"""Where what is logged goes: the CSV of the run, and what `run.loggers` names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from goal_kernels.training.history import HistoryWriter
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
    """Writes everything that is logged to one CSV, through a `HistoryWriter`.

    Lightning's own CSV logger deletes the file it finds, which a resumed run must not.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.writer = HistoryWriter(path)

    @property
    def name(self) -> str:
        """Of the folder of the run."""
        return self.writer.path.parent.name

    @property
    def version(self) -> str:
        """There is one history a run."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add values to the row of a step."""
        self.writer.add(step or 0, metrics)

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """The run folder has the configuration."""

    @rank_zero_only
    def save(self) -> None:
        """Write out what is collected."""
        self.writer.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write out what is collected, however the training ended."""
        self.writer.flush()
