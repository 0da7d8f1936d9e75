"""Rows of a mapped array read from its file."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class RowFile:
    """Reads rows of a memory-mapped [rows, K, D] from the file.

    A map of a file that is cut short under it ends the process with SIGBUS when a page is touched
    that is gone; a read is an error that can be said. It takes no longer.

    Args:
        mapped: a memory map, or a view of one, whose rows are contiguous.
    """

    def __init__(self, mapped: NDArray[np.floating]) -> None:
        root = _root(mapped)
        assert isinstance(root, np.memmap)
        self.path = str(root.filename)
        self.dtype, self.shape = mapped.dtype, mapped.shape
        self.begin = root.offset + mapped.ctypes.data - root.ctypes.data  # bytes into the file
        self.stride = mapped.strides[0]
        self.descriptor = os.open(self.path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Sequence[int]) -> NDArray[np.floating]:
        """The rows [n, K, D] at n numbers ``0 .. rows - 1``.

        Raises FileNotFoundError when the file ends before one, OSError when it cannot be read.
        """
        read = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for place, row in enumerate(rows):
            self._fill(read[place], int(row))
        return read

    def _fill(self, array: NDArray[np.floating], row: int) -> None:
        left = array.reshape(-1).view(np.uint8).data
        place = self.begin + row * self.stride
        while len(left):
            count = os.preadv(self.descriptor, [left], place)
            if not count:
                raise FileNotFoundError(
                    f"{self.path}: was cut short while it was in use: row {row} is no longer in "
                    "it; write the file again, then go on"
                )
            left, place = left[count:], place + count


def rows_of(array: NDArray[np.floating]) -> RowFile | NDArray[np.floating]:
    """What gives rows [n, K, D] by n numbers: the file of a mapped array, else the array."""
    mapped = isinstance(_root(array), np.memmap) and array[0].flags.c_contiguous
    return RowFile(array) if mapped and hasattr(os, "preadv") else array


def _root(array: NDArray) -> NDArray:
    """The array that a view was made from."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
