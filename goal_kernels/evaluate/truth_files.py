"""Which captions are true of which images, from a file: our relation, or JSON as CxC has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from goal_kernels.data.files import read_json, read_text
from goal_kernels.data.truth_relation import TruthRelation

CXC_IDS = {"image_ids": "testall_ids.txt", "caption_ids": "testall_capids.txt"}


def read_truth(path: Path, texts: int, images: int) -> TruthRelation:
    """The relation of M texts and N images that a file holds.

    `.npz`: indptr, indices, shape, as `TruthRelation.save` writes them (GoalWorld's
    `{split}_truth.npz`). `.json`: {"t2i": {caption: [image, ...]}, "i2t": {image: [caption, ...]}},
    either or both, where an entry may also be [id, score]; a pair counts once. Captions and images
    are named by row number; or by the ids, in the order of the rows, of lists "caption_ids" and
    "image_ids" in the same file; or by those of the files `testall_capids.txt` and
    `testall_ids.txt` beside it, as Crisscrossed Captions comes. Pairs of ids that are in no list
    are of another split and left out.

    Raises: FileNotFoundError; ValueError when the file does not fit the set.
    """
    if path.suffix == ".npz":
        truth = TruthRelation.load(path)
    else:
        truth = _read_json(path, texts, images)
    if truth.shape != (texts, images):
        raise ValueError(
            f"{path}: expected a relation of {texts:,} captions by {images:,} images, found "
            f"{truth.shape}; it belongs to another split"
        )
    return truth


def _read_json(path: Path, texts: int, images: int) -> TruthRelation:
    record = read_json(path)
    if not isinstance(record, dict) or not {"t2i", "i2t"} & set(record):
        raise ValueError(f'{path}: expected {{"t2i": {{...}}}}, {{"i2t": {{...}}}} or both')
    rows = {
        name: _rows_of(record.get(name), path, name, count)
        for name, count in (("caption_ids", texts), ("image_ids", images))
    }
    captions, pictures = rows["caption_ids"], rows["image_ids"]
    pairs = {
        (captions.get(str(text)), pictures.get(str(image)))
        for text, found in record.get("t2i", {}).items()
        for image in _ids(found)
    }
    pairs |= {
        (captions.get(str(text)), pictures.get(str(image)))
        for image, found in record.get("i2t", {}).items()
        for text in _ids(found)
    }
    known = [(text, image) for text, image in pairs if text is not None and image is not None]
    by_id = all(name in record or (path.parent / CXC_IDS[name]).is_file() for name in CXC_IDS)
    if not known or (len(known) < len(pairs) and not by_id):
        raise ValueError(
            f"{path}: some of its pairs name captions or images that are not rows of this set of "
            f"{texts:,} captions and {images:,} images; give row numbers from 0, or ids with the "
            'lists "caption_ids" and "image_ids" in the order of the rows'
        )
    truth = np.array(sorted(known))
    split = np.searchsorted(truth[:, 0], np.arange(1, texts))
    return TruthRelation.from_rows(np.split(truth[:, 1], split), images)


def _ids(found: Sequence[Any]) -> list[Any]:
    """The ids of entries that are ids or [id, score]."""
    return [entry[0] if isinstance(entry, list) else entry for entry in found]


def _rows_of(given: Sequence[Any] | None, path: Path, name: str, count: int) -> Mapping[str, int]:
    """Row number by id. Raises: ValueError when there are not as many ids as rows."""
    beside = path.parent / CXC_IDS[name]
    if given is None and beside.is_file():
        given = list(dict.fromkeys(read_text(beside).split()))
    if given is None:
        return {str(row): row for row in range(count)}
    rows = {str(key): row for row, key in enumerate(given)}
    if len(rows) != count:
        raise ValueError(f"{path}: expected {count:,} different {name}, found {len(rows):,}")
    return rows
