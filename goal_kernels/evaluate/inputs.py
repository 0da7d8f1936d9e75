"""Inputs of an evaluation: scores, the image of every caption, notes for the reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goal_kernels.data.arrays import open_array, read_archive
from goal_kernels.evaluate.alignment import (
    Counts,
    captions_per_image,
    check_index,
    even_index,
    repetition,
    require_floats,
    stored_groups,
)
from goal_kernels.retrieval import EmbeddingScores, MatrixScores, MeanScores, Scores

EMBEDDINGS = ("image_embeddings", "text_embeddings")
MATRIX_NAMES = ("similarity", "similarities", "sims", "scores")


@dataclass(frozen=True)
class Alignment:
    """How captions belong to images, as far as the user says.

    Attributes:
        captions_per_image: the same for every image, or None.
        image_of_caption: integers [M], or None.
        transpose: matrices are given captions by images (and embeddings in swapped order).
        normalize: bring the rows of embeddings to unit length first.
    """

    captions_per_image: int | None = None
    image_of_caption: NDArray[np.integer] | None = None
    transpose: bool = False
    normalize: bool = False


@dataclass(frozen=True)
class Member:
    """One input, aligned.

    Attributes:
        name: of the input, for people.
        scores: of N images and M captions.
        image_of_caption: int64 [M].
        notes: what was assumed, a sentence each.
        groups: integers [N], where several images show one thing, or None.
    """

    name: str
    scores: Scores
    image_of_caption: NDArray[np.int64]
    notes: list[str] = field(default_factory=list)
    groups: NDArray[np.integer] | None = None


def read_member(path: Path, alignment: Alignment) -> Member:
    """A saved matrix (`.npy`, `.npz`) or saved embeddings (`.npz`).

    Raises: FileNotFoundError, ValueError.
    """
    if path.suffix == ".npy":
        return matrix_member(str(path), open_array(path), alignment)
    stored = read_archive(path)
    if set(EMBEDDINGS) <= set(stored):
        own = stored.get("image_of_caption")
        image, text = (stored[name] for name in EMBEDDINGS)
        member = embeddings_member(str(path), image, text, alignment, own)
        return replace(member, groups=stored_groups(stored, path))
    named = [name for name in MATRIX_NAMES if name in stored] or list(stored)[: len(stored) == 1]
    if not named:
        raise ValueError(
            f"{path}: expected {' and '.join(EMBEDDINGS)}, or a matrix called {MATRIX_NAMES[0]}, "
            f"found {sorted(stored)}"
        )
    own = stored.get("image_of_caption")
    return matrix_member(str(path), stored[named[0]], alignment, own)


def matrix_member(
    name: str,
    matrix: NDArray,
    alignment: Alignment,
    image_of_caption: NDArray[np.integer] | None = None,
) -> Member:
    """A score matrix [N images, M captions], aligned. Raises: ValueError."""
    given = require_floats(matrix, name)
    scores = MatrixScores(given.T if alignment.transpose else given)
    images, texts = scores.shape
    index = _said_index(alignment, image_of_caption, images, texts, name)
    if index is not None:
        return Member(name, scores, index)
    each = captions_per_image(Counts(images, texts, alignment.captions_per_image, name))
    return Member(name, scores, even_index(images, each), _one_each(images, texts))


def embeddings_member(
    name: str,
    image_embeddings: NDArray,
    text_embeddings: NDArray,
    alignment: Alignment,
    image_of_caption: NDArray[np.integer] | None = None,
) -> Member:
    """Embeddings [N, D] and [M, D], aligned; an image repeated for its captions is taken once.

    Raises: ValueError.
    """
    sides = [
        require_floats(side, f"{part} of {name}")
        for part, side in zip(EMBEDDINGS, (image_embeddings, text_embeddings), strict=True)
    ]
    image, text = sides[::-1] if alignment.transpose else sides
    notes: list[str] = []
    index = _said_index(alignment, image_of_caption, len(image), len(text), name)
    if index is None:
        counts = Counts(len(image), len(text), alignment.captions_per_image, name)
        may_repeat = len(image) == len(text) and alignment.captions_per_image != 1
        each = repetition(image, counts) if may_repeat else 1
        if each > 1:
            notes.append(
                f"{name}: {len(image):,} image rows are {len(image) // each:,} images, each "
                f"{each} times in a row, once for each caption; the first of every {each} counts"
            )
            image = image[::each]
        counts = counts._replace(images=len(image))
        index = even_index(len(image), captions_per_image(counts))
        notes += _one_each(len(image), len(text))
    scores = EmbeddingScores(*_tensors(image, text, alignment.normalize))
    return Member(name, scores, index, notes + _norm_notes(name, scores))


def choose_device(name: str) -> torch.device:
    """The device of `--device`: "auto", or as torch names it. Raises: ValueError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, dtype=torch.uint8, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device: {name!r} cannot be used here: {error}") from error


def _one_each(images: int, texts: int) -> list[str]:
    return ["as many captions as images: one caption an image"] if images == texts else []


def _said_index(
    alignment: Alignment,
    own: NDArray[np.integer] | None,
    images: int,
    texts: int,
    name: str,
) -> NDArray[np.int64] | None:
    """The explicit image of each caption, of the user before the file's; None if neither says."""
    said = alignment.image_of_caption
    index, what = (
        (own, f"image_of_caption of {name}") if said is None else (said, "image-of-caption")
    )
    if index is None:
        return None
    check_index(index, images, texts, what)
    return index.astype(np.int64)


def _tensors(
    image: NDArray[np.floating], text: NDArray[np.floating], normalize: bool
) -> list[Tensor]:
    """Both sides as tensors of one dtype, copied: a map is read-only, and rows may be strided."""
    dtype = np.result_type(image.dtype, text.dtype).newbyteorder("=")
    sides = [torch.from_numpy(np.array(side, dtype=dtype)) for side in (image, text)]
    if normalize:
        sides = [
            torch.nn.functional.normalize(side.double(), dim=1).to(side.dtype) for side in sides
        ]
    return sides


def _norm_notes(name: str, scores: EmbeddingScores) -> list[str]:
    """A note when rows are far from unit length: then scores are no cosines."""
    norms = torch.cat([side.double().norm(dim=1) for side in (scores.image, scores.text)])
    known = norms[norms.isfinite()]
    if len(known) == 0 or ((known - 1).abs() < 0.01).all():
        return []
    return [
        f"{name}: rows have lengths from {known.min():.3g} to {known.max():.3g}; scores are inner "
        "products of the rows as they are, --normalize makes them cosines"
    ]


def combine(members: Sequence[Member]) -> Member:
    """The members as one: their mean when there are several.

    Raises: ValueError when they are not about the same images and captions.
    """
    if len(members) == 1:
        return members[0]
    first = members[0]
    for other in members[1:]:
        if other.scores.shape != first.scores.shape:
            raise ValueError(
                f"{other.name}: expected {first.scores.shape[0]:,} images by "
                f"{first.scores.shape[1]:,} captions like {first.name}, got "
                f"{other.scores.shape[0]:,} by {other.scores.shape[1]:,}; an ensemble needs one "
                "split for all"
            )
        if not np.array_equal(other.image_of_caption, first.image_of_caption):
            raise ValueError(
                f"{other.name}: its captions belong to other images than those of {first.name}; "
                "an ensemble needs one split in one order"
            )
    groups = next((member.groups for member in members if member.groups is not None), None)
    notes = list(dict.fromkeys(note for member in members for note in member.notes))
    name = f"mean of {len(members)} inputs"
    scores = MeanScores([member.scores for member in members])
    return Member(name, scores, first.image_of_caption, notes, groups)
