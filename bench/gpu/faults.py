"""Jobs that go wrong on purpose, so that a dry run proves what a broken kernel costs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import torch

FAULTS = ("hang", "crash", "error", "memory")


def misbehave(tell: Callable[[str], None], names: list[str]) -> dict[str, Any]:
    """Go wrong in turn as each name says; a name that is no fault goes well."""
    for name in names:
        tell(name)
        if name == "hang":
            time.sleep(3600)
        if name == "crash":
            os.abort()
        if name == "error":
            raise RuntimeError("an error on purpose")
        if name == "memory":
            raise torch.OutOfMemoryError("out of memory on purpose")
    return {"passed": names}
