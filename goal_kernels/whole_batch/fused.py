"""Blocks of losses over all negatives, weighed by Triton kernels on GPUs."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from goal_kernels.backends.choice import AUTO, resolve
from goal_kernels.whole_batch.blocks import Batch
from goal_kernels.whole_batch.kinds import (
    Circle,
    Hinges,
    InfoNCE,
    Kind,
    MultiSimilarity,
    Siglip,
    SoftMargin,
)

KERNELS = "goal_kernels.backends.gpu.kernels.epilogues"
"""Imports Triton, which is done with the first call."""


class Epilogues:
    """The kernels of one loss and batch. Sums [tiles, anchors] are over parts of the pairs."""

    def __init__(self, kind: Kind, batch: Batch) -> None:
        self.kind, self.batch = kind, batch
        self.kernels: Any = importlib.import_module(KERNELS)

    def log_sums(self, part: slice, block: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Of negatives: a side, the largest exponents and the sums over that of the largest."""
        most, sums = self._sums(block), self._sums(block)
        outputs = (x.get(axis) for axis in (1, 0) for x in (most, sums))
        self._run("log_sums", part, block, *outputs)
        return [(most[side.axis], sums[side.axis]) for side in self.batch.sides]

    def weigh_exponential(self, part: slice, block: Tensor, offsets: list[Tensor]) -> None:
        """Turn similarities into weights. offsets: [anchors] a side, added to exponents."""
        self._run("exponential", part, block, *self._vectors(part, offsets))

    def weigh_pairs(self, part: slice, block: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Turn similarities into weights. Returns: values [tiles]; a side, sums of weights."""
        values, pull = self._values(block), self._sums(block)
        positive = self._vectors(part, [side.positive[0] for side in self.batch.sides])
        self._run("pairs", part, block, *positive, values, pull.get(1), pull.get(0))
        return values, [pull[side.axis] for side in self.batch.sides]

    def weigh_siglip(self, part: slice, block: Tensor) -> tuple[Tensor, Tensor]:
        """Turn similarities into weights. Returns: values and derivatives by the bias, [tiles]."""
        outputs = self._values(block), self._values(block)
        self._run("siglip", part, block, *outputs)
        return outputs

    def _run(self, kernel: str, part: slice, block: Tensor, *arguments: Tensor | None) -> None:
        batch, question = self.batch, self.batch.question
        ids = None if question.row_ids is None else question.row_ids[part]
        name, *numbers = _numbers(self.kind)
        constants = {"KIND": self.kernels.CODES[name]} if name in self.kernels.CODES else {}
        self.kernels.launch(
            getattr(self.kernels, f"{kernel}_kernel"),
            *(block, (batch.target[part], ids, question.column_ids), *numbers, *arguments),
            **constants,
        )

    def _vectors(self, part: slice, of_sides: list[Tensor]) -> list[Tensor | None]:
        """Vectors [anchors], one a side, as kernels take them: of the rows, of the columns."""
        sides = zip(self.batch.sides, of_sides, strict=True)
        given = {side.axis: vector[side.place(part)] for side, vector in sides}
        return [given.get(1), given.get(0)]

    def _sums(self, block: Tensor) -> dict[int, Tensor]:
        """Uninitialised, by the axis of a side, what tiles sum of anchors: [tiles, anchors]."""
        tiles = self.kernels.tile_counts(block)
        return {
            side.axis: block.new_empty(tiles[side.axis], block.shape[1 - side.axis])
            for side in self.batch.sides
        }

    def _values(self, block: Tensor) -> Tensor:
        """Uninitialised, what tiles sum of their elements: [tiles]."""
        return block.new_empty(self.kernels.tile_counts(block)).flatten()


def _numbers(kind: Kind) -> tuple[Any, ...]:
    """The name of a loss and its numbers, as the kernels know them."""
    match kind:
        case InfoNCE():
            return "info_nce", kind.scale + kind.hardness, 0.0
        case MultiSimilarity():
            return "multi_similarity", kind.beta, kind.lam
        case Circle():
            return "circle", kind.gamma, kind.margin
        case Hinges():
            return "sum_of_hinges", kind.margin
        case SoftMargin():
            return "soft_margin", kind.tau
        case _:
            assert isinstance(kind, Siglip)
            return "siglip", kind.scale, kind.bias


def fused_epilogues(kind: Kind, batch: Batch) -> Epilogues | None:
    """The kernels that serve a loss and a batch; None where torch weighs the blocks.

    They take float32 blocks on GPUs of Triton's. They know neither limits of false negatives, nor
    positives by ids other than SigLIP's, nor label smoothing, nor several texts of an image in
    losses of single negatives.
    """
    question = batch.question
    if batch.dtype != torch.float32 or question.limited or not _has_triton(batch):
        return None
    match kind:
        case InfoNCE():
            served = not kind.smoothing
        case MultiSimilarity() | Circle():
            served = question.row_ids is None
        case Hinges() | SoftMargin():
            served = all(len(side.pairs) == 1 for side in batch.sides)
        case _:
            served = isinstance(kind, Siglip)
    return Epilogues(kind, batch) if served else None


def _has_triton(batch: Batch) -> bool:
    """Whether the rows are on a GPU that Triton's kernels run on."""
    device, dtype = batch.rows.device.type, batch.rows.dtype
    return batch.rows.is_cuda and resolve(AUTO, device, dtype, "high") == "triton"
