"""The precomputed-feature layout of image-text retrieval: find it, check it, read it, write it.

A folder holds, for each split, ``{split}_ims.npy`` (one array, axis 0 is the image),
``{split}_caps.txt`` (one caption a line, the captions of an image on consecutive lines) and
optionally ``{split}_ids.txt`` (one integer id a feature row). It is the layout of VSE++, SCAN and
VSE-infinity. Two optional files of this library stand beside them: ``{split}_truth.npz`` (a
:class:`~goal_kernels.data.truth_relation.TruthRelation`) and ``{split}_scenes.jsonl``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from goal_kernels.data.feature_rows import (
    Features,
    first_rows_of_runs,
    pick_rows,
    unusable_rows,
)
from goal_kernels.data.files import replacing, write_text
from goal_kernels.data.truth_relation import TruthRelation


@dataclass(frozen=True)
class PrecomputedSplit:
    """One split of a precomputed-feature folder, with the caption to image index made explicit.

    Attributes:
        folder: the folder that holds the files.
        name: the split's name, ``"train"`` for instance.
        features: [N, K, D] region features, memory-mapped and read-only, in the file's dtype:
            an array view, or where repeated rows follow no fixed step a ``FeatureRows``, which
            is indexed in the same way (``features[images]``).
        captions: M captions, stripped of surrounding white space.
        image_of_caption: int64 [M], the image row of each caption, ascending.
        image_ids: int64 [N], ``0 .. N - 1`` when the folder has no ids file.
        truth: which captions are true of which images, where the folder says so.
    """

    folder: Path
    name: str
    features: Features
    captions: list[str]
    image_of_caption: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    truth: TruthRelation | None = None

    @cached_property
    def scenes(self) -> list[dict[str, Any]] | None:
        """One record an image from ``{split}_scenes.jsonl``, or None; read on first use."""
        path = self.folder / f"{self.name}_scenes.jsonl"
        if not path.is_file():
            return None
        records = [json.loads(line) for line in _lines(path)[: len(self.image_ids)]]
        if len(records) != len(self.image_ids):
            raise ValueError(
                f"{path}: expected {len(self.image_ids)} lines, one an image, "
                f"found {len(records)}; write the folder again"
            )
        return records


def load_split(folder: str | Path, split: str, *, limit: int | None = None) -> PrecomputedSplit:
    """Open one split, check that its files belong together, and index its captions.

    The number of captions must be a whole multiple of the number of feature rows. When both are
    equal and rows come in consecutive identical runs (an image's row repeated for each of its
    captions), each run is one image; the file is read by index, not copied. Features are checked
    for NaN and infinity as far as ``feature_rows.unusable_rows`` says (all of a small file, a
    sample of a large one).

    Args:
        folder: the folder of the files (``coco_precomp/`` say), or its parent when the folder
            is called ``precomp``.
        split: ``"train"``, ``"dev"``, ``"test"``, ``"testall"`` or any other prefix present.
        limit: keep the first ``limit`` images with their captions. The published dev figures of
            the VSE++ family use ``limit=1000``.

    Raises:
        FileNotFoundError: a file is missing; the message lists the splits that are present.
        ValueError: counts do not fit together, or features or ids are unusable.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit: expected at least 1 image or None, got {limit}")
    root = _find_root(Path(folder), split)
    features = _open_features(root / f"{split}_ims.npy")
    captions = [line.strip() for line in _lines(root / f"{split}_caps.txt")]
    row_of_image, image_of_caption = _align(features, len(captions), root, split)
    ids = _read_ids(root / f"{split}_ids.txt", len(features), row_of_image)
    truth = _read_truth(root / f"{split}_truth.npz", len(captions), len(row_of_image))

    images = len(row_of_image) if limit is None else min(limit, len(row_of_image))
    kept = int(np.searchsorted(image_of_caption, images))
    rows = pick_rows(features, row_of_image[:images])
    broken = unusable_rows(rows)
    if len(broken):
        raise ValueError(
            f"{root / f'{split}_ims.npy'}: {len(broken)} of the checked images hold NaN or "
            f"infinite features, first image {broken[0]}; extract those features again"
        )
    if truth is not None and images < len(row_of_image):
        truth = truth.prefix(kept, images)
    return PrecomputedSplit(
        root, split, rows, captions[:kept], image_of_caption[:kept], ids[:images], truth
    )


def write_split(
    folder: str | Path,
    split: str,
    features: ArrayLike,
    captions: Sequence[str],
    *,
    image_ids: Sequence[int] | NDArray[np.integer] | None = None,
    truth: TruthRelation | None = None,
) -> None:
    """Write one split in the precomputed layout, each file in full or not at all.

    Args:
        folder: where to; made when missing, files of the same split are replaced.
        split: prefix of the file names.
        features: [N, K, D] (or [N, D]) floating-point features, one row an image.
        captions: N·k captions, the k of image 0 first; line breaks inside one become spaces.
        image_ids: N integers, ``0 .. N - 1`` when None.
        truth: relation of shape (N·k, N) to store with them.

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
    _captions_per_row(len(captions), len(array), f"captions of split {split!r}")
    if truth is not None and truth.shape != (len(captions), len(array)):
        raise ValueError(f"truth: expected shape {(len(captions), len(array))}, got {truth.shape}")
    broken = unusable_rows(array.reshape(len(array), -1, array.shape[-1]))
    if len(broken):
        raise ValueError(
            f"features: {len(broken)} rows hold NaN or infinity, first row {broken[0]}"
        )
    root = Path(folder)
    with replacing(root / f"{split}_ims.npy") as temporary, temporary.open("wb") as stream:
        np.lib.format.write_array(stream, array, allow_pickle=False)
    write_lines(root / f"{split}_caps.txt", [" ".join(caption.split()) for caption in captions])
    write_lines(root / f"{split}_ids.txt", [str(index) for index in ids.tolist()])
    if truth is not None:
        truth.save(root / f"{split}_truth.npz")


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write ``lines`` with a line feed after each, in full or not at all."""
    write_text(path, "".join(f"{line}\n" for line in lines))


def _find_root(folder: Path, split: str) -> Path:
    """The folder that holds the split's features: ``folder`` or ``folder/precomp``."""
    for root in (folder, folder / "precomp"):
        if (root / f"{split}_ims.npy").is_file():
            return root
    present = sorted(
        path.name.removesuffix("_ims.npy")
        for root in (folder, folder / "precomp")
        for path in root.glob("*_ims.npy")
    )
    found = f"it has the splits {present}" if present else "it has no *_ims.npy at all"
    raise FileNotFoundError(
        f"{folder}: expected {split}_ims.npy there or in its precomp/ folder; {found}"
    )


def _open_features(path: Path) -> NDArray[np.floating]:
    """Map the features [rows, K, D]; a file of [rows, D] is seen as K = 1."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim == 2:
        array = array[:, None, :]
    if array.ndim != 3 or 0 in array.shape or array.dtype.kind != "f":
        raise ValueError(
            f"{path}: expected a filled floating-point array [rows, K, D] or [rows, D], "
            f"found {array.dtype} {array.shape}"
        )
    return array


def _lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, split at line feeds only (captions may hold other separators)."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; the split needs it beside its _ims.npy")
    lines = path.read_bytes().decode("utf-8").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _captions_per_row(captions: int, rows: int, what: str) -> int:
    """captions / rows, which must be a positive whole number."""
    if captions == 0 or captions % rows:
        raise ValueError(
            f"{what}: expected a whole multiple of the {rows} feature rows, got {captions} "
            f"captions (ratio {captions / rows:.4g}); use the captions and features of one split"
        )
    return captions // rows


def _align(
    features: NDArray[np.floating], captions: int, root: Path, split: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Feature row of each image [N], and image of each caption [M]."""
    rows = len(features)
    ratio = _captions_per_row(captions, rows, str(root / f"{split}_caps.txt"))
    starts = np.arange(rows) if ratio > 1 else first_rows_of_runs(features)
    lengths = np.diff(np.append(starts, rows)) * ratio
    return starts, np.repeat(np.arange(len(starts)), lengths)


def _read_ids(path: Path, rows: int, row_of_image: NDArray[np.int64]) -> NDArray[np.int64]:
    """The id of each image [N], from one id a feature row or one id an image."""
    if not path.is_file():
        return np.arange(len(row_of_image))
    lines = _lines(path)
    try:
        ids = np.array([int(line) for line in lines], dtype=np.int64)
    except ValueError as error:
        raise ValueError(f"{path}: expected one integer a line; {error}") from error
    if len(ids) == rows:
        return ids[row_of_image]
    if len(ids) == len(row_of_image):
        return ids
    raise ValueError(
        f"{path}: expected {rows} ids, one a feature row, found {len(ids)}; "
        "remove the file to number the images 0, 1, 2, ..."
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
