"""Results of query blocks on disk, so that work that was stopped goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goal_kernels.data.arrays import read_archive
from goal_kernels.data.files import read_json, replacing, write_text
from goal_kernels.dataset_mining.inputs import Search, blocks

FIELDS = ("scores", "indices", "counts")
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Parts:
    """The folder of parts. block: queries in each."""

    folder: Path
    block: int

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
                f"{self.folder}: expected parts of this search, found those of another: "
                f"{', '.join(differing)} differ ({key} was {before.get(key)}, is {manifest[key]}); "
                "give the inputs and options it was begun with, or delete the folder"
            )

    def path(self, search: Search, part: slice) -> Path:
        return self.folder / f"{search.name or 'rows'}-{part.start:012d}.npz"

    def missing(self, search: Search) -> list[slice]:
        """The blocks of queries that are yet to be searched."""
        every = blocks(len(search.queries), self.block)
        return [part for part in every if not self.path(search, part).is_file()]

    def write(self, search: Search, part: slice, found: dict[str, NDArray]) -> None:
        """Keep one block, whole or not at all."""
        with replacing(self.path(search, part)) as temporary, temporary.open("wb") as stream:
            np.savez(
                stream, scores=found["scores"], indices=found["indices"], counts=found["counts"]
            )

    def read(self, search: Search) -> Iterator[tuple[slice, dict[str, NDArray]]]:
        """All blocks in order. Raises: ValueError for one that is damaged."""
        for part in blocks(len(search.queries), self.block):
            found = read_archive(self.path(search, part))
            rows = part.stop - part.start
            if set(found) != set(FIELDS) or any(len(found[name]) != rows for name in FIELDS):
                raise ValueError(
                    f"{self.path(search, part)}: expected {', '.join(FIELDS)} of {rows:,} rows; "
                    "delete this file and run the command again"
                )
            yield part, dict(found)

    def remove(self) -> None:
        shutil.rmtree(self.folder)
