"""Results of query blocks on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from numpy.typing import NDArray

from goal_kernels.data.arrays import read_archive
from goal_kernels.data.part_folder import PartFolder
from goal_kernels.dataset_mining.inputs import Search
from goal_kernels.pairs import cut

FIELDS = ("scores", "indices", "counts")


@dataclass(frozen=True)
class Parts(PartFolder):
    """The folder of parts. block: queries in each."""

    block: int

    def path(self, search: Search, part: slice) -> Path:
        return self.part(part.start, search.name or "rows")

    def missing(self, search: Search) -> list[slice]:
        """The blocks of queries that are yet to be searched."""
        every = cut(len(search.queries), self.block)
        return [part for part in every if not self.path(search, part).is_file()]

    def write(self, search: Search, part: slice, found: dict[str, NDArray]) -> None:
        """Keep one block, whole or not at all."""
        self.keep(self.path(search, part), **{name: found[name] for name in FIELDS})

    def read(self, search: Search) -> Iterator[tuple[slice, dict[str, NDArray]]]:
        """All blocks in order. Raises: ValueError for one that is damaged."""
        for part in cut(len(search.queries), self.block):
            found = read_archive(self.path(search, part))
            rows = part.stop - part.start
            if set(found) != set(FIELDS) or any(len(found[name]) != rows for name in FIELDS):
                raise ValueError(
                    f"{self.path(search, part)}: expected {', '.join(FIELDS)} of {rows:,} rows; "
                    "delete this file and run the command again"
                )
            yield part, dict(found)
