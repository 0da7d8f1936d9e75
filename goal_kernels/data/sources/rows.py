"""Rows of delimited text, read so that no line is lost to a quotation mark.

Between commas, semicolons and bars a cell is quoted as RFC 4180 has it: a quotation mark opens it,
marks inside are doubled, and one closes it before the next delimiter or the end of the line. Any
other mark is part of the text: ``"stop" sign`` and ``the "big" dog`` are read as they stand.
Between tabs there is no quoting at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

TAB, MARK = "\t", '"'
_QUOTED = re.compile(r'(?:[^"]+|"")*')  # as far as a quoted cell goes on
_PICTURE = re.compile(r"\.(jpe?g|png|gif|bmp|webp|tiff?|avif|heic|ppm|jfif)\s*$", re.IGNORECASE)


class Row(NamedTuple):
    """The cells of a row and the lines it takes, counted from 1."""

    cells: list[str]
    first: int
    last: int


def cells_of(line: str, delimiter: str) -> tuple[list[str], bool]:
    """The cells of a line, and whether a quotation mark opens one that the line does not close.

    Such a mark is then taken for text.
    """
    if delimiter == TAB or MARK not in line:
        return line.split(delimiter), False
    cells: list[str] = []
    at, is_open = 0, False
    while True:
        if line.startswith(MARK, at):
            end = _end_of_quoted(line, at + 1)
            is_open |= end == len(line)
            if _closes(line, end, delimiter):
                cells.append(line[at + 1 : end].replace(2 * MARK, MARK))
                at = end + 2
                if at > len(line):
                    return cells, is_open
                continue
        end = line.find(delimiter, at)
        if end < 0:
            return [*cells, line[at:]], is_open
        cells.append(line[at:end])
        at = end + 1


@dataclass(frozen=True)
class DelimitedText:
    """The lines of a table after its header.

    Attributes:
        path: the file, for messages.
        lines: all of its lines, the header first.
        delimiter: between cells.
        width: how many cells a row has.
        image: the column of the image, by whose file names rows are known.
    """

    path: Path
    lines: Sequence[str]
    delimiter: str
    width: int
    image: int

    def rows(self) -> Iterator[Row]:
        """The rows in order; lines without any text are left out.

        Raises ``ValueError`` naming the line when a row has another number of cells, or when it
        cannot be told whether a quoted cell of several lines holds other rows.
        """
        place = 1
        while place < len(self.lines):
            cells, is_open = cells_of(self.lines[place], self.delimiter)
            last = before = place
            while is_open and (last := self._last_line(place, before)) > before:
                text = "\n".join(self.lines[place : last + 1])
                cells, is_open = cells_of(text, self.delimiter)
                before = last
            if any(cell.strip() for cell in cells):
                self._check(cells, place, last)
                yield Row(cells, place + 1, last + 1)
            place = last + 1

    def _check(self, cells: Sequence[str], place: int, last: int) -> None:
        """Raise ``ValueError`` when the cells of these lines are no row of the table."""
        if any("\r" in line for line in self.lines[place : last + 1]):
            raise ValueError(
                f"{self.path}: line {place + 1}: expected one kind of line ends, found a carriage "
                "return within the line; save the file with line feeds alone, for instance with "
                "`dos2unix -c mac`"
            )
        if len(cells) != self.width:
            if len(cells) > self.width and not any(cells[self.width :]):
                remedy = f"take {self.delimiter!r} off the end of the line"
            elif self.delimiter == TAB:
                remedy = "tab-separated text has no quoting, so take tabs out of the texts"
            else:
                remedy = (
                    f"put a text that holds {self.delimiter!r} in double quotes, with no space "
                    "around them and marks inside doubled"
                )
            raise ValueError(
                f"{self.path}: line {place + 1}: expected {self.width} columns, found "
                f"{len(cells)}; {remedy}"
            )

    def _last_line(self, place: int, before: int) -> int:
        """The last line of the row that begins at ``place`` and has a cell open behind ``before``.

        Rows are known by an image cell that looks like the name of a picture. If every line that
        the quoted cell would take is a row, the mark belongs to the text. If none but the first or
        the last is, the cell has several lines.
        """
        last = self._closing_line(before)
        if last is None:
            return before
        span = range(place, last + 1)
        rows = [line for line in span if self._is_row(line)]
        if len(rows) == len(span):
            return before
        full = all(self._width_of(line) == self.width for line in span)
        if len(rows) > 1 or (rows and rows[0] not in (place, last)) or (full and not rows):
            raise ValueError(
                f"{self.path}: line {place + 1}: expected a quoted text that closes in its line, "
                f"found it closed in line {last + 1}, with what may be rows of their own between; "
                "double the marks that belong to a text, or write each text in one line"
            )
        return last

    def _closing_line(self, place: int) -> int | None:
        """Where the open cell of a line ends by the rule; None when a mark is against it."""
        for later in range(place + 1, len(self.lines)):
            line = self.lines[later]
            end = _end_of_quoted(line, 0)
            if end < len(line):
                return later if _closes(line, end, self.delimiter) else None
        return None

    def _width_of(self, place: int) -> int:
        return len(cells_of(self.lines[place], self.delimiter)[0])

    def _is_row(self, place: int) -> bool:
        cells, _ = cells_of(self.lines[place], self.delimiter)
        return len(cells) == self.width and _PICTURE.search(cells[self.image]) is not None


def _end_of_quoted(line: str, at: int) -> int:
    """Where the text of a quoted cell ends: at a mark that is not doubled, or with the line."""
    found = _QUOTED.match(line, at)
    return found.end() if found else at


def _closes(line: str, end: int, delimiter: str) -> bool:
    """Whether the mark at ``end`` closes a cell: before a delimiter or the end of the line."""
    return line.startswith(MARK, end) and (
        end + 1 == len(line) or line.startswith(delimiter, end + 1)
    )
