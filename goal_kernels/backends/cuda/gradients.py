"""Gradients on the CUDA stages: inverse lists, then every gradient row gathers its source rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from goal_kernels.backends.answers import GradientTerms, Scales
from goal_kernels.backends.cuda.kernels import DTYPES, Kernels, matrix_argument, vector

DENSE_ENTRIES = 4096
"""Up to here positions in the lists are counted, in one launch; above the entries are sorted."""


@dataclass(frozen=True)
class Values:
    """Mined similarities, for rows that are normalised: positive [N], row [N], column [M]."""

    positive: Tensor | None = None
    row: Tensor | None = None
    column: Tensor | None = None


Triple = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Index, weight and similarity of one source row per gradient row, None as in csrc/cuda/apply.h."""


@dataclass(frozen=True)
class Side:
    """What the gradient rows of one side are made of.

    own, source: embeddings of this side and of the other. keys: int64, gradient row of every entry;
    weights, values: of the entries.
    """

    own: Tensor
    own_scale: Tensor | None
    source: Tensor
    source_scale: Tensor | None
    mined: Triple
    positive: Triple
    keys: Tensor
    weights: Tensor
    values: Tensor | None


@dataclass
class Gradients:
    """One call: both sides, and every tensor that the launches need to outlive them."""

    kernels: Kernels
    kept: list[Tensor] = field(default_factory=list)

    def apply(
        self,
        grad_loss: Tensor,
        image: Tensor,
        text: Tensor,
        terms: GradientTerms,
        need: tuple[bool, bool],
        scales: Scales,
        values: Values,
    ) -> tuple[Tensor | None, Tensor | None]:
        """See `Backend.apply`; with scales the gradients of the raw rows."""
        image, text = self.kernels.rows(image, text)
        terms = checked_terms(terms, image.shape[0], text.shape[0])
        self.kept += [image, text, *(x for x in terms if x is not None)]
        if not any(need):
            return None, None
        sides = self._sides(image, text, terms, scales, values)
        outputs = [
            torch.empty(side.own.shape, dtype=side.own.dtype, device=side.own.device)
            if wanted
            else None
            for side, wanted in zip(sides, need, strict=True)
        ]
        lists = self._lists(sides, need, image.device)
        structures = tuple(
            self._structure(side, inverse, out)
            for side, inverse, out in zip(sides, lists, outputs, strict=True)
        )
        like = torch.empty(0, dtype=torch.float32, device=image.device)
        gather = self.kernels.structure(
            "Gather",
            sides=structures,
            grad_loss=vector(grad_loss, "grad_loss", like, 1),
            dtype=DTYPES[image.dtype],
            width=image.shape[1],
        )
        self.kernels.run("gather", gather, image.device)
        return outputs[0], outputs[1]

    def _sides(
        self, image: Tensor, text: Tensor, terms: GradientTerms, scales: Scales, values: Values
    ) -> tuple[Side, Side]:
        own, other = (image, scales.image), (text, scales.text)
        images = Side(
            *own,
            *other,
            mined=(terms.hardest_text, terms.row_weight, values.row),
            positive=(terms.target, terms.positive_weight, values.positive),
            keys=terms.hardest_image,
            weights=terms.column_weight,
            values=values.column,
        )
        keys, weights = terms.hardest_text, terms.row_weight
        positive: Triple = (None, terms.positive_weight, values.positive)
        if terms.target is not None:  # any number of rows may share a positive: entries as well
            keys = torch.cat([keys, terms.target])
            weights = torch.cat([weights, -terms.positive_weight])
            positive = (None, None, None)
        texts = Side(
            *other,
            *own,
            mined=(terms.hardest_image, terms.column_weight, values.column),
            positive=positive,
            keys=keys,
            weights=weights,
            values=values.row,
        )
        return images, texts

    def _lists(
        self, sides: tuple[Side, Side], need: tuple[bool, bool], device: torch.device
    ) -> tuple[Any, Any]:
        """Inverse lists of the sides that are needed; empty structures for the others."""
        counted = all(len(side.keys) <= DENSE_ENTRIES for side in sides)
        lists = []
        for side, wanted in zip(sides, need, strict=True):
            rows, fields = side.own.shape[0], {}
            if wanted and counted:
                order = torch.empty(len(side.keys), dtype=torch.int64, device=device)
                starts = torch.empty(rows + 1, dtype=torch.int64, device=device)
                fields = {"order": order, "starts": starts}
            elif wanted:
                fields = sorted_list(side.keys, rows)
            self.kept += [side.keys, side.weights, *fields.values()]
            lists.append(
                self.kernels.structure(
                    "InverseList", keys=side.keys, entries=len(side.keys), rows=rows, **fields
                )
            )
        if counted:
            invert = self.kernels.structure("Invert", lists=tuple(lists))
            self.kernels.run("invert", invert, device)
        return lists[0], lists[1]

    def _structure(self, side: Side, inverse: Any, out: Tensor | None) -> Any:
        chunks = len(side.keys) // self.kernels.module.HUB_CHUNK
        partial = torch.empty(
            (chunks, side.own.shape[1]), dtype=torch.float32, device=side.own.device
        )
        self.kept.append(partial)
        mined_index, mined_weight, mined_value = side.mined
        positive_index, positive_weight, positive_value = side.positive
        return self.kernels.structure(
            "GatherSide",
            out=out,
            own=matrix_argument(side.own),
            own_scale=side.own_scale,
            source=matrix_argument(side.source),
            source_scale=side.source_scale,
            mined_index=mined_index,
            mined_weight=mined_weight,
            mined_value=mined_value,
            positive_index=positive_index,
            positive_weight=positive_weight,
            positive_value=positive_value,
            list=inverse,
            entry_weight=side.weights,
            entry_value=side.values,
            partial=partial,
        )


def sorted_list(keys: Tensor, rows: int) -> dict[str, Tensor]:
    """Inverse list of keys int64 [entries] by a stable sort: order and starts. No synchronisation.

    A key outside [0, rows) sorts behind the last list.
    """
    keys = torch.where((keys >= 0) & (keys < rows), keys, rows)
    ordered, order = torch.sort(keys, stable=True)
    bounds = torch.arange(rows + 1, device=keys.device)
    return {"order": order, "starts": torch.searchsorted(ordered, bounds)}


def checked_terms(terms: GradientTerms, rows: int, columns: int) -> GradientTerms:
    """The terms, contiguous, once their lengths are known to be right."""
    device = terms.hardest_text.device
    integers = torch.empty(0, dtype=torch.int64, device=device)
    floats = torch.empty(0, dtype=torch.float32, device=device)
    # Weights may be expanded scalars.
    positive, row, column = (weight.contiguous() for weight in terms[3:])
    vector(terms.hardest_text, "hardest_text", integers, rows)
    vector(terms.hardest_image, "hardest_image", integers, columns)
    vector(terms.target, "target", integers, rows)
    vector(positive, "positive_weight", floats, rows)
    vector(row, "row_weight", floats, rows)
    vector(column, "column_weight", floats, columns)
    return GradientTerms(
        terms.hardest_text, terms.hardest_image, terms.target, positive, row, column
    )
