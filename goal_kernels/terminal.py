"""What people read: signs that a terminal has, tables that it holds, spans of time, lists."""

from __future__ import annotations

import codecs
import io
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import wrap

SPELLED = {
    "±": "+-",
    "Δ": "d",
    "∞": "infinity",
    "×": "x",
    "·": "*",
    "→": "->",
    "≤": "<=",
    "≥": ">=",
    "–": "-",
    "—": "-",
    "…": "...",
}
"""ASCII for signs that messages and tables hold."""

_SPELLING = "goal_kernels.spelling"
_MARGIN = "  "  # before each row of a table


def _spell(error: UnicodeError) -> tuple[str, int]:
    """A handler of encoding errors: ASCII that reads alike, the code where there is none."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    spelled = ""
    for sign in error.object[error.start : error.end]:
        plain = SPELLED.get(sign) or unicodedata.normalize("NFKD", sign)
        kept = plain.encode("ascii", "ignore").decode("ascii")
        spelled += kept or sign.encode("ascii", "backslashreplace").decode("ascii")
    return spelled, error.end


codecs.register_error(_SPELLING, _spell)


def spell_out() -> None:
    """Let standard output and error spell signs that their encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != "surrogateescape":
            stream.reconfigure(errors=_SPELLING)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A table in Markdown without a last line end; "" if it has no rows.

    Args: words: how many of the first columns hold words; the others hold numbers.
    """
    rows = list(rows)
    if not rows:
        return ""
    rule = ["---"] * words + ["--:"] * (len(header) - words)
    lines = [
        [f" {cell.strip()} " if cell.strip() else " " for cell in row] for row in (header, *rows)
    ]
    lines.insert(1, rule)
    return "\n".join(f"|{'|'.join(line)}|" for line in lines)


@dataclass(frozen=True)
class Table:
    """A title, names of columns (the first names the rows), rows of as many cells."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table, without its title, in Markdown."""
        return markdown_table(self.columns, self.rows) + "\n"

    @property
    def lines(self) -> list[Sequence[str]]:
        """Names of columns and rows."""
        return [self.columns, *self.rows]


def plain(table: Table, width: int | None = None) -> str:
    """A table in aligned columns; no cell is ever cut.

    Args: width: most characters a line, if a cell is not longer. Columns that do not fit beside
        the others come below them, behind the names of the rows again. None: no limit.
    """
    lines = table.lines
    named = max(len(line[0]) for line in lines)
    if width is not None:
        named = min(named, max(width // 3, 12))
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.columns))]
    blocks: list[list[int]] = [[]]
    used = len(_MARGIN) + named
    for column in range(1, len(widths)):
        used += 2 + widths[column]
        if width is not None and used > width and blocks[-1]:
            blocks.append([])
            used = len(_MARGIN) + named + 2 + widths[column]
        blocks[-1].append(column)
    texts = ["\n".join(_block(lines, block, widths, named)) for block in blocks]
    return "\n".join([table.title, "\n\n".join(texts)])


def _block(
    lines: Sequence[Sequence[str]], columns: Sequence[int], widths: Sequence[int], named: int
) -> list[str]:
    """Some columns of a table behind the names of the rows, which take lines of their own."""
    made = []
    for line in lines:
        *above, name = [line[0]] if len(line[0]) <= named else wrap(line[0], named)
        cells = [line[column].rjust(widths[column]) for column in columns]
        made += [*above, _MARGIN.join([name.ljust(named), *cells])]
    return [f"{_MARGIN}{text}".rstrip() for text in made]


def show(tables: Sequence[Table]) -> None:
    """Print tables; as wide as the terminal is, or as they are where no terminal reads."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print("\n\n".join(plain(_spelled(table), width) for table in tables))


def _spelled(table: Table) -> Table:
    """A table whose signs standard output has, so that columns stay aligned."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"

    def known(text: str) -> str:
        return text.encode(encoding, _SPELLING).decode(encoding)

    rows = [list(map(known, row)) for row in table.rows]
    return Table(known(table.title), list(map(known, table.columns)), rows)


def duration(seconds: float) -> str:
    """Seconds as people say it: 42 s, 5 min, 3 h 20 min, 2 d 4 h."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def some(values: Sequence[object], most: int) -> str:
    """The first few of some values, and how many there are besides."""
    shown = ", ".join(str(value) for value in values[:most])
    return shown if len(values) <= most else f"{shown} and {len(values) - most} more"
