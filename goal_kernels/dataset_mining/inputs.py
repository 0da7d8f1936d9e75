"""What is searched: two sets of embeddings, what belongs together, upper bounds of the scores."""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goal_kernels.data.arrays import open_array, read_archive
from goal_kernels.data.feature_rows import row_faults
from goal_kernels.data.files import read_lines
from goal_kernels.evaluate.alignment import (
    even_index,
    read_index,
    require_floats,
    stored_groups,
)
from goal_kernels.evaluate.inputs import EMBEDDINGS
from goal_kernels.extras import require
from goal_kernels.pairs import cut
from goal_kernels.retrieval.ranks import check_groups

READ_ROWS = 65536
"""Rows that are read at a time where a whole array is gone through."""


@dataclass(frozen=True)
class Search:
    """One direction: every query against the whole corpus.

    Attributes:
        name: "i2t", "t2i", or "" for sets that are neither.
        queries, corpus: [N, D] and [M, D] floats, usually memory maps.
        query_ids, corpus_ids: int64 [N] and [M]; equal ones are no candidates.
        positives: int64 [P, 2], query and corpus rows of pairs, by query; None where unknown.
        query_names, corpus_names: what stands for the rows in tables; None: their numbers.
    """

    name: str
    queries: NDArray[np.floating]
    corpus: NDArray[np.floating]
    query_ids: NDArray[np.int64]
    corpus_ids: NDArray[np.int64]
    positives: NDArray[np.int64] | None
    query_names: list[str] | None
    corpus_names: list[str] | None


@dataclass(frozen=True)
class _Sets:
    """Two sets as they were given. image_of_caption, groups: as a file or a model says, or None."""

    queries: NDArray[np.floating]
    corpus: NDArray[np.floating]
    image_of_caption: NDArray[np.integer] | None = None
    groups: NDArray[np.integer] | None = None
    itself: bool = False


def read_searches(args: argparse.Namespace) -> list[Search]:
    """The directions that were asked for. Raises: FileNotFoundError, ValueError."""
    sets = _read_sets(args)
    names = [
        _read_names(args.query_text, len(sets.queries), "--query-text"),
        _read_names(args.corpus_text, len(sets.corpus), "--corpus-text"),
    ]
    if sets.itself or args.query_ids is not None or args.corpus_ids is not None:
        ids = _read_ids(args, sets)
        return [Search("", sets.queries, sets.corpus, *ids, None, *names)]
    owner = _owner(args, sets)
    captions, owned = np.arange(len(sets.corpus)), np.flatnonzero(owner >= 0)
    images, of_captions = np.arange(len(sets.queries)), owner
    if sets.groups is not None:
        images = check_groups(sets.groups, len(images)).numpy()
        images = np.unique(images, return_inverse=True)[1]
        of_captions = np.where(owner >= 0, images[owner], -1)
    by_image = owned[np.argsort(owner[owned], kind="stable")]
    both = (
        Search(
            *("i2t", sets.queries, sets.corpus, images, of_captions),
            np.stack([owner[by_image], by_image], axis=1),
            *names,
        ),
        Search(
            *("t2i", sets.corpus, sets.queries, of_captions, images),
            np.stack([captions[owned], owner[owned]], axis=1),
            *reversed(names),
        ),
    )
    return [each for each in both if args.direction in ("both", each.name)]


def _read_sets(args: argparse.Namespace) -> _Sets:
    paths: list[Path] = args.inputs
    kinds = [path.suffix for path in paths]
    if kinds == [".npy", ".npy"]:
        sets = _Sets(open_array(paths[0]), open_array(paths[1]))
    elif kinds == [".npy"]:
        rows = open_array(paths[0])
        sets = _Sets(rows, rows, itself=True)
    elif kinds == [".npz"]:
        stored = read_archive(paths[0])
        if not set(EMBEDDINGS) <= set(stored):
            raise ValueError(
                f"{paths[0]}: expected arrays {' and '.join(EMBEDDINGS)}, found {sorted(stored)}"
            )
        image, text = (stored[name] for name in EMBEDDINGS)
        groups = stored_groups(stored, paths[0])
        sets = _Sets(image, text, stored.get("image_of_caption"), groups)
    elif len(paths) == 1:
        sets = _encode(paths[0], args)
    else:
        raise ValueError(
            f"INPUT: expected two .npy files, one .npy or .npz, or one model, got {len(paths)}: "
            f"{' '.join(map(str, paths))}; see --help"
        )
    for side in (sets.queries,) if sets.itself else (sets.queries, sets.corpus):
        require_floats(side, f"embeddings of {' '.join(map(str, paths))}")
    if sets.queries.shape[1] != sets.corpus.shape[1]:
        raise ValueError(
            f"INPUT: expected embeddings of one width, got {sets.queries.shape} and "
            f"{sets.corpus.shape}; project both into one joint space"
        )
    return sets


def _encode(path: Path, args: argparse.Namespace) -> _Sets:
    """The encoded split of a model."""
    require(f"{path}: a model", "train", "pytorch_lightning", "jsonargparse")
    from goal_kernels.evaluate.checkpoints import encode_split, open_run

    data = dict(given.split("=", 1) for given in args.data if "=" in given)
    if len(data) != len(args.data):
        raise ValueError(f"--data: expected NAME=VALUE each, got {' '.join(args.data)}")
    found = encode_split(open_run(path, {**data, "test_split": args.split}, args.device))
    embeddings = found.image_embeddings.numpy(), found.text_embeddings.numpy()
    return _Sets(*embeddings, found.split.image_of_caption, found.split.groups)


def _owner(args: argparse.Namespace, sets: _Sets) -> NDArray[np.int64]:
    """The image row of every caption, -1 for none."""
    images, captions = len(sets.queries), len(sets.corpus)
    if args.image_of_caption is not None:
        owner, what = read_index(args.image_of_caption), f"{args.image_of_caption}"
    elif sets.image_of_caption is not None and args.captions_per_image is None:
        owner, what = sets.image_of_caption, "image_of_caption"
    else:
        each = args.captions_per_image or captions // images
        if images * each != captions:
            raise ValueError(
                f"INPUT: {images:,} images (the first array) with {each} captions each are not "
                f"{captions:,} captions; give the image row of every caption with "
                "--image-of-caption FILE, or ids of both arrays with --query-ids and --corpus-ids"
            )
        return even_index(images, each)
    fits = owner.dtype.kind in "iu" and owner.shape == (captions,)
    if not fits or owner.min() < -1 or owner.max() >= images:
        raise ValueError(
            f"{what}: expected the image row of each of {captions:,} captions, in "
            f"[-1, {images - 1:,}], got {owner.dtype} of shape {owner.shape}"
            + (f" in [{owner.min()}, {owner.max()}]" if fits else "")
        )
    return owner.astype(np.int64)


def _read_ids(args: argparse.Namespace, sets: _Sets) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids of both sides. Without a file each row of a set that meets itself has one of its own."""
    if sets.itself and args.query_ids is None:
        own = np.arange(len(sets.queries))
        return own, own
    if args.query_ids is None or (args.corpus_ids is None and not sets.itself):
        raise ValueError("--query-ids, --corpus-ids: expected both for two sets, got one")
    files = (args.query_ids, args.query_ids if args.corpus_ids is None else args.corpus_ids)
    ids = [read_index(file) for file in files]
    for file, given, side in zip(files, ids, (sets.queries, sets.corpus), strict=True):
        if given.dtype.kind not in "iu" or given.shape != (len(side),):
            raise ValueError(
                f"{file}: expected {len(side):,} integers, got {given.dtype} of shape {given.shape}"
            )
    return ids[0].astype(np.int64), ids[1].astype(np.int64)


def _read_names(path: Path | None, rows: int, option: str) -> list[str] | None:
    if path is None:
        return None
    lines = read_lines(path)
    if len(lines) != rows:
        raise ValueError(f"{option} {path}: expected {rows:,} lines, found {len(lines):,}")
    return lines


def positive_scores(search: Search, normalize: bool) -> NDArray[np.floating]:
    """The score of every query's best positive, [N], in the type of the scores; NaN without one."""
    assert search.positives is not None
    best = np.full(len(search.queries), -np.inf)
    for part in cut(len(search.positives), READ_ROWS):
        query, other = search.positives[part].T
        left, right = (
            side[rows].astype(np.float64)
            for side, rows in ((search.queries, query), (search.corpus, other))
        )
        score = np.einsum("nd,nd->n", left, right)
        if normalize:
            for side in (left, right):
                score /= np.maximum(np.linalg.norm(side, axis=1), 1e-12)
        np.maximum.at(best, query, score)
    best[best == -np.inf] = np.nan
    both = np.result_type(search.queries.dtype, search.corpus.dtype)
    return best.astype(np.float64 if both == np.float64 else np.float32)


def fingerprint(array: NDArray[Any], what: str) -> dict[str, Any]:
    """Shape, type and a checksum of all numbers of an array, embeddings or ids.

    Raises: ValueError for embeddings that are not all finite; both need every number once.
    """
    digest = hashlib.blake2b(digest_size=16)
    broken: list[int] = []
    for part in cut(len(array), READ_ROWS):
        rows = np.ascontiguousarray(array[part])
        digest.update(rows.tobytes())
        if rows.dtype.kind == "f":
            broken += (part.start + row_faults(rows[:, None])[0]).tolist()
    if broken:  # a NaN is above every number, so it would be everyone's negative
        raise ValueError(
            f"{what}: expected finite numbers within float32, found NaN, infinite or larger ones "
            f"in {len(broken):,} of {len(array):,} rows, first row {broken[0]} of "
            f"{list(array.shape)}; encode them again"
        )
    return {"shape": list(array.shape), "dtype": array.dtype.str, "blake2b": digest.hexdigest()}
