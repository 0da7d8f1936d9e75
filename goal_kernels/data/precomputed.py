"""The precomputed-feature layout of image-text retrieval: check it, read it, write it.

A folder holds, for each split, ``{split}_ims.npy`` (one array, axis 0 is the image),
``{split}_caps.txt`` (one caption a line, the captions of an image on consecutive lines) and
optionally ``{split}_ids.txt`` (one integer id a feature row). It is the layout of VSE++, SCAN and
VSE-infinity. Four optional files of this library stand beside them:
``{split}_image_of_caption.npy`` (int64 [M], for captions that do not come k an image),
``{split}_groups.txt`` (a text a feature row; equal ones are images of one thing),
``{split}_truth.npz`` (a :class:`~goal_kernels.data.truth_relation.TruthRelation`) and
``{split}_scenes.jsonl``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from goal_kernels.data.arrays import open_array
from goal_kernels.data.feature_rows import first_rows_of_runs, pick_rows, row_faults
from goal_kernels.data.files import read_integers, read_lines, replacing, write_lines
from goal_kernels.data.layout import FEATURES, GROUPS, INDEX, find_features
from goal_kernels.data.split import PrecomputedSplit, all_or_none, group_name
from goal_kernels.data.truth_relation import TruthRelation

_BREAKS = re.compile(r"[\r\n]+")


def load_split(folder: str | Path, split: str, *, limit: int | None = None) -> PrecomputedSplit:
    """Open one split, check that its files belong together, and index its captions.

    Without an index file the number of captions must be a whole multiple of the number of feature
    rows. When both are equal and rows come in consecutive identical runs (an image's row repeated
    for each of its captions), each run is one image; the file is read by index, not copied.
    All features are read once to see that float32 can hold them.

    Args:
        folder: the folder of the files (``coco_precomp/`` say), or the one above it.
        split: ``"train"``, ``"dev"``, ``"test"``, ``"testall"`` or any other prefix present.
        limit: keep the first ``limit`` images with their captions. The published dev figures of
            the VSE++ family use ``limit=1000``.

    Raises:
        FileNotFoundError: a file is missing; the message lists the splits that are present.
        ValueError: counts do not fit together, or features or ids are unusable.
    """
    opened = open_split(folder, split, limit=limit)
    refuse_unusable(opened)
    return opened


def open_split(folder: str | Path, split: str, *, limit: int | None = None) -> PrecomputedSplit:
    """`load_split` without a look at the features, whose file is mapped and not read.

    Only where captions and rows are equally many, the first numbers of each row are read, and the
    rows that seem to repeat their neighbour.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit: expected at least 1 image or None, got {limit}")
    root = find_features(Path(folder), split)
    stored = open_features(root / f"{split}{FEATURES}")
    captions = read_captions(root, split)
    row_of_image, image_of_caption = _align(stored, len(captions), root, split)
    places = len(stored), row_of_image, image_of_caption
    ids = _read_ids(root / f"{split}_ids.txt", *places)
    opened = PrecomputedSplit(
        folder=root,
        name=split,
        features=pick_rows(stored, row_of_image),
        captions=captions,
        image_of_caption=image_of_caption,
        image_ids=np.arange(len(row_of_image)) if ids is None else ids,
        numbered=ids is None,
        group_names=_read_groups(root / f"{split}{GROUPS}", *places),
        truth=_read_truth(root / f"{split}_truth.npz", len(captions), len(row_of_image)),
    )
    if limit is None or limit >= len(row_of_image):
        return opened
    kept = int(np.searchsorted(image_of_caption, limit))
    return replace(
        opened,
        features=pick_rows(stored, row_of_image[:limit]),
        captions=captions[:kept],
        image_of_caption=image_of_caption[:kept],
        image_ids=opened.image_ids[:limit],
        group_names=opened.group_names and opened.group_names[:limit],
        truth=opened.truth.prefix(kept, limit) if opened.truth is not None else None,
    )


def refuse_unusable(split: PrecomputedSplit) -> None:
    """Raise ``ValueError`` when an image has features that float32 cannot hold; reads all."""
    broken, _ = row_faults(split.features)
    if len(broken):
        raise ValueError(
            f"{split.folder / f'{split.name}{FEATURES}'}: expected finite numbers within float32, "
            f"found NaN, infinite or larger ones in {len(broken)} images, first image "
            f"{broken[0]} (from 0, repeated rows counted once); extract those features again"
        )


def write_split(
    folder: str | Path,
    split: str,
    features: ArrayLike,
    captions: Sequence[str],
    *,
    image_of_caption: Sequence[int] | NDArray[np.integer] | None = None,
    image_ids: Sequence[int] | NDArray[np.integer] | None = None,
    groups: Sequence[str | int] | None = None,
    truth: TruthRelation | None = None,
) -> None:
    """Write one split in the precomputed layout, each file in full or not at all.

    Args:
        folder: where to; made when missing, files of the same split are replaced.
        split: prefix of the file names.
        features: [N, K, D] (or [N, D]) floating-point features, one row an image.
        captions: M captions, those of image 0 first; line breaks inside one become spaces.
        image_of_caption: M ascending image rows, each image at least once; k captions an image
            when None. Stored only where the images do not all have equally many captions.
        image_ids: N integers, ``0 .. N - 1`` when None.
        groups: N texts or integers, equal ones for images of one thing.
        truth: relation of shape (M, N) to store with them.

    Raises:
        TypeError: ``features`` are not floating point.
        ValueError: the counts do not fit together or a feature is not finite.
    """
    array = np.asanyarray(features)
    if array.dtype.kind != "f":
        raise TypeError(f"features: expected floating point, got {array.dtype}; cast them first")
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(f"features: expected a filled [N, K, D] or [N, D], got {array.shape}")
    ids = np.arange(len(array)) if image_ids is None else np.asarray(image_ids)
    if ids.shape != (len(array),) or ids.dtype.kind not in "iu":
        raise ValueError(
            f"image_ids: expected {len(array)} integers, got {ids.dtype} of shape {ids.shape}"
        )
    names = None if groups is None else [group_name(group, "groups") for group in groups]
    if names is not None and (len(names) != len(array) or None in names):
        raise ValueError(f"groups: expected {len(array)} texts or integers, got {str(groups)[:80]}")
    index = _index_to_write(len(captions), len(array), split, image_of_caption)
    if truth is not None and truth.shape != (len(captions), len(array)):
        raise ValueError(f"truth: expected shape {(len(captions), len(array))}, got {truth.shape}")
    broken, _ = row_faults(array.reshape(len(array), -1, array.shape[-1]))
    if len(broken):
        raise ValueError(
            "features: expected finite numbers within float32, found NaN, infinite or larger ones "
            f"in {len(broken)} rows, first row {broken[0]}; extract them again"
        )
    root = Path(folder)
    with replacing(root / f"{split}{FEATURES}") as temporary, temporary.open("wb") as stream:
        np.lib.format.write_array(stream, array, allow_pickle=False)
    write_texts(root, split, captions, index, ids, names)
    if truth is not None:
        truth.save(root / f"{split}_truth.npz")


def _index_to_write(
    captions: int, rows: int, split: str, given: Sequence[int] | NDArray[np.integer] | None
) -> NDArray[np.int64]:
    """The image row of each caption [M]: the one given, checked, or captions / rows an image."""
    if given is None:
        ratio = _captions_per_row(captions, rows, f"captions of split {split!r}")
        return np.arange(captions) // ratio
    return check_index(np.asarray(given), captions, rows, "image_of_caption")


def write_texts(
    root: Path,
    split: str,
    captions: Sequence[str],
    image_of_caption: NDArray[np.int64],
    image_ids: NDArray[np.integer],
    groups: Sequence[str | None] | None = None,
) -> None:
    """Write captions [M], ids [N], groups [N] if any, and the index [M] where it is needed.

    It is where captions are not k an image.
    """
    lines = [" ".join(part.strip() for part in _BREAKS.split(caption)) for caption in captions]
    write_lines(root / f"{split}_caps.txt", lines)
    write_lines(root / f"{split}_ids.txt", [str(index) for index in image_ids.tolist()])
    group_file = root / f"{split}{GROUPS}"
    group_file.unlink(missing_ok=True)  # of an older split
    if groups is not None:
        write_lines(group_file, [str(group) for group in groups])
    times = np.bincount(image_of_caption, minlength=len(image_ids))
    index_file = root / f"{split}{INDEX}"
    if times.min() == times.max():
        index_file.unlink(missing_ok=True)  # of an older, ragged split
        return
    with replacing(index_file) as temporary, temporary.open("wb") as stream:
        np.lib.format.write_array(stream, image_of_caption.astype(np.int64), allow_pickle=False)


def open_features(path: Path) -> NDArray[np.floating]:
    """Map the features [rows, K, D]; a file of [rows, D] is seen as K = 1.

    Raises ``ValueError`` when the file is no such array, torn, or would have to be unpickled.
    """
    array = open_array(path)
    if array.ndim == 2:
        array = array[:, None, :]
    if array.ndim != 3 or 0 in array.shape or array.dtype.kind != "f":
        raise ValueError(
            f"{path}: expected a filled floating-point array [rows, K, D] or [rows, D], "
            f"found {array.dtype} {array.shape}; extract the features again, or cast them"
        )
    return array


def read_captions(root: Path, split: str) -> list[str]:
    """The M captions of a split, stripped."""
    path = root / f"{split}_caps.txt"
    if not path.is_file():
        raise FileNotFoundError(
            f"no file {path}; the split needs it beside its {FEATURES}, one caption a line"
        )
    return [line.strip() for line in read_lines(path)]


def check_index(
    index: NDArray[np.integer], captions: int, images: int, what: str
) -> NDArray[np.int64]:
    """The image row of each caption [M] as int64, ascending and covering all N images, or raise."""
    if index.shape != (captions,) or index.dtype.kind not in "iu":
        raise ValueError(
            f"{what}: expected {captions} integers, one a caption, got {index.dtype} of shape "
            f"{index.shape}"
        )
    steps = np.diff(index.astype(np.int64), prepend=0)
    if captions == 0 or index[-1] != images - 1 or not np.isin(steps, (0, 1)).all() or index[0]:
        raise ValueError(
            f"{what}: expected image rows from 0 to {images - 1}, ascending, each at least once; "
            "sort the captions by image and leave out images without any"
        )
    return index.astype(np.int64)


def _captions_per_row(captions: int, rows: int, what: str) -> int:
    """captions / rows, which must be a positive whole number."""
    if captions == 0 or captions % rows:
        nearest = max(1, round(captions / rows))
        raise ValueError(
            f"{what}: expected a whole multiple of the {rows} feature rows, got {captions} "
            f"captions ({captions / rows:.4g} a row; {nearest} a row were {nearest * rows}): files "
            "of two splits, or a line lost? Where images have different numbers of captions, "
            f"{{split}}{INDEX} has to say which is whose"
        )
    return captions // rows


def _align(
    features: NDArray[np.floating], captions: int, root: Path, split: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Feature row of each image [N], and image of each caption [M]."""
    rows = len(features)
    index_file = root / f"{split}{INDEX}"
    if index_file.is_file():
        index = open_array(index_file)
        return np.arange(rows), check_index(index, captions, rows, str(index_file))
    ratio = _captions_per_row(captions, rows, str(root / f"{split}_caps.txt"))
    starts = np.arange(rows) if ratio > 1 else first_rows_of_runs(features)
    lengths = np.diff(np.append(starts, rows)) * ratio
    return starts, np.repeat(np.arange(len(starts)), lengths)


def _read_ids(
    path: Path, rows: int, row_of_image: NDArray[np.int64], image_of_caption: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """The id of each image [N], None without a file; see `_of_images`."""
    if not path.is_file():
        return None
    ids = np.array(read_integers(path), dtype=np.int64)
    return _of_images(ids, path, "ids", rows, row_of_image, image_of_caption)


def _read_groups(
    path: Path, rows: int, row_of_image: NDArray[np.int64], image_of_caption: NDArray[np.int64]
) -> list[str] | None:
    """The group of each image, N texts, None without a file; see `_of_images`."""
    if not path.is_file():
        return None
    given = np.array([group_name(line, str(path)) for line in read_lines(path)], dtype=object)
    groups = _of_images(given, path, "groups", rows, row_of_image, image_of_caption).tolist()
    return all_or_none(groups, range(len(groups)), str(path))


def _of_images(
    given: NDArray[Any],
    path: Path,
    noun: str,
    rows: int,
    row_of_image: NDArray[np.int64],
    image_of_caption: NDArray[np.int64],
) -> NDArray[Any]:
    """What a file gives each image [N], from one entry a feature row, an image or a caption."""
    if len(given) == rows:
        return given[row_of_image]
    if len(given) == len(row_of_image):
        return given
    first = np.searchsorted(image_of_caption, np.arange(len(row_of_image)))  # [N]
    if len(given) == len(image_of_caption) and (given == given[first][image_of_caption]).all():
        return given[first]
    raise ValueError(
        f"{path}: expected {rows} {noun}, one a feature row (or each repeated for every caption), "
        f"found {len(given)}; files of two splits, or a line lost? Write it for these features"
    )


def _read_truth(path: Path, captions: int, images: int) -> TruthRelation | None:
    """The stored relation, checked against the counts; None when there is no file."""
    if not path.is_file():
        return None
    truth = TruthRelation.load(path)
    if truth.shape != (captions, images):
        raise ValueError(
            f"{path}: expected a relation of {captions} captions by {images} images, "
            f"found {truth.shape}; write the folder again"
        )
    return truth
