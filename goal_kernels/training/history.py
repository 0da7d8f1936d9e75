"""The numbers a run logs, read back from its CSV with one row a step; see `HistoryLogger`."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Point = tuple[float, float]
FIRST_COLUMNS = ("step", "epoch")
PAIRS_PER_SECOND = "time/pairs_per_second"
DATA_WAIT = "time/data_wait_fraction"  # of the training time, batches were waited for


@dataclass(frozen=True)
class History:
    """Logged values by name: lists of (optimiser step, value), in order of the steps."""

    values: dict[str, list[Point]]

    def names(self, prefix: str) -> list[str]:
        """What was logged under names that begin so, in order of first appearance."""
        return [name for name in self.values if name.startswith(prefix)]

    def by_step(self, name: str) -> list[Point]:
        """(step, value) of one logged name; [] if it was never logged."""
        return self.values.get(name, [])

    def by_epoch(self, name: str) -> list[Point]:
        """(epoch counted from 1, value) of a name that is logged once an epoch."""
        return [(float(i), value) for i, (_, value) in enumerate(self.by_step(name), start=1)]


def read_history(path: Path) -> History:
    """Read a metrics CSV with a `step` column and one column for each logged name.

    Cells that are empty are skipped; a missing file is an empty history (an evaluation logs none).
    Rows that hold anything else than numbers are left out, and a warning counts them.
    """
    values: dict[str, list[Point]] = {}
    rows = read_rows(path)
    damaged = 0
    for row in rows:
        try:
            if not is_whole(row):
                raise ValueError("another number of cells than columns")
            numbers = {name: float(text) for name, text in row.items() if text}
            step = numbers["step"]
        except (KeyError, TypeError, ValueError):
            damaged += 1
            continue
        for name, number in numbers.items():
            if name not in FIRST_COLUMNS:
                values.setdefault(name, []).append((step, number))
    if damaged:
        warnings.warn(f"{path}: left out {damaged} of {len(rows)} rows, damaged", stacklevel=2)
    return History(values)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics CSV as text by column; none where there is no such file.

    A last line without its end is left out: its last number may be a part of what was written.
    """
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as lines:
        whole = (line.replace("\0", "") for line in lines if line.endswith("\n"))
        return list(csv.DictReader(whole))


def is_whole(row: Mapping[Any, Any]) -> bool:
    """Whether a row has a cell for each column and no more, as csv says it: by None."""
    return None not in row and None not in row.values()
