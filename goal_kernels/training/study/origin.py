"""Where a result comes from: data set, processor, commit."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")
PACKAGE = Path(__file__).resolve().parents[2]


def describe_dataset(folder: Path) -> dict[str, Any]:
    """Name of a data folder, and the digest of the description of its files if it has one."""
    description = folder / "dataset.json"
    digest = None
    if description.is_file():
        digest = hashlib.sha256(description.read_bytes()).hexdigest()
    return {"name": folder.name, "description_sha256": digest}


def processor_name() -> str:
    """What the processor calls itself, and how many of them the machine has."""
    text = CPUINFO.read_text(encoding="utf-8") if CPUINFO.is_file() else ""
    found = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    name = found.group(1).strip() if found else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} processors"


@cache
def source_commit() -> str | None:
    """Commit of the package's checkout, with "+" when its files differ; None outside of one."""
    head = _git("rev-parse", "--short=12", "HEAD")
    if not head:
        return None
    return head + ("+" if _git("status", "--porcelain", "--untracked-files=no", ".") else "")


def _git(*arguments: str) -> str:
    """What a git command about the package prints; "" without git or a repository."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(PACKAGE), *arguments], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
