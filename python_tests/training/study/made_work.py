"""Work that other processes can do: it leaves a file, or fails."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Leave:
    """Writes the number of its process to `path`, after `after` is there."""

    path: Path
    after: Path | None = None

    @property
    def name(self) -> str:
        return self.path.name

    def run(self) -> str:
        while self.after is not None and not self.after.is_file():
            time.sleep(0.01)
        self.path.write_text(str(os.getpid()))
        return "left"


@dataclass(frozen=True)
class Fail:
    """Raises."""

    name: str

    def run(self) -> str:
        raise ValueError("cannot be done")
