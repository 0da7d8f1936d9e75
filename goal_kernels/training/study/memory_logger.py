"""A Lightning logger that keeps what a run logs in memory."""

from __future__ import annotations

from typing import Any

from pytorch_lightning.loggers import Logger

Columns = dict[str, list[list[float]]]
"""By logged name: its optimiser steps and its values, two lists of equal length."""


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
