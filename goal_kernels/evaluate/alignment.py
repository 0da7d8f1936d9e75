"""Which image every caption belongs to: derived from counts, and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from goal_kernels.data.arrays import open_array, read_archive
from goal_kernels.data.files import read_text

ALIKE = 1e-3
"""Relative distance up to which two rows are one image encoded twice.

An image that is encoded once for each of its captions comes out equal up to rounding: 1e-7 in
float32, 1e-3 in float16. Different images are about 1 apart.
"""


class Counts(NamedTuple):
    """What is known of a set before its captions are aligned.

    images, texts: rows. captions_per_image: as the user says, None if not said. what: names the
    input in errors.
    """

    images: int
    texts: int
    captions_per_image: int | None
    what: str


def captions_per_image(counts: Counts) -> int:
    """The whole number of captions of each image, as said or as the counts say.

    Raises: ValueError that explains what the counts may mean and what to do.
    """
    images, texts, said, what = counts
    found = f"{what}: {images:,} images (rows) and {texts:,} captions"
    if said is not None and texts != said * images:
        remedy = f"--captions-per-image {said} expects {said * images:,} captions"
        if images == said * texts:
            remedy = _swapped(images, texts)
        raise ValueError(f"{found}: {remedy}")
    if texts % images == 0:
        return texts // images
    if images % texts == 0:
        raise ValueError(f"{found}: {_swapped(images, texts)}")
    raise ValueError(
        f"{found}: {texts / images:.4g} captions an image is no whole number. Are these two halves "
        "of one split? If images differ in their number of captions, give the image row of every "
        "caption with --image-of-caption FILE"
    )


def _swapped(images: int, texts: int) -> str:
    return (
        f"images and captions seem to be swapped. Images are the rows: expected {texts:,} images "
        f"by {images:,} captions; --transpose does it"
    )


def even_index(images: int, each: int) -> NDArray[np.int64]:
    """int64 [images * each]: captions of an image are consecutive."""
    return np.repeat(np.arange(images), each)


def repetition(image_embeddings: NDArray[np.floating], counts: Counts) -> int:
    """How many consecutive rows [N, D] an image takes: k when encoded once a caption, or 1.

    Called when there are as many rows as captions.

    Raises: ValueError when the rows do not repeat as said, or are all alike.
    """
    alike = _like_the_row_before(image_embeddings)
    starts = np.flatnonzero(~alike)
    rows, said = len(alike), counts.captions_per_image
    if said is not None:
        inner = alike.reshape(-1, said)[:, 1:] if rows % said == 0 else np.zeros(1, dtype=bool)
        if inner.all():
            return said
        raise ValueError(
            f"{counts.what}: {rows:,} image rows for as many captions. --captions-per-image {said} "
            f"expects {rows / said:,.4g} rows, or each image {said} times in a row; within such "
            "groups rows differ; keep one row an image"
        )
    lengths = np.diff(np.append(starts, rows))
    if len(starts) == 1 and rows > 1:
        raise ValueError(
            f"{counts.what}: all {rows:,} image rows are alike, so it cannot be seen how many "
            "captions an image has (has the model collapsed?); give --captions-per-image"
        )
    return int(lengths[0]) if lengths.min() == lengths.max() else 1


def _like_the_row_before(rows: NDArray[np.floating]) -> NDArray[np.bool_]:
    """bool [N]: whether a row equals the one before it up to `ALIKE`; False for the first."""
    alike = np.zeros(len(rows), dtype=bool)
    for start in range(1, len(rows), 4096):
        now = rows[start : start + 4096].astype(np.float64)
        before = rows[start - 1 : start - 1 + len(now)].astype(np.float64)
        distance = np.linalg.norm(now - before, axis=1)
        alike[start : start + len(now)] = distance <= ALIKE * np.linalg.norm(now, axis=1)
    return alike


def check_index(index: NDArray[np.integer], images: int, texts: int, what: str) -> None:
    """Require one image row in [0, images) a caption. Raises: ValueError."""
    if index.dtype.kind not in "iu" or index.shape != (texts,):
        raise ValueError(
            f"{what}: expected {texts:,} integers, the image row of every caption, got "
            f"{index.dtype} of shape {index.shape}"
        )
    wrong = np.flatnonzero((index < 0) | (index >= images))
    if len(wrong):
        raise ValueError(
            f"{what}: expected image rows 0 to {images - 1:,}, caption {wrong[0]:,} says "
            f"{index[wrong[0]]} ({len(wrong):,} such captions); rows count from 0 and are not ids"
        )


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


def stored_groups(stored: Mapping[str, NDArray], path: Path) -> NDArray[np.integer] | None:
    """The groups [N] of the images of a `.npz` file, None without. Raises: ValueError."""
    groups = stored.get("groups")
    if groups is not None and (groups.dtype.kind not in "iu" or groups.ndim != 1):
        raise ValueError(
            f"{path}: expected groups, an integer an image, got {groups.dtype} of shape "
            f"{groups.shape}; number them, or leave them out"
        )
    return groups


def require_floats(array: NDArray, what: str) -> NDArray[np.floating]:
    """Require a filled float16, float32 or float64 matrix. Raises: ValueError."""
    if array.dtype.kind != "f" or array.dtype.itemsize > 8 or array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"{what}: expected a filled float16, float32 or float64 matrix, got {array.dtype} of "
            f"shape {array.shape}"
        )
    return array
