"""Region features on disk seen image by image, without copying them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

_BLOCK_BYTES = 32 << 20


@dataclass(frozen=True)
class FeatureRows:
    """Rows of a feature array picked by index, read when asked for.

    It reads like an array whose axis 0 is the image: ``rows[3]`` is [K, D], ``rows[[3, 5]]`` and
    ``rows[3:5]`` are [2, K, D], ``rows[3, 0]`` is [D]; ``np.asarray(rows)`` reads everything.

    Attributes:
        stored: [rows, K, D], usually a read-only memory map.
        row_of_image: int64 [N], the stored row of each image.
    """

    stored: NDArray[np.floating]
    row_of_image: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, K, D)``."""
        return (len(self.row_of_image), *self.stored.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The stored dtype."""
        return self.stored.dtype

    def __len__(self) -> int:
        return len(self.row_of_image)

    def __getitem__(self, index: Any) -> NDArray[np.floating]:
        images, *inner = index if isinstance(index, tuple) else (index,)
        where = (self.row_of_image[images], *inner)
        return self.stored[where]

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> NDArray[np.floating]:
        if copy is False:
            raise ValueError("copy: rows picked by index cannot be had without a copy")
        return np.asarray(self.stored[self.row_of_image], dtype=dtype)


Features: TypeAlias = "NDArray[np.floating] | FeatureRows"


def pick_rows(stored: NDArray[np.floating], row_of_image: NDArray[np.int64]) -> Features:
    """The rows [N, K, D] at ascending ``row_of_image``: an array view if those have one step."""
    steps = np.unique(np.diff(row_of_image))
    if len(steps) > 1:
        return FeatureRows(stored, row_of_image)
    step = int(steps[0]) if len(steps) else 1
    return stored[int(row_of_image[0]) : int(row_of_image[-1]) + 1 : step]


def first_rows_of_runs(features: NDArray[np.floating]) -> NDArray[np.int64]:
    """The first row of every run of consecutive identical rows of [rows, K, D], ascending int64.

    Rows are told apart by a few leading numbers first; only neighbours that agree there are read
    in full, so a file without repetition costs one page a row.
    """
    probe = np.ascontiguousarray(features[:, 0, :8])
    repeats = np.flatnonzero((probe[1:] == probe[:-1]).all(axis=1)) + 1
    repeated = [row for row in repeats if np.array_equal(features[row], features[row - 1])]
    starts = np.ones(len(features), dtype=bool)
    starts[repeated] = False
    return np.flatnonzero(starts)


def row_faults(
    features: Features, progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The images of [N, K, D] that float32 cannot hold, and those that are zero throughout.

    The first hold NaN, infinity, or numbers beyond float32, in which training computes. Features
    are read once, in blocks: float32 at several GB a second from memory, else as fast as the disk.

    Args:
        features: [N, K, D].
        progress: called with (images done, images in all).
    """
    broken, zero = [], []
    for part in blocks_of(features):
        block = features[part]
        with np.errstate(over="ignore"):
            block = block.astype(np.float32) if block.dtype.itemsize > 4 else block
        broken.append(part.start + np.flatnonzero(~_are_finite(block)))
        suspects = np.flatnonzero(~block[:, 0].any(axis=1))  # few: the rest is read for these alone
        zero += [part.start + row for row in suspects if not block[row].any()]
        progress(part.start + len(block), len(features))
    return np.concatenate(broken), np.array(zero, dtype=np.int64)


def _are_finite(block: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which rows of [rows, K, D], float16 or float32, are finite throughout."""
    flat = block.reshape(len(block), -1)
    if flat.dtype.itemsize > 2:
        return np.isfinite(flat).all(axis=1)
    # Halves are tested one by one, their bits in bulk: all of the exponent are set in NaN and inf.
    bits = flat.view(flat.dtype.str.replace("f", "u")) & 0x7FFF
    return bits.max(axis=1) < 0x7C00


def blocks_of(features: Features) -> list[slice]:
    """Parts of axis 0 of [N, K, D] whose features take some ten megabytes."""
    block = max(1, _BLOCK_BYTES // image_bytes(features))
    return [slice(start, start + block) for start in range(0, len(features), block)]


def image_bytes(features: Features) -> int:
    """Bytes of one image of [N, K, D]."""
    return int(np.prod(features.shape[1:])) * features.dtype.itemsize
