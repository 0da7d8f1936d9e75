"""Finding and reading the text files of sources."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def starts_with(path: Path, character: str) -> bool:
    """Whether the first character that is no white space is ``character``."""
    with path.open("rb") as stream:
        return stream.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(character.encode())


def first_line(path: Path) -> str:
    """The first line, without its end; bytes that are no UTF-8 are replaced."""
    with path.open("rb") as stream:
        return stream.readline(1 << 16).decode("utf-8-sig", errors="replace").rstrip("\r\n")


def one_of(folder: Path, candidates: Sequence[Path]) -> Path | None:
    """The only candidate, None of none; raises ValueError when there are several."""
    if len(candidates) > 1:
        names = ", ".join(path.name for path in candidates)
        raise ValueError(f"{folder}: expected one dataset, found {names}; give the file you mean")
    return candidates[0] if candidates else None


def read_json(path: Path) -> Any:
    """The content of a JSON file; ValueError names the file when it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON; {error}; download or write it again") from error
