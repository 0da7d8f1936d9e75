"""The folder of one run: never shared with an older run, every file in it whole or absent."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Any

from goal_kernels.data.files import write_text

RECORDED_PACKAGES = (
    "goal-kernels",
    "torch",
    "numpy",
    "triton",
    "pytorch-lightning",
    "jsonargparse",
)


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
        """Versions, machine, seed, command line."""
        return self.path / "environment.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of `best.ckpt` and `last.ckpt`."""
        return self.path / "checkpoints"

    @property
    def history(self) -> Path:
        """Everything logged, as CSV."""
        return self.path / "logs" / "metrics.csv"

    @property
    def metrics(self) -> Path:
        """The final metrics."""
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


def describe_environment(seed: int, arguments: Sequence[str]) -> dict[str, Any]:
    """What a later reader needs to repeat the run: versions, machine, seed, command line."""
    return {
        "seed": seed,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": ["goal-kernels", *arguments],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "packages": {name: _version(name) for name in RECORDED_PACKAGES},
    }


def _version(package: str) -> str | None:
    """Installed version, or None: a source checkout on the path has no metadata."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
