"""Captions that `goal-kernels mine` found to be hard negatives of the images of a split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from goal_kernels.data.arrays import read_archive
from goal_kernels.data.split import Split

NAME = "i2t_indices"


def read_negatives(path: str | None, split: Split) -> NDArray[np.int64] | None:
    """The captions that were mined for each image of a split, None without a file.

    Returns: int64 [N, k], the hardest first, -1 where there are fewer.
    Raises: FileNotFoundError, ValueError when the file holds something else, or was not mined from
        this split.
    """
    if path is None:
        return None
    try:
        stored = read_archive(Path(path))
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"data.explicit_negatives: {error}") from error
    remedy = f"mine the {split.name} split with `goal-kernels mine RUN --output FILE.npz`"
    if NAME not in stored:
        raise ValueError(
            f"data.explicit_negatives: expected {NAME} in {path}, found {sorted(stored)}; {remedy}"
        )
    found, images, captions = stored[NAME], len(split.image_ids), len(split.captions)
    if found.dtype.kind not in "iu" or found.ndim != 2 or len(found) != images:
        raise ValueError(
            f"data.explicit_negatives: expected captions for each of the {images:,} images of "
            f"{split.name} in {path}, got {found.dtype} of shape {found.shape}; {remedy}"
        )
    found = found.astype(np.int64)
    if found.size and not -1 <= found.min() <= found.max() < captions:
        raise ValueError(
            f"data.explicit_negatives: expected rows of the {captions:,} captions of {split.name} "
            f"in {path}, got {found.min()} to {found.max()}; {remedy}"
        )
    own = (found >= 0) & (split.image_of_caption[found] == np.arange(images)[:, None])
    if own.any():
        image = int(np.flatnonzero(own.any(axis=1))[0])
        raise ValueError(
            f"data.explicit_negatives: expected captions of other images in {path}, got one of its "
            f"own for image {image} of {split.name}; {remedy}"
        )
    return found
