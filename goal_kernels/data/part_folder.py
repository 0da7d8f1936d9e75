"""A folder of results by parts, so that work that was stopped goes on."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goal_kernels.data.files import read_json, replacing, write_text

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class PartFolder:
    """Parts of one result, each a file that is written whole or not at all."""

    folder: Path

    def begin(self, manifest: dict[str, Any]) -> None:
        """Start, or go on where the same work was stopped.

        Raises: ValueError naming what differs from the work that the folder holds.
        """
        path = self.folder / MANIFEST
        if not path.is_file():
            write_text(path, json.dumps(manifest, indent=2) + "\n")
            return
        before = read_json(path)
        differing = [key for key in manifest if before.get(key) != manifest[key]]
        if differing:
            key = differing[0]
            raise ValueError(
                f"{self.folder}: expected parts of this work, found those of another: "
                f"{', '.join(differing)} differ ({key} was {before.get(key)}, is {manifest[key]}); "
                "give the inputs and options it was begun with, or delete the folder"
            )

    def part(self, start: int, name: str = "rows") -> Path:
        """The archive of the part that begins with row `start`."""
        return self.folder / f"{name}-{start:012d}.npz"

    def keep(self, path: Path, **arrays: NDArray[Any]) -> None:
        """Write a part."""
        with replacing(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]  # allow_pickle is no name of ours

    def remove(self) -> None:
        """Delete the folder, when the result is written."""
        shutil.rmtree(self.folder)
