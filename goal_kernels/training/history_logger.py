"""The Lightning side of the metrics CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from goal_kernels.training.history import HistoryWriter


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
