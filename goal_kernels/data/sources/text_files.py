"""Finding the text files of sources."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from goal_kernels.data.files import read_head, reading
from goal_kernels.data.foreign import mistaken_for

HEADER_BYTES = 1 << 16


def starts_with(path: Path, character: str) -> bool:
    """Whether the first character that is no white space is ``character``.

    True as well of a file that is something else altogether, such as a web page: the source that
    its name stands for then says so.
    """
    head = read_head(path)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return text.startswith(character.encode()) or mistaken_for(head) is not None


def first_line(path: Path) -> str:
    """The first line, without its end; bytes that are no UTF-8 are replaced."""
    with reading(path) as stream:
        head = stream.read(HEADER_BYTES)
    return re.split(r"[\r\n]", head.decode("utf-8-sig", errors="replace"), maxsplit=1)[0]


def files_in(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files of a folder with one of the suffixes, in any case, in alphabetical order.

    Links count whether or not they lead somewhere: reading them says what is wrong.
    """
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in suffixes and (path.is_file() or path.is_symlink())
    ]


def one_of(folder: Path, candidates: Sequence[Path]) -> Path | None:
    """The only candidate, None of none; raises ValueError when there are several."""
    if len(candidates) > 1:
        names = ", ".join(path.name for path in candidates)
        raise ValueError(f"{folder}: expected one dataset, found {names}; give the file you mean")
    return candidates[0] if candidates else None
