"""Where a result comes from: data set, processor, commit."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path
from typing import Any

from goal_kernels.training.environment import git_state, processor_name

PACKAGE = Path(__file__).resolve().parents[2]
COMMIT_DIGITS = 12


def describe_dataset(folder: Path) -> dict[str, Any]:
    """Name of a data folder, and the digest of the description of its files if it has one."""
    description = folder / "dataset.json"
    digest = None
    if description.is_file():
        digest = hashlib.sha256(description.read_bytes()).hexdigest()
    return {"name": folder.name, "description_sha256": digest}


def machine_name() -> str:
    """What the processor calls itself, and how many of them the machine has."""
    return f"{processor_name()}, {os.cpu_count()} processors"


@cache
def source_commit() -> str | None:
    """Commit of the package's checkout, with "+" when its files differ; None outside of one."""
    state = git_state(PACKAGE)
    return state["commit"][:COMMIT_DIGITS] + "+" * state["dirty"] if state else None
