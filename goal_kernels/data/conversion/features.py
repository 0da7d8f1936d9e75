"""Writing feature files block by block, from arrays or from the TSV of bottom-up attention."""

from __future__ import annotations

import base64
import binascii
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from goal_kernels.data.arrays import open_array
from goal_kernels.data.feature_rows import blocks_of
from goal_kernels.data.files import mistaken_for, read_head, reading, replacing
from goal_kernels.data.layout import FEATURES
from goal_kernels.data.progress import Progress, no_progress
from goal_kernels.data.split import PrecomputedSplit, Split

_IMAGES_OF_TSV = 64  # read at once
FIELDS = 6
_ID, _BOXES_COUNT, _FEATURES = 0, 3, 5


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
    shape = (len(ids), max(boxes for _, _, boxes in regions.places.values()), width)

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


@dataclass
class RegionTsv:
    """Where the features of each image lie in some TSV files.

    Attributes:
        paths: the files.
        places: for each image id the file's number, the offset of its line, and its boxes.
    """

    paths: Sequence[Path]
    places: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    @classmethod
    def index(cls, paths: Sequence[Path], progress: Progress = no_progress) -> RegionTsv:
        """Read through the files once and note where each image is; the first line of an id counts.

        Raises ``ValueError`` naming file and line when a line is not of this kind.
        """
        found = cls(paths)
        for number, path in enumerate(paths):
            other = mistaken_for(read_head(path))
            if other is not None:
                raise ValueError(f"{path}: expected a TSV of region features, found {other}")
            size = path.stat().st_size
            with reading(path) as stream:
                for line_number, line in enumerate(iter(stream.readline, b""), 1):
                    cells = line.split(b"\t", FIELDS)
                    try:
                        key, boxes = int(cells[_ID]), int(cells[_BOXES_COUNT])
                        if not 0 < boxes <= len(cells[_FEATURES]) * 3 // 16:  # base64 of float32
                            raise ValueError("more boxes than features")
                    except (ValueError, IndexError) as error:
                        raise ValueError(
                            f"{path}: line {line_number}: expected {FIELDS} columns from image_id "
                            f"to base64 features of num_boxes boxes, found {line[:60]!r}; "
                            "fetch the file again"
                        ) from error
                    offset = stream.tell() - len(line)
                    found.places.setdefault(key, (number, offset, boxes))
                    progress(f"index of {path.name}", stream.tell(), size)
        return found

    def read(self, image_id: int) -> NDArray[np.float32]:
        """The features [K, D] of one image; raises ValueError when they are torn."""
        number, offset, boxes = self.places[image_id]
        with reading(self.paths[number]) as stream:
            stream.seek(offset)
            encoded = stream.readline().split(b"\t", FIELDS)[_FEATURES]
        try:
            numbers = np.frombuffer(base64.b64decode(encoded.strip(), validate=True), dtype="<f4")
            return numbers.reshape(boxes, -1)
        except (binascii.Error, ValueError) as error:
            raise ValueError(
                f"{self.paths[number]}: image {image_id}: expected base64 of float32 features of "
                f"{boxes} boxes; {error}; fetch the file again"
            ) from error
