"""Where scores of images and texts come from: embeddings, a given matrix, the mean of several.

A score matrix is [N images, M texts] and may be far larger than memory: whatever looks at it asks
for blocks of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property, reduce
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goal_kernels import checks
from goal_kernels.backends.base import Backend
from goal_kernels.backends.choice import AUTO, BackendUnavailableError, find_backend, resolve
from goal_kernels.backends.reference_rank import count_blocks
from goal_kernels.backends.scores import LOWEST_SCORE, RankCounts, comparable
from goal_kernels.pairs import cut

Rows: TypeAlias = "slice | NDArray[np.int64]"

BLOCK_SCORES = 1 << 22
"""Scores looked at together: 32 MiB in float64, small beside the inputs and large for a product."""


class Scores(ABC):
    """A score for every image and every text; higher is more similar.

    Attributes:
        shape: (N, M), images by texts, both at least 1.
        compared: dtype in which scores compare. Equal scores tie.
    """

    shape: tuple[int, int]
    compared: torch.dtype = torch.float32

    @abstractmethod
    def block(self, rows: slice, columns: slice) -> NDArray[np.floating]:
        """The numbers themselves, [rows, columns]: products and means in float64, else as given."""

    @abstractmethod
    def select(self, images: slice, texts: Rows) -> Scores:
        """The scores between some of the images and some of the texts."""

    @abstractmethod
    def broken(self) -> dict[str, int]:
        """How much is NaN (or, in embeddings, infinite), by what it is; empty when all is well."""

    def compared_block(self, rows: slice, columns: slice) -> Tensor:
        """Scores as they compare, [rows, columns]: in `compared`, NaN below every number."""
        return comparable(self._rounded(self.block(rows, columns)))

    def count(self, text_to_image: Tensor, backend: str) -> RankCounts:
        """Candidates better than, and tied with, each positive.

        text_to_image: int64 [M] in [0, N), on the CPU. backend: only "auto" and "reference" can
        count scores that are not products.
        """
        if backend not in (AUTO, "reference"):
            raise BackendUnavailableError(
                f"backend {backend!r} counts scores of embeddings only; use 'auto'."
            )

        def block(rows: slice, columns: slice) -> Tensor:
            return self._rounded(self.block(rows, columns))

        return count_blocks(block, text_to_image, self.shape[0])

    def count_groups(self, image_groups: Tensor, text_groups: Tensor) -> tuple[Tensor, Tensor]:
        """`standing_among` of all images among the texts [4, N], and of all texts [4, M].

        What is of a query's own group is a positive. In blocks by torch on the CPU, each computed
        for either direction. image_groups, text_groups: int64 [N] and [M], on the CPU.
        """
        every = slice(None)
        of_images = [
            standing_among(
                self._rounded(self.block(rows, every)), image_groups[rows, None] == text_groups
            )
            for rows in self.blocks_of_images()
        ]
        of_texts = [
            standing_among(
                self._rounded(self.block(every, columns)).T,
                text_groups[columns, None] == image_groups,
            )
            for columns in self.blocks_of_texts()
        ]
        return torch.cat(of_images, dim=1), torch.cat(of_texts, dim=1)

    def blocks_of_images(self) -> list[slice]:
        """Slices of the images; the scores of one slice with all texts are a block."""
        return _slices(self.shape[0], self.shape[1])

    def blocks_of_texts(self) -> list[slice]:
        """Slices of the texts; the scores of one slice with all images are a block."""
        return _slices(self.shape[1], self.shape[0])

    def _rounded(self, numbers: NDArray[np.floating]) -> Tensor:
        dtype = np.float64 if self.compared == torch.float64 else np.float32
        with np.errstate(over="ignore"):  # a float64 beyond float32 is an infinity, and so the best
            return torch.from_numpy(np.array(numbers, dtype=dtype))


def standing_among(scores: Tensor, own: Tensor) -> Tensor:
    """How the best of several positives stands: int64 [4, Q].

    Wrong candidates that are better; that are as good; positives that are; positives that are not
    NaN. scores [Q, C], own [Q, C]: which candidates are positives.
    """
    compared = comparable(scores)
    best = compared.masked_fill(~own, LOWEST_SCORE).amax(dim=1, keepdim=True)
    found = (compared > best) & ~own, (compared == best) & ~own, (compared == best) & own
    return torch.stack([part.sum(dim=1) for part in (*found, own & ~scores.isnan())])


class EmbeddingScores(Scores):
    """Inner products of embeddings: float64 products, which compare rounded to float32.

    Rounding makes ties meaningful: scores that differ by less than float32 resolves tie, whatever
    order a product was summed in.

    Args:
        image_embeddings: [N, D] float, tensor or numpy array; text_embeddings: [M, D], same device.
    Raises: TypeError, ValueError naming the argument.
    """

    def __init__(self, image_embeddings: checks.Rows, text_embeddings: checks.Rows) -> None:
        pair = checks.as_tensor(image_embeddings), checks.as_tensor(text_embeddings)
        self.image, self.text = (side.detach() for side in checks.check_embeddings(*pair))
        checks.check_ordinary("image_embeddings", self.image, data=True)
        checks.check_ordinary("text_embeddings", self.text, data=True)
        self.shape = (len(self.image), len(self.text))
        _check_filled(self.shape)

    @cached_property
    def _numbers(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Both sides in float64 numpy, whose matrix product made the figures of the literature."""
        image, text = (side.cpu().double().numpy() for side in (self.image, self.text))
        return image, text

    def block(self, rows: slice, columns: slice) -> NDArray[np.floating]:
        """Float64 products."""
        image, text = self._numbers
        return np.matmul(image[rows], text[columns].T)

    def select(self, images: slice, texts: Rows) -> Scores:
        chosen = texts if isinstance(texts, slice) else torch.from_numpy(texts)
        return EmbeddingScores(self.image[images], self.text[chosen])

    def broken(self) -> dict[str, int]:
        """Rows of either side that hold NaN or infinity."""
        sides = {"image embeddings": self.image, "text embeddings": self.text}
        counts = {name: int((~side.isfinite().all(dim=1)).sum()) for name, side in sides.items()}
        return {name: count for name, count in counts.items() if count}

    def count(self, text_to_image: Tensor, backend: str) -> RankCounts:
        """See `Scores.count`; on the device of the embeddings."""
        chosen = _choose(backend, self.image)
        return chosen.rank(self.image, self.text, text_to_image.to(self.image.device))


class MatrixScores(Scores):
    """A given matrix [N, M] of float16, float32 or float64 scores, which compare as they are.

    Args:
        matrix: array or tensor; a memory-mapped file is read block by block.
    Raises: TypeError, ValueError naming the argument.
    """

    def __init__(self, matrix: NDArray[np.floating] | Tensor) -> None:
        if isinstance(matrix, Tensor):
            checks.check_ordinary("similarity", matrix, data=True)
            numpy_has_it = matrix.dtype.itemsize > 2 or matrix.dtype == torch.float16
            narrow = matrix.is_floating_point() and not numpy_has_it
            matrix = (matrix.float() if narrow else matrix).detach().cpu().numpy()
        if matrix.dtype.kind != "f" or matrix.dtype.itemsize > 8:
            raise TypeError(
                "similarity: expected float16, float32 or float64 scores, got "
                f"{matrix.dtype}; cast them."
            )
        if matrix.ndim != 2:
            raise ValueError(
                f"similarity: expected a matrix [N images, M texts], got shape {matrix.shape}."
            )
        self.matrix = matrix
        self.shape = (matrix.shape[0], matrix.shape[1])
        _check_filled(self.shape)
        if matrix.dtype.itemsize == 8:
            self.compared = torch.float64

    def block(self, rows: slice, columns: slice) -> NDArray[np.floating]:
        """The scores as given, in their dtype."""
        return self.matrix[rows, columns]

    def select(self, images: slice, texts: Rows) -> Scores:
        return MatrixScores(self.matrix[images][:, texts])

    def broken(self) -> dict[str, int]:
        """Scores that are NaN."""
        every = slice(None)
        count = sum(int(np.isnan(self.block(r, every)).sum()) for r in self.blocks_of_images())
        return {"scores": count} if count else {}


class MeanScores(Scores):
    """The mean of several scores of one set: an ensemble.

    Means are formed in float64 and compare rounded to float32. The mean of inner products is the
    inner product of concatenated embeddings up to a factor, so an ensemble of embeddings is counted
    as one set of wide embeddings, by the same kernels.

    Args:
        members: at least one, all of one shape.
    Raises: ValueError.
    """

    def __init__(self, members: Sequence[Scores]) -> None:
        shapes = {member.shape for member in members}
        if len(shapes) != 1:
            raise ValueError(
                "members: expected scores of one set of images and texts, got shapes (images, "
                f"texts) {sorted(shapes)}; evaluate the same split with every model."
            )
        self.members = list(members)
        self.shape = self.members[0].shape

    def block(self, rows: slice, columns: slice) -> NDArray[np.floating]:
        """Float64 means."""
        return self._mean([member.block(rows, columns) for member in self.members])

    def _mean(self, parts: list[NDArray[np.floating]]) -> NDArray[np.float64]:
        # In the order of the members, as a mean over the first axis of stacked matrices is.
        total = np.zeros(parts[0].shape)
        for part in parts:
            total += part
        return total / len(parts)

    def select(self, images: slice, texts: Rows) -> Scores:
        return MeanScores([member.select(images, texts) for member in self.members])

    def broken(self) -> dict[str, int]:
        """What is broken in the members, added up."""
        parts = [member.broken() for member in self.members]
        names = dict.fromkeys(name for part in parts for name in part)
        return {name: sum(part.get(name, 0) for part in parts) for name in names}

    def count(self, text_to_image: Tensor, backend: str) -> RankCounts:
        """See `Scores.count`; one count over concatenated embeddings where all members are such."""
        embedded = [member for member in self.members if isinstance(member, EmbeddingScores)]
        if len(embedded) < len(self.members):
            return super().count(text_to_image, backend)
        dtype = reduce(torch.promote_types, (member.image.dtype for member in embedded))
        image, text = (
            torch.cat([side.to(dtype) for side in sides], dim=1)
            for sides in zip(*((m.image, m.text) for m in embedded), strict=True)
        )
        return EmbeddingScores(image, text).count(text_to_image, backend)


def as_scores(scores: Any) -> Scores:
    """What a caller means: `Scores`, a matrix [N, M], or (image_embeddings, text_embeddings).

    Raises: TypeError when it is none of these.
    """
    if isinstance(scores, Scores):
        return scores
    if isinstance(scores, Tensor | np.ndarray):
        return MatrixScores(scores)
    if isinstance(scores, tuple | list) and len(scores) == 2:
        return EmbeddingScores(*scores)
    raise TypeError(
        "scores: expected a matrix [N, M], a pair (image_embeddings, text_embeddings) or Scores, "
        f"got {type(scores).__name__}."
    )


def _check_filled(shape: tuple[int, int]) -> None:
    if 0 in shape:
        raise ValueError(
            f"image_embeddings: expected N, M >= 1, got N = {shape[0]}, M = {shape[1]}."
        )


def _slices(size: int, width: int) -> list[slice]:
    """Slices of `size` items of `width` numbers each, `BLOCK_SCORES` numbers at a time."""
    return cut(size, max(1, BLOCK_SCORES // width))


def _choose(name: str, image: Tensor) -> Backend:
    """The backend that ranks. Raises: as `resolve`, also for one that cannot rank."""
    # Scores are exact whatever a backend multiplies, so no precision of its products is asked for.
    call = image.device.type, image.dtype, "high"
    return find_backend(resolve(name, *call, "rank", lambda backend: backend.ranks))
