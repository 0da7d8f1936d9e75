"""The numbers a run logs: a CSV with one row a step, written as it goes and read back."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from goal_kernels.data.files import write_text

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
            if not _is_whole(row):
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


class HistoryWriter:
    """Appends to a metrics CSV: one row for each step, with everything logged at that step.

    A row is written when a later step begins, so that the file never holds half of one. Columns
    stand in the order in which they were first logged; a new one rewrites the file. The state says
    how much of the file belongs to it: a run that is resumed from there drops what came later.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] = []
        self.rows = 0
        self.last_step = -1
        self._pending: dict[str, Any] = {}

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Log values at an optimiser step; steps come in ascending order."""
        if self._pending.get("step") != step:
            self.flush()
            self._pending = {"step": step}
        self._pending.update(values)

    def flush(self) -> None:
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

    def _kept_rows(self) -> list[dict[str, str]]:
        """The rows of the file that belong to this history."""
        rows = (row for row in read_rows(self.path) if _is_whole(row))
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
        self.flush()
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


def _is_whole(row: Mapping[Any, Any]) -> bool:
    """Whether a row has a cell for each column and no more, as csv says it: by None."""
    return None not in row and None not in row.values()


def _step(row: Mapping[str, str]) -> int:
    """The step of a row, -1 where it is none."""
    text = row.get("step") or ""
    return int(text) if text.isdecimal() else -1
