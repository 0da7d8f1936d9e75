"""A folder of images with a CSV or TSV of captions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from goal_kernels.data.files import parse_integer, read_lines
from goal_kernels.data.sources.base import files_in, first_line, fold_split, one_of, renamings
from goal_kernels.data.sources.pictures import (
    ImageRecord,
    PictureSource,
    cut_captions,
    group_by_image,
)
from goal_kernels.data.sources.rows import DelimitedText, Row, cells_of
from goal_kernels.data.split import group_name

SUFFIXES = (".csv", ".tsv", ".txt")
DELIMITERS = ",\t;|"
NEEDED = ("image", "caption")
QUOTA_IMAGES = 200  # up to so many each split has exactly its share; a hash alone strays too far
LEAST_IMAGES = 2  # of a split: ranking one image says nothing
# Headers in use, open_clip's and the Flickr tables on the web among them; compared in lower case.
KNOWN_HEADERS = {
    "image": ("image", "image_name", "image_path", "file", "filename", "file_name", "filepath"),
    "caption": ("caption", "comment", "text", "title", "description", "sentence"),
    "split": ("split", "set", "partition"),
    "image_id": ("image_id", "cocoid", "imgid"),
    "group": ("group",),
}


class _Row(NamedTuple):
    """One row: its line from 1, the image with one caption, the word for its split or None."""

    line: int
    record: ImageRecord
    split: str | None


class _Content(NamedTuple):
    """What a table holds.

    lines, rows: how many. broken: the first lines of captions with a line break. words: those for
    splits, None without a column of them. by_split: the images.
    """

    lines: int
    rows: int
    broken: list[int]
    words: set[str] | None
    by_split: dict[str, list[ImageRecord]]


class TableSource(PictureSource):
    """A header and a row for each caption: image, caption, optionally split, image_id and group.

    Without a split column images go to splits by a hash of (seed, name), those of a group together
    by that of its name: see `deal_out`.
    """

    format = "table"
    summary = "a CSV or TSV with columns image, caption, optionally split, image_id, group; images"
    takes = frozenset(
        {"image_root", "max_captions", "columns", "dev_share", "test_share", "split_seed"}
    )

    @classmethod
    def recognise(cls, path: Path) -> Path | None:
        """The table: a file, or the only one of a folder; ``.txt`` if it has the two columns."""
        if path.is_file():
            return path if path.suffix.lower() in SUFFIXES else None
        candidates = files_in(path, SUFFIXES)
        return one_of(
            path, [p for p in candidates if p.suffix.lower() != ".txt" or _dialect(p, {})]
        )

    @cached_property
    def _read(self) -> _Content:
        """The table in full."""
        lines = read_lines(self.path)
        found = _dialect(self.path, self.options.columns)
        if found is None:
            raise ValueError(
                f"{self.path}: expected a header with columns for "
                f"{' and '.join({**dict.fromkeys(NEEDED), **self.options.columns})}, found "
                f"{first_line(self.path)[:80]!r}; name them with columns (--data.columns.image "
                "NAME and so on)"
            )
        delimiter, header, columns = found
        for column in columns.values():
            if header.count(header[column]) > 1:
                raise ValueError(
                    f"{self.path}: line 1: expected one column {header[column]!r}, found several; "
                    "give them different headers and name one with columns"
                )
        text = DelimitedText(self.path, lines, delimiter, len(header), columns["image"])
        rows = [self._row(row, columns) for row in text.rows()]
        broken = [row.line for row in rows if "\n" in row.record.captions[0]]
        splits = self._splits(rows)
        records = group_by_image((self._where(row.line), row.record) for row in rows)
        cut_captions(records, self.options.max_captions or 0)
        by_split: dict[str, list[ImageRecord]] = {}
        for record in records:
            by_split.setdefault(splits[record.name], []).append(record)
        words = {row.split for row in rows if row.split is not None}
        return _Content(
            len(lines), len(rows), broken, words if "split" in columns else None, by_split
        )

    def _where(self, line: int) -> str:
        return f"{self.path}: line {line}"

    def _row(self, row: Row, columns: Mapping[str, int]) -> _Row:
        """The cells of a row that are needed, checked."""
        where = self._where(row.first)
        cells = {name: row.cells[column].strip() for name, column in columns.items()}
        if not cells["image"]:
            raise ValueError(f"{where}: expected the name of an image, found none; write it there")
        number = None
        if "image_id" in columns:
            number = parse_integer(cells["image_id"], f"{where}: image_id")
        group = group_name(cells.get("group"), where)
        record = ImageRecord(cells["image"], [cells["caption"]], number, group=group)
        return _Row(row.first, record, row.cells[columns["split"]] if "split" in columns else None)

    def _splits(self, rows: Sequence[_Row]) -> dict[str, str]:
        """The split of each image, by name."""
        options = self.options
        splits: dict[str, str] = {}
        for row in rows:
            name, where = row.record.name, self._where(row.line)
            split = "" if row.split is None else fold_split(row.split, where)
            if splits.setdefault(name, split) != split:
                raise ValueError(
                    f"{where}: image {name!r}: expected one split, found {splits[name]!r} and "
                    f"{split!r}; give all rows of an image the same"
                )
        if any(splits.values()):
            return splits
        units = {row.record.name: row.record.group or row.record.name for row in rows}
        shares = options.dev_share, options.test_share
        dealt = deal_out(units.values(), options.split_seed, *shares)
        return {name: dealt[unit] for name, unit in units.items()}

    def stored_names(self) -> list[str]:
        """The values of the split column, or those of train, dev, test that are not empty."""
        return list(self._read.by_split)

    def records(self, split: str) -> Sequence[ImageRecord]:
        """The images of a split in the order of the table."""
        return self._read.by_split[split]

    def find(self, split: str) -> str:
        """Likewise; says which share would make a split that is empty."""
        try:
            return super().find(split)
        except FileNotFoundError as error:
            raise FileNotFoundError("; ".join([str(error), *self._small_splits()])) from error

    def problems(self) -> list[str]:
        """Captions of several lines, and splits that few images leave empty."""
        broken = self._read.broken
        found = []
        if broken:
            found.append(
                f"captions with a line break: {len(broken):,}, the first in line {broken[0]}; are "
                "they rows that quotation marks have joined? Write each caption in one line"
            )
        return [*found, *self._small_splits()]

    def _small_splits(self) -> list[str]:
        """What to do about the splits that are to have a share of the images and have under two."""
        content, options = self._read, self.options
        if content.words is not None:
            return []
        images = sum(map(len, content.by_split.values()))
        shares = {"dev": options.dev_share, "test": options.test_share}
        return [
            f"{split} has {len(content.by_split.get(split, ()))} of {images} images, too few to "
            f"rank, with a share of {share:g}; a larger --{split}-share (--data.{split}_share), "
            "or more images, or a column split, make it larger"
            for split, share in shares.items()
            if share and len(content.by_split.get(split, ())) < LEAST_IMAGES and images
        ]

    def remarks(self) -> list[str]:
        """How many rows were read, and how the images were dealt out."""
        content, options = self._read, self.options
        remarks = [f"rows read: {content.rows:,}, from {content.lines:,} lines with the header"]
        if content.words is not None:
            return remarks + renamings(content.words)
        images = sum(map(len, content.by_split.values()))
        rule = (
            f"the images whose hash of name and seed {options.split_seed} is lowest are dev"
            if images <= QUOTA_IMAGES
            else f"a hash of each image's name and seed {options.split_seed} deals them out"
        )
        return [
            *remarks,
            f"the table has no split column: {rule}, {100 * options.dev_share:g} % of the images "
            f"into dev and {100 * options.test_share:g} % into test (--data.split_seed, "
            "--data.dev_share, --data.test_share)",
        ]


def deal_out(
    names: Iterable[str], seed: int, dev_share: float, test_share: float
) -> dict[str, str]:
    """The split of each image (or group of images) of a table, by name.

    Of up to ``QUOTA_IMAGES`` names each split has exactly its share, rounded: dev those with the
    lowest places (see `place_of`), test the next ones. Of more each goes by its own place,
    whatever others there are.
    """
    places = {name: place_of(name, seed) for name in names}
    if len(places) > QUOTA_IMAGES:
        return {name: split_at(place, dev_share, test_share) for name, place in places.items()}
    ordered = sorted(places, key=lambda name: (places[name], name))
    dev = int(dev_share * len(ordered) + 0.5)
    test = dev + int(test_share * len(ordered) + 0.5)
    ranks = {name: rank for rank, name in enumerate(ordered)}
    return {
        name: "dev" if ranks[name] < dev else "test" if ranks[name] < test else "train"
        for name in places
    }


def place_of(name: str, seed: int) -> float:
    """The first eight bytes of SHA-256 of ``"{seed}:{name}"``, over 2^64: a number in [0, 1)."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_at(place: float, dev_share: float, test_share: float) -> str:
    """Below ``dev_share`` is ``"dev"``, the next ``test_share`` is ``"test"``, else ``"train"``."""
    if place < dev_share:
        return "dev"
    return "test" if place < dev_share + test_share else "train"


def _dialect(path: Path, named: Mapping[str, str]) -> tuple[str, list[str], dict[str, int]] | None:
    """The delimiter, the headers in lower case, and the place of each known column.

    None when one that is needed is not there: image, caption, and those that are ``named``.
    """
    header = first_line(path)
    for delimiter in sorted(DELIMITERS, key=header.count, reverse=True):
        cells = [cell.strip().lower() for cell in cells_of(header, delimiter)[0]]
        places = _places(cells, named)
        if all(name in places for name in (*NEEDED, *named)):
            return delimiter, cells, places
    return None


def _places(cells: Sequence[str], named: Mapping[str, str]) -> dict[str, int]:
    """Where the columns are among the lower-case cells: as named, else by a usual name."""
    places = {}
    for column, usual in KNOWN_HEADERS.items():
        wanted = [named[column].strip().lower()] if column in named else usual
        found = next((cells.index(header) for header in wanted if header in cells), None)
        if found is not None:
            places[column] = found
    return places
