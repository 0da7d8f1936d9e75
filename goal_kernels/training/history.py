"""The numbers a run logged, read back from its CSV log."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

Point = tuple[float, float]


@dataclass(frozen=True)
class History:
    """Logged values by name: lists of (optimiser step, value), in order of the steps."""

    values: dict[str, list[Point]]

    def by_step(self, name: str) -> list[Point]:
        """(step, value) of one logged name; [] if it was never logged."""
        return self.values.get(name, [])

    def by_epoch(self, name: str) -> list[Point]:
        """(epoch counted from 1, value) of a name that is logged once an epoch."""
        return [(float(i), value) for i, (_, value) in enumerate(self.by_step(name), start=1)]


def read_history(path: Path) -> History:
    """Read a metrics CSV with a `step` column and one column for each logged name.

    Cells that are empty are skipped; a missing file is an empty history (an evaluation logs none).
    """
    values: dict[str, list[Point]] = {}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                step = float(row["step"])
                for name, text in row.items():
                    if text and name not in ("step", "epoch"):
                        values.setdefault(name, []).append((step, float(text)))
    return History(values)
