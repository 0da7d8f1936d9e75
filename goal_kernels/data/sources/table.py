"""A folder of images with a CSV or TSV of captions."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from goal_kernels.data.files import read_lines
from goal_kernels.data.sources.base import DEV_NAMES
from goal_kernels.data.sources.pictures import (
    ImageRecord,
    PictureSource,
    cut_captions,
    group_by_image,
)
from goal_kernels.data.sources.text_files import first_line, one_of

SUFFIXES = (".csv", ".tsv", ".txt")
DELIMITERS = ",\t;|"
NEEDED = ("image", "caption")
# Headers in use, open_clip's and the Flickr tables on the web among them; compared in lower case.
KNOWN_HEADERS = {
    "image": ("image", "image_name", "image_path", "file", "filename", "file_name", "filepath"),
    "caption": ("caption", "comment", "text", "title", "description", "sentence"),
    "split": ("split", "set", "partition"),
    "image_id": ("image_id", "cocoid", "imgid"),
}


class TableSource(PictureSource):
    """A header and a row for each caption: columns image, caption, optionally split and image_id.

    Without a split column an image goes to a split by a hash of (seed, its name), so that adding
    images never moves another one: see `split_by_hash`.
    """

    format = "table"
    summary = "a CSV or TSV with columns image, caption, optionally split, image_id; image files"
    takes = frozenset(
        {"image_root", "max_captions", "columns", "dev_share", "test_share", "split_seed"}
    )

    @classmethod
    def recognise(cls, path: Path) -> Path | None:
        """The table: a file, or the only one of a folder; ``.txt`` if it has the two columns."""
        if path.is_file():
            return path if path.suffix in SUFFIXES else None
        candidates = [p for p in sorted(path.iterdir()) if p.suffix in SUFFIXES]
        tables = [p for p in candidates if p.suffix != ".txt" or _dialect(p, {}) is not None]
        return one_of(path, tables)

    @cached_property
    def _read(self) -> tuple[dict[str, list[ImageRecord]], bool]:
        """Records by split, and whether the table says which split an image is in."""
        found = _dialect(self.path, self.options.columns)
        if found is None:
            header = first_line(self.path)
            raise ValueError(
                f"{self.path}: expected a header with columns for "
                f"{' and '.join({**dict.fromkeys(NEEDED), **self.options.columns})}, found "
                f"{header[:80]!r}; name them with columns (--data.columns.image NAME and so on)"
            )
        delimiter, columns = found
        rows = list(self._rows(delimiter, columns))
        records = group_by_image((record for record, _ in rows), self.path)
        cut_captions(records, self.options.max_captions or 0)
        splits = self._splits(rows, records, given="split" in columns)
        by_split: dict[str, list[ImageRecord]] = {}
        for record in records:
            by_split.setdefault(splits[record.name], []).append(record)
        return by_split, "split" in columns

    def _rows(self, delimiter: str, columns: dict[str, int]) -> Iterator[tuple[ImageRecord, str]]:
        """The image with one caption, and the split, of each row of the table."""
        lines = [f"{line}\n" for line in read_lines(self.path)]
        reader = csv.reader(lines, delimiter=delimiter)
        width = len(next(reader))
        for row in _well_formed(reader, self.path):
            if len(row) != width:
                raise ValueError(
                    f"{self.path}: line {reader.line_num}: expected {width} columns, found "
                    f"{len(row)}; put texts that hold {delimiter!r} in double quotes"
                )
            cells = {name: row[column].strip() for name, column in columns.items()}
            identifier = cells.get("image_id")
            if identifier is not None and not identifier.lstrip("-").isdecimal():
                raise ValueError(
                    f"{self.path}: line {reader.line_num}: expected an integer image_id, found "
                    f"{identifier!r}"
                )
            number = None if identifier is None else int(identifier)
            record = ImageRecord(cells["image"], [cells["caption"]], number)
            yield record, cells.get("split", "")

    def _splits(
        self,
        rows: Sequence[tuple[ImageRecord, str]],
        records: Sequence[ImageRecord],
        given: bool,
    ) -> dict[str, str]:
        """The split of each image, by name."""
        if not given:
            options = self.options
            return {
                record.name: split_by_hash(
                    record.name, options.split_seed, options.dev_share, options.test_share
                )
                for record in records
            }
        splits: dict[str, str] = {}
        for record, split in rows:
            if splits.setdefault(record.name, split) != split:
                raise ValueError(
                    f"{self.path}: image {record.name!r}: expected one split, found "
                    f"{splits[record.name]!r} and {split!r}"
                )
        return {name: "dev" if split in DEV_NAMES else split for name, split in splits.items()}

    def stored_names(self) -> list[str]:
        """The values of the split column, or those of train, dev, test that are not empty."""
        return list(self._read[0])

    def records(self, split: str) -> Sequence[ImageRecord]:
        """The images of a split in the order of the table."""
        return self._read[0][split]

    def remarks(self) -> list[str]:
        """How the images were dealt out, where the table does not say."""
        options = self.options
        if self._read[1]:
            return []
        return [
            f"the table has no split column: a hash of each image's name and seed "
            f"{options.split_seed} puts {100 * options.dev_share:g} % of the images into dev and "
            f"{100 * options.test_share:g} % into test (--data.split_seed, --data.dev_share, "
            "--data.test_share)"
        ]


def split_by_hash(name: str, seed: int, dev_share: float, test_share: float) -> str:
    """``"dev"``, ``"test"`` or ``"train"`` for an image, whatever other images there are.

    The first eight bytes of SHA-256 of ``"{seed}:{name}"``, over 2^64, are a number in [0, 1):
    below ``dev_share`` is dev, the next ``test_share`` is test.
    """
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < dev_share:
        return "dev"
    return "test" if place < dev_share + test_share else "train"


def _well_formed(reader: Any, path: Path) -> Iterator[list[str]]:
    """The rows of a csv reader that are not empty; its errors name the file and the line."""
    try:
        yield from (row for row in reader if row)
    except csv.Error as error:
        raise ValueError(f"{path}: line {reader.line_num}: {error}") from error


def _dialect(path: Path, named: Mapping[str, str]) -> tuple[str, dict[str, int]] | None:
    """The delimiter and the place of each known column; None when one that is needed is not there.

    Needed are image, caption, and those that are ``named``.
    """
    header = first_line(path)
    for delimiter in sorted(DELIMITERS, key=header.count, reverse=True):
        cells = next(csv.reader([header], delimiter=delimiter), [])
        places = _places([cell.strip().lower() for cell in cells], named)
        if all(name in places for name in (*NEEDED, *named)):
            return delimiter, places
    return None


def _places(cells: Sequence[str], named: Mapping[str, str]) -> dict[str, int]:
    """Where the columns are among the lower-case cells: as named, else by a usual name."""
    places = {}
    for column, usual in KNOWN_HEADERS.items():
        wanted = [named[column].lower()] if column in named else usual
        found = next((cells.index(header) for header in wanted if header in cells), None)
        if found is not None:
            places[column] = found
    return places
