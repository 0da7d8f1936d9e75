"""Files: written in full or not at all, read with errors that name file and line.

Whatever cannot be read raises ``FileNotFoundError`` when nothing is there and ``ValueError``
otherwise, whose message says what was expected, what was found, and what to do.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

HEAD_BYTES = 4096
_INT64 = 2**63
# How it begins, what it is, what to do.
_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer in place of the file; `git lfs pull` fetches the file itself",
    ),
    (b"\xff\xfe\0\0", "UTF-32 text; convert it, for instance with `iconv -f utf-32 -t utf-8`"),
    (b"\x1f\x8b", "a gzip archive; unpack it with gunzip"),
    (b"PK\x03\x04", "a zip archive, an Excel workbook for instance; unpack or export it"),
    (b"BZh", "a bzip2 archive; unpack it with bunzip2"),
    (b"\xfd7zXZ\x00", "an xz archive; unpack it with unxz"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it with unzstd"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it"),
    (b"\x93NUMPY", "a NumPy array; give it a name that ends in .npy"),
    (b"\x89HDF", "an HDF5 file; save its arrays with numpy.save"),
    (b"PAR1", "a Parquet file; export it as CSV"),
    (b"%PDF", "a PDF document; give the data itself"),
    *(
        (
            bytes((0x80, protocol)),
            "a pickle, which could run any code and is not opened; save the data alone, as text, "
            "JSON or numpy.save of numbers",
        )
        for protocol in range(2, 6)
    ),
)
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<error")
_UTF_16 = "UTF-16 text; convert it, for instance with `iconv -f utf-16 -t utf-8`"
_UTF_8_MARK = b"\xef\xbb\xbf"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place when the block ends well.

    A reader sees the old file or the new one, never half of either. When the block raises, the
    temporary file is removed and ``path`` stays as it was.

    Raises: IsADirectoryError, before the block, when a folder is there.
    """
    if path.is_dir():
        raise IsADirectoryError(
            f"{path}: expected a file or nothing to write it to, found a folder; move the folder, "
            "or name another file"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; data folders are meant to be shared like any other file.
        temporary.chmod(0o666 & ~umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder that takes the place of ``target`` when the block ends well.

    It lies in a hidden folder beside ``target``, which goes with what was there before. When the
    block raises, ``target`` stays as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as parent:
        staging = Path(parent) / "new"
        staging.mkdir()
        yield staging
        old = Path(parent) / "old"
        if target.exists():
            target.replace(old)
        try:
            staging.replace(target)
        except OSError:
            if old.exists():
                old.replace(target)
            raise


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8 with Unix line ends, in full or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write ``lines`` with a line feed after each, in full or not at all."""
    write_text(path, "".join(f"{line}\n" for line in lines))


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """Yield the opened file; what the system says against it is raised in our words."""
    try:
        with path.open("rb") as stream:
            yield stream
    except FileNotFoundError as error:
        link = ", the link there leads nowhere" if path.is_symlink() else ""
        raise FileNotFoundError(f"{path}: no such file{link}; check the path") from error
    except OSError as error:
        raise ValueError(
            f"{path}: expected a file that can be read, found: {error.strerror}; check what is "
            "there and its permissions"
        ) from error


def read_head(path: Path) -> bytes:
    """The first ``HEAD_BYTES`` of a file."""
    with reading(path) as stream:
        return stream.read(HEAD_BYTES)


def read_text(path: Path, expected: str = "UTF-8 text") -> str:
    """A UTF-8 file in full, a byte order mark left out.

    Raises ``ValueError`` naming the line when it holds other bytes, NUL among them, or saying what
    else the file is.
    """
    with reading(path) as stream:
        content = stream.read()
    other = mistaken_for(content[:HEAD_BYTES])
    if other is not None:
        raise ValueError(f"{path}: expected {expected}, found {other}")
    zero = content.find(b"\0")
    if zero >= 0:
        raise ValueError(
            f"{path}: expected {expected}, found a NUL byte in line {_line_at(content, zero)}; "
            "the file is damaged or no text: write or download it again"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected UTF-8 text, found other bytes in line "
            f"{_line_at(content, error.start)}; convert it, for instance with "
            "`iconv -f latin1 -t utf-8`"
        ) from error


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file without their ends: LF, CR LF, or, in a file without LF, CR.

    Captions may hold other separators, such as U+2028, which end no line.
    """
    text = read_text(path)
    if "\n" not in text:
        text = text.replace("\r", "\n")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def read_integers(path: Path) -> list[int]:
    """One 64-bit integer a line; raises ``ValueError`` naming the line that holds no such."""
    return [
        parse_integer(line, f"{path}: line {number}")
        for number, line in enumerate(read_lines(path), 1)
    ]


def parse_integer(given: object, where: str) -> int:
    """A 64-bit integer, also in decimal digits; else ``ValueError`` beginning with ``where``."""
    text = str(given).strip()
    digits = text.removeprefix("-")
    known = isinstance(given, int | str) and not isinstance(given, bool)
    if known and digits.isascii() and digits.isdigit() and len(digits) < 20:
        number = int(text)
        if -_INT64 <= number < _INT64:
            return number
    raise ValueError(f"{where}: expected an integer of 64 bits, found {text[:40]!r}")


def read_json(path: Path) -> Any:
    """The content of a JSON file; ``ValueError`` names the file when it is none."""
    return parse_json(read_text(path, "JSON"), str(path))


def parse_json(text: str, where: str) -> Any:
    """The content of JSON text; ``ValueError`` that begins with ``where`` when it is none."""
    try:
        return json.loads(text, object_pairs_hook=_named_once)
    except RecursionError as error:
        raise ValueError(
            f"{where}: expected JSON with a few levels, found lists or objects nested too deep to "
            "be read; write it again"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{where}: expected JSON, found text that is none ({error}); download or write it again"
        ) from error


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; raises ``ValueError`` where a name would take the place of another."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice!r} stands twice in one object")
    return found


def _line_at(content: bytes, place: int) -> int:
    """The number of the line that holds the byte at ``place``, from 1."""
    before = content[:place]
    return 1 + (before.count(b"\n") or before.count(b"\r"))


def umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def mistaken_for(head: bytes) -> str | None:
    """What a file that begins with ``head`` is, and what to do; None when nothing is known of it.

    ``head`` is the first hundred bytes or more. The answer goes on from "found": "a gzip archive;
    unpack it with gunzip".
    """
    if not head:
        return "an empty file; copy or download it again"
    for beginning, what in _BEGINNINGS:
        if head.startswith(beginning):
            return what
    if head.removeprefix(_UTF_8_MARK).lstrip().lower().startswith(_PAGES):
        return (
            "a web page, often a download that was refused; look at it in a browser and download "
            "the file again"
        )
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or _every_other_is_zero(head[:64]):
        return _UTF_16
    return None


def _every_other_is_zero(head: bytes) -> bool:
    """Whether bytes at even or at odd places alone are zero, as in UTF-16 without a mark."""
    even, odd = head[0:-1:2], head[1::2]
    return len(odd) > 1 and any(not any(a) and all(b) for a, b in ((even, odd), (odd, even)))
