"""Writing feature files in blocks, whatever the features come from."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from goal_kernels.data.arrays import open_array
from goal_kernels.data.feature_rows import blocks_of
from goal_kernels.data.files import replacing
from goal_kernels.data.layout import FEATURES
from goal_kernels.data.region_tsv import RegionTsv
from goal_kernels.data.split import PrecomputedSplit, Split

_IMAGES_OF_TSV = 64  # read at once


@dataclass(frozen=True)
class FeatureStream:
    """Features on their way: [N, K, D] or [N, D] in all, block by block.

    Attributes:
        shape: of the whole array.
        dtype: of the blocks.
        blocks: makes an iterator over consecutive parts of axis 0.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    blocks: Callable[[], Iterator[NDArray[np.floating]]]


def stream_of_split(split: PrecomputedSplit) -> FeatureStream:
    """The features of a split as they are stored, repeated rows once."""
    features = split.features
    stored = open_array(split.folder / f"{split.name}{FEATURES}")
    shape = features.shape if stored.ndim == 3 else (features.shape[0], features.shape[2])

    def blocks() -> Iterator[NDArray[np.floating]]:
        for part in blocks_of(features):
            block = features[part]
            yield block.reshape(len(block), *shape[1:])

    return FeatureStream(shape, features.dtype, blocks)


def stream_of_tsv(split: Split, regions: RegionTsv) -> FeatureStream:
    """The features of a split's images from TSV files, images with fewer boxes padded with zeros.

    An image is found by its id, or else by the number that its file name ends in.
    """
    ids = _ids_in(regions, split)
    width = regions.read(ids[0]).shape[1]
    shape = (len(ids), regions.most_boxes, width)

    def blocks() -> Iterator[NDArray[np.floating]]:
        for start in range(0, len(ids), _IMAGES_OF_TSV):
            part = ids[start : start + _IMAGES_OF_TSV]
            block = np.zeros((len(part), *shape[1:]), dtype=np.float32)
            for row, identifier in enumerate(part):
                read = regions.read(identifier)
                if read.shape[1] != width:
                    raise ValueError(
                        f"image {identifier}: expected features of {width} numbers as of image "
                        f"{ids[0]}, found {read.shape[1]}"
                    )
                block[row, : len(read)] = read
            yield block

    return FeatureStream(shape, np.dtype(np.float32), blocks)


def _ids_in(regions: RegionTsv, split: Split) -> Sequence[int]:
    """The id [N] under which each image of a split is among the regions."""
    by_id = [] if split.numbered else split.image_ids.tolist()
    by_name = [_number_of(name) for name in split.image_names or ()]
    lacking: Sequence[object] = ()
    for ids in (by_id, by_name):
        lacking = [identifier for identifier in ids if identifier not in regions.places]
        if ids and not lacking:
            return ids
    raise ValueError(
        f"split {split.name!r}: expected features of all {len(split.image_ids)} images in "
        f"{', '.join(path.name for path in regions.paths)}; {len(lacking)} are not there, image "
        f"{lacking[0] if lacking else '?'} for instance; give all the files with --features"
    )


def _number_of(name: str) -> int:
    """The number that a file name ends in, -1 without: COCO_val2014_000000000042.jpg is 42."""
    found = re.search(r"(\d+)$", Path(name).stem)
    return int(found.group()) if found else -1


def write_features(
    path: Path, stream: FeatureStream, half: bool, report: Callable[[int, int], None]
) -> None:
    """Write an .npy file in full or not at all, holding one block at a time.

    Args:
        path: where to.
        stream: the features.
        half: as float16; half the place, and about three decimal digits.
        report: called with (images done, images in all).
    Raises:
        ValueError: a feature is NaN or infinite, or becomes so as float16 or float32.
        OSError: the disk has too little room.
    """
    dtype = np.dtype(np.float16) if half else stream.dtype
    needed = int(np.prod(stream.shape)) * dtype.itemsize
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise OSError(
            f"{path}: needs {needed / 1e9:,.1f} GB, {free / 1e9:,.1f} GB are free; "
            + ("free some" if half else "--half takes half of it")
        )
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
    done = 0
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {**header, "shape": stream.shape})
        for block in stream.blocks():
            with np.errstate(over="ignore"):
                cast = np.ascontiguousarray(block, dtype=dtype)
                # Training computes in float32 whatever the file holds.
                single = cast.astype(np.float32).reshape(len(cast), -1)
            finite = np.isfinite(single).all(axis=1)
            if not finite.all():
                row = int(np.flatnonzero(~finite)[0])
                reason = f"too large for {'float16' if half else 'float32'}"
                if not np.isfinite(block[row]).all():
                    reason = "not finite"
                raise ValueError(
                    f"features of image {done + row} of {path.name}: {reason}; "
                    + ("leave out --half" if "16" in reason else "extract them again")
                )
            file.write(cast.data)
            done += len(cast)
            report(done, stream.shape[0])
