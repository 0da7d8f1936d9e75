"""Arrays from files that others wrote: never unpickled, mapped where the format allows it."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def read_array(path: Path) -> NDArray:
    """The array of a `.npy` file, memory-mapped and read-only.

    Raises: FileNotFoundError; ValueError when it is no such file or holds pickled objects.
    """
    _require(path)
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise ValueError(_unreadable(path, error)) from error


def read_archive(path: Path) -> Mapping[str, NDArray]:
    """The arrays of a `.npz` file by name.

    Raises: FileNotFoundError; ValueError when it is no such file or holds pickled objects.
    """
    _require(path)
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, zipfile.BadZipFile) as error:
        raise ValueError(_unreadable(path, error)) from error


def read_index(path: Path) -> NDArray[np.integer]:
    """Integers from a `.npy` file, from `image_of_caption` of a `.npz`, or one a line of text.

    Raises: FileNotFoundError; ValueError.
    """
    if path.suffix == ".npy":
        return np.asarray(read_array(path))
    if path.suffix == ".npz":
        stored = read_archive(path)
        if "image_of_caption" not in stored:
            raise ValueError(f"{path}: expected an array image_of_caption, found {sorted(stored)}")
        return stored["image_of_caption"]
    _require(path)
    try:
        return np.array([int(line) for line in path.read_text(encoding="utf-8").split()])
    except ValueError as error:
        raise ValueError(f"{path}: expected one integer a line; {error}") from error


def require_floats(array: NDArray, what: str) -> NDArray[np.floating]:
    """Require a filled float16, float32 or float64 matrix. Raises: ValueError."""
    if array.dtype.kind != "f" or array.dtype.itemsize > 8 or array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"{what}: expected a filled float16, float32 or float64 matrix, got {array.dtype} of "
            f"shape {array.shape}"
        )
    return array


def _require(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")


def _unreadable(path: Path, error: Exception) -> str:
    if "pickle" in str(error) or "Python objects" in str(error):
        return (
            f"{path}: holds pickled Python objects, which could run any code and are not read. In "
            "the program that wrote it save the array alone, np.save(path, sims) instead of "
            "np.save(path, {'npts': npts, 'sims': sims})"
        )
    return f"{path}: not a whole numpy file ({error})"
