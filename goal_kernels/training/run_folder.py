"""The folder of one run: never shared with an older run, every file in it whole or absent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from goal_kernels.data.files import write_text


@dataclass(frozen=True)
class RunFolder:
    """Paths inside the folder of a run."""

    path: Path

    @property
    def config(self) -> Path:
        """The whole configuration, as resolved."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions, machine, code, seed, command lines."""
        return self.path / "environment.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """Weights with the highest rsum on the dev split."""
        return self.checkpoints / "best.ckpt"

    @property
    def last(self) -> Path:
        """The newest resume point: weights and everything else that goes on from there."""
        return self.checkpoints / "last.ckpt"

    @property
    def previous(self) -> Path:
        """The resume point before the newest."""
        return self.checkpoints / "previous.ckpt"

    @property
    def history(self) -> Path:
        """Everything logged, as CSV."""
        return self.path / "metrics.csv"

    @property
    def metrics(self) -> Path:
        """The final metrics; a run that has them is finished."""
        return self.path / "metrics.json"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"


def create_run_folder(root: Path, name: str) -> RunFolder:
    """Make `root/name`, or `root/name-2`, `root/name-3`, ... when runs of that name exist.

    Raises: ValueError when the name is empty or holds a path separator.
    """
    if Path(name).name != name or name in ("", ".."):
        raise ValueError(
            f"run.name: expected a plain folder name, got {name!r}; use run.root for the place"
        )
    for number in count(1):
        path = root / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return RunFolder(path)
    raise AssertionError("unreachable: itertools.count never ends")


def write_json(path: Path, record: Any) -> None:
    """Write a record as indented JSON, atomically; NaN and infinities are refused."""
    write_text(path, json.dumps(record, indent=2, allow_nan=False) + "\n")
