"""NumPy files of other programs: never unpickled, sizes checked before memory is allocated."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from goal_kernels.data.files import mistaken_for, read_head, reading

MAGIC, ZIP_MAGIC = b"\x93NUMPY", b"PK"
# Deflate makes a byte of at most so many; a member that claims more is damaged.
_MOST_INFLATED = 1032
_DAMAGED = "copy, download or write it again"


class Header(NamedTuple):
    """What a .npy file says of itself: shape, dtype, and the bytes that header and array take."""

    shape: tuple[int, ...]
    dtype: np.dtype
    size: int


def open_array(path: Path) -> NDArray:
    """The array of a ``.npy`` file, memory-mapped and read-only.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else, torn, larger than its header says, or holds objects.
    """
    head = read_head(path)
    if not head.startswith(MAGIC):
        found = mistaken_for(head) or f"a file that begins with {head[:12]!r}; {_DAMAGED}"
        raise ValueError(f"{path}: expected a NumPy array (.npy), found {found}")
    with reading(path) as stream:
        header = _read_header(stream, str(path))
        size = stream.seek(0, 2)
    if size < header.size:
        raise ValueError(
            f"{path}: expected {header.size:,} bytes for {header.dtype} {header.shape} as its "
            f"header says, found {size:,}: the file is cut short; copy or extract it again"
        )
    if size > header.size:
        raise ValueError(
            f"{path}: expected {header.size:,} bytes for {header.dtype} {header.shape} as its "
            f"header says, found {size:,}: more than one array was written into it; write one"
        )
    if 0 in header.shape:
        return np.empty(header.shape, header.dtype)  # nothing to map
    return np.load(path, mmap_mode="r", allow_pickle=False)


def read_archive(path: Path) -> Mapping[str, NDArray]:
    """The arrays of a ``.npz`` file by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else or damaged, or holds objects; nothing is allocated for an
            array that its file is too small to hold.
    """
    head = read_head(path)
    if not head.startswith(ZIP_MAGIC):
        found = mistaken_for(head) or f"a file that begins with {head[:12]!r}; {_DAMAGED}"
        raise ValueError(f"{path}: expected NumPy arrays (.npz), found {found}")
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                member.filename.removesuffix(".npy"): _read_member(archive, member, path)
                for member in archive.infolist()
            }
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise ValueError(
            f"{path}: expected whole NumPy arrays (.npz), found a damaged archive ({error}); "
            f"{_DAMAGED}"
        ) from error


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> NDArray:
    """One array of an archive, after its claims have been compared with the file."""
    where = f"{path}: {member.filename}"
    with archive.open(member) as stream:
        header = _read_header(stream, where)
    if header.size != member.file_size or member.file_size > (
        _MOST_INFLATED * (member.compress_size + 1)
    ):
        raise ValueError(
            f"{where}: expected {header.size:,} bytes for {header.dtype} {header.shape} as its "
            f"header says, found {member.file_size:,} in {member.compress_size:,} compressed ones; "
            f"{_DAMAGED}"
        )
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _read_header(stream: IO[bytes], where: str) -> Header:
    """The header of a ``.npy`` file at the start of a stream."""
    try:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = read(stream)
    except Exception as error:  # numpy's parser raises almost anything, and advises to unpickle
        raise ValueError(
            f"{where}: expected a NumPy array (.npy), found a damaged header; {_DAMAGED}"
        ) from error
    if dtype.hasobject:
        raise ValueError(
            f"{where}: expected numbers, found pickled Python objects, which could run any code "
            "and are not read; in the program that wrote it save the array alone, "
            "np.save(path, sims) instead of np.save(path, {'npts': npts, 'sims': sims})"
        )
    count = 1
    for length in shape:
        count *= int(length)
    if any(length < 0 for length in shape):
        raise ValueError(f"{where}: expected a shape of whole numbers, found {shape}; {_DAMAGED}")
    return Header(tuple(shape), dtype, stream.tell() + count * dtype.itemsize)
