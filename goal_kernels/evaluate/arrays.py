"""What evaluation asks of arrays from files: integers for an index, floats for a matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from goal_kernels.data.arrays import open_array, read_archive
from goal_kernels.data.files import read_text


def read_index(path: Path) -> NDArray[np.integer]:
    """Integers from a `.npy` file, from `image_of_caption` of a `.npz`, or one a line of text.

    Raises: FileNotFoundError; ValueError.
    """
    if path.suffix == ".npy":
        return np.asarray(open_array(path))
    if path.suffix == ".npz":
        stored = read_archive(path)
        if "image_of_caption" not in stored:
            raise ValueError(f"{path}: expected an array image_of_caption, found {sorted(stored)}")
        return stored["image_of_caption"]
    try:
        return np.array([int(line) for line in read_text(path, "integers").split()])
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: expected one integer a line; {error}") from error


def require_floats(array: NDArray, what: str) -> NDArray[np.floating]:
    """Require a filled float16, float32 or float64 matrix. Raises: ValueError."""
    if array.dtype.kind != "f" or array.dtype.itemsize > 8 or array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"{what}: expected a filled float16, float32 or float64 matrix, got {array.dtype} of "
            f"shape {array.shape}"
        )
    return array
