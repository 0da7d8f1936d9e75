"""The message and the record of an unexpected error on the command line."""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

PRINT_TRACEBACK = "GOAL_KERNELS_TRACEBACK"
PACKAGES = ("goal-kernels", "torch", "numpy", "triton", "pytorch-lightning")

_IN_A_WORKER = re.compile(r"Caught (\w+) in DataLoader worker.*\n(?:[\w.]+\.)?\1: (.*)", re.DOTALL)


def reason_of(error: Exception) -> str:
    """The message of an error; of one from a loader process without torch's traceback around it."""
    found = _IN_A_WORKER.match(str(error))
    return found[2].strip() if found else str(error)


def explain(arguments: Sequence[str], error: Exception) -> str:
    """One sentence: what was being done, the error, where its traceback is.

    A file is written that holds all that a report needs, since what failed may have taken hours.
    """
    command = shlex.join(["goal-kernels", *arguments])
    reason = " ".join(reason_of(error).split()) or "without a message"
    record = "\n".join([command, _versions(), "", "".join(traceback.format_exception(error))])
    sentence = f"`{command}` failed, {type(error).__name__}: {reason}"
    if os.environ.get(PRINT_TRACEBACK):
        print(record, file=sys.stderr)
        return f"{sentence}; above are its traceback and versions, which a report of it should have"
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", prefix="goal-kernels-", suffix=".txt", delete=False
        ) as file:
            file.write(record)
    except OSError:
        return f"{sentence}; {PRINT_TRACEBACK}=1 prints its traceback and versions, for a report"
    return (
        f"{sentence}; {file.name} has its traceback and versions, which a report of it should have "
        f"({PRINT_TRACEBACK}=1 prints them)"
    )


def _versions() -> str:
    """Versions of what may be to blame."""
    found = [f"Python {platform.python_version()}, {platform.platform()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed")
    return ", ".join(found)
