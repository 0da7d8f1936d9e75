"""One batch on its way through the CUDA stages: prepared, mined, finished or weighed."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from goal_kernels.backends.answers import VECTORS, Forward, Found, Scales
from goal_kernels.backends.base import Pairing, SearchQuery, WeightStage
from goal_kernels.backends.cuda.kernels import (
    DTYPES,
    PACK,
    Kernels,
    checked_pairing,
    is_aligned,
    matrix_argument,
    vector,
)

LOG2_E = 1.0 / math.log(2.0)
FLOAT32_MAX = torch.finfo(torch.float32).max

DENSE_POSITIVES = 4096
"""Up to here R+ goes through all positives for every anchor; above they are sorted first."""


class Batch:
    """Launches, in order. Every tensor lives as long as the batch, which is as long as the call.

    Args:
        image, text, pairing, query: as in `Backend.search`.
        threshold: 0-d float32, what the relative sums start at; None: what the query says.
    """

    def __init__(
        self,
        kernels: Kernels,
        image: Tensor,
        text: Tensor,
        pairing: Pairing,
        query: SearchQuery,
        threshold: Tensor | None = None,
    ) -> None:
        self.kernels = kernels
        self.image, self.text = kernels.rows(image, text)
        self.rows, self.columns = self.image.shape[0], self.text.shape[0]
        self.device = self.image.device
        self.pairing = checked_pairing(pairing, self.rows, self.columns, self.device)
        self.query = query
        self.threshold = vector(threshold, "threshold", self._floats(0), 1)
        self.kept: list[Tensor] = []

    def search(self) -> Found:
        """Everything up to the search's answer."""
        rows, both = self.rows, self.rows + self.columns
        sums = 0 if self.query.relative == "none" else both
        found = Found(
            self._floats(rows + both),
            self._integers(both),
            self._floats(sums),
            self._integers(sums),
            self._floats(both if self.query.normalize else 0),
        )
        scales = found.scales
        mined = self._mine(found.positive, scales)
        self.kernels.run("finish", self._finish(mined, found, scales), self.device)
        return found

    def forward(self, stage: WeightStage) -> Forward:
        """Everything up to the value and what a backward needs; as many texts as images."""
        if self.rows != self.columns:
            raise ValueError(f"text: expected {self.rows} rows as images, got {self.columns}")
        batch = self.rows
        vectors = self._floats(VECTORS + 2 if self.query.normalize else VECTORS, batch)
        scales = Scales(*vectors[VECTORS:].unbind())
        sums = 0 if self.query.relative == "none" else 2 * batch
        found = Found(
            vectors[:3].view(-1),
            self._integers(2 * batch),
            self._floats(sums),
            self._integers(sums),
            vectors[VECTORS:].view(-1),
        )
        mined = self._mine(vectors[0], scales)
        result = Forward(self._floats(), vectors, found.indices.view(2, batch))
        finish = self._finish(mined, found, scales)
        self.kernels.run("weigh", self._weigh(finish, result, stage), self.device)
        return result

    def _floats(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    def _integers(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int64, device=self.device)

    def _workspace(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Uninitialised memory that outlives the launches."""
        tensor = torch.empty(shape, dtype=dtype, device=self.device)
        self.kept.append(tensor)
        return tensor

    def _operands(self) -> tuple[str, int, Tensor, Tensor]:
        """What is multiplied: form, padded width, and matrices, the embeddings or room for copies.

        float32 is split into two bfloat16 parts, or rounded to one for precision "medium".
        """
        width, dtype = self.image.shape[1], self.image.dtype
        single = dtype == torch.float32
        whole = all(is_aligned(matrix) for matrix in (self.image, self.text))
        if not single and not self.query.normalize and whole:
            return "rows", width, self.image, self.text
        padded = -(-width // PACK) * PACK
        split = single and self.query.precision != "medium"
        stored = torch.bfloat16 if single else dtype
        length = 2 * padded if split else padded
        images = self._workspace(self.rows, length, dtype=stored)
        texts = self._workspace(self.columns, length, dtype=stored)
        return ("split" if split else "copy"), padded, images, texts

    def _mine(self, positive: Tensor, scales: Scales) -> Any:
        """Prepare, mine, and sum anew where needed; returns what mining was asked."""
        form, width, *operands = self._operands()
        kernels, module = self.kernels, self.kernels.module
        summing, int64, int32 = self.query.relative != "none", torch.int64, torch.int32
        parts = module.prepare_parts(self.rows, self.columns)
        facts = self._workspace(3, parts, dtype=torch.float32)
        keys = self._workspace(self.rows + self.columns, dtype=int64).split_with_sizes(
            (self.rows, self.columns)
        )
        self.tickets = self._workspace(1 + parts, dtype=int32)
        shared = {
            "target": self.pairing.target,
            "image_ids": self.pairing.image_ids,
            "text_ids": self.pairing.text_ids,
            "target_ranges": self._ranges(self.pairing.target),
            "image_ranges": self._ranges(self.pairing.image_ids),
            "text_ranges": self._ranges(self.pairing.text_ids),
            "facts": facts,
            "parts": parts,
            "row_keys": keys[0],
            "column_keys": keys[1],
        }
        if summing:
            shared["row_counts"] = self._workspace(self.rows, dtype=int32)
            shared["column_counts"] = self._workspace(self.columns, dtype=int32)
        prepare = kernels.structure(
            "Prepare",
            **shared,
            image=matrix_argument(self.image),
            text=matrix_argument(self.text),
            dtype=DTYPES[self.image.dtype],
            width=self.image.shape[1],
            normalize=self.query.normalize,
            form=form,
            operand_width=width,
            image_operand=None if form == "rows" else operands[0],
            text_operand=None if form == "rows" else operands[1],
            threshold=self.threshold,
            positive=positive,
            image_scale=scales.image,
            text_scale=scales.text,
            tickets=self.tickets,
        )
        mined = kernels.structure(
            "Mine",
            **shared,
            **(self._sums() if summing else {}),
            image=matrix_argument(operands[0]),
            text=matrix_argument(operands[1]),
            operand="float16" if operands[0].dtype == torch.float16 else "bfloat16",
            width=width,
            split=form == "split",
            kind=self.query.relative,
            epsilon=self.query.epsilon if self.threshold is None else 0.0,
            # A finite slope keeps slope * 0 = 0 for every beta a float64 can hold.
            slope=min(float(self.query.beta) * LOG2_E, FLOAT32_MAX),
            programs=kernels.programs,
        )
        kernels.run("prepare", prepare, self.device)
        kernels.run("mine", mined, self.device)
        if summing:
            kernels.run("resum", mined, self.device)
        return mined

    def _ranges(self, values: Tensor | None) -> Tensor | None:
        """Room for the smallest and largest of each run of values."""
        if values is None:
            return None
        runs = -(-values.shape[0] // self.kernels.module.RANGE_ROWS)
        return self._workspace(2, runs, dtype=torch.int64)

    def _parts(self) -> tuple[int, int]:
        """Of the sums of a row, and of a column."""
        module = self.kernels.module
        return module.mine_row_parts(self.columns), module.mine_column_parts(
            self.rows, self.columns
        )

    def _sums(self) -> dict[str, Tensor]:
        """Room for partial sums, and for partial maxima if these can tie with counted terms."""
        fields = {"sums": torch.float32}
        if self.query.relative == "linear":
            fields["tops"] = torch.int64
        row_parts, column_parts = self._parts()
        result = {}
        for field, dtype in fields.items():
            result[f"row_{field}"] = self._workspace(row_parts, self.rows, dtype=dtype)
            result[f"column_{field}"] = self._workspace(column_parts, self.columns, dtype=dtype)
        return result

    def _finish(self, mined: Any, found: Found, scales: Scales) -> Any:
        """Arguments of the stage that reads what was mined."""
        sides = found.mined
        row_parts, column_parts = self._parts()
        structure = self.kernels.structure
        summing = self.query.relative != "none"
        row, column = (
            structure(
                "Anchors",
                value=value,
                index=index,
                sum=total if summing else None,
                count=count if summing else None,
            )
            for value, index, total, count in (
                (sides.row_value, sides.row_index, sides.row_sum, sides.row_count),
                (sides.column_value, sides.column_index, sides.column_sum, sides.column_count),
            )
        )
        return structure(
            "Finish",
            mined=mined,
            row_parts=row_parts,
            column_parts=column_parts,
            # 16-bit rows are multiplied exactly; what was rounded for mining is not.
            rescore=self.query.normalize or self.image.dtype == torch.float32,
            image=matrix_argument(self.image),
            text=matrix_argument(self.text),
            dtype=DTYPES[self.image.dtype],
            width=self.image.shape[1],
            image_scale=scales.image,
            text_scale=scales.text,
            row=row,
            column=column,
        )

    def _weigh(self, finish: Any, result: Forward, stage: WeightStage) -> Any:
        """Arguments of the stage that goes on to the weights."""
        batch, module = self.rows, self.kernels.module
        groups = -(-batch // module.VALUE_GROUP)
        positive, _, _, positive_weight, row_weight, column_weight = result.vectors[:VECTORS]
        pool: dict[str, Tensor] = {}
        if self.query.relative != "none" and batch > DENSE_POSITIVES:
            infinite = float("inf")
            # No comparison with NaN holds, so it is in no one's set; as infinity it comes last.
            ordered = positive.nan_to_num(infinite, infinite, -infinite).sort().values
            self.kept.append(ordered)
            chunks = -(-batch // module.POOL_CHUNK)
            pool = {
                "pool": ordered,
                "pool_sums": self._workspace(batch, dtype=torch.float64),
                "pool_offsets": self._workspace(chunks, dtype=torch.float64),
            }
        return self.kernels.structure(
            "Weigh",
            **pool,
            finish=finish,
            rule=(stage.triplet, stage.pair, tuple(stage.scalars), stage.direction),
            positive=positive,
            positive_weight=positive_weight,
            row_weight=row_weight,
            column_weight=column_weight,
            anchor_values=self._workspace(batch, dtype=torch.float64),
            group_values=self._workspace(groups, dtype=torch.float64),
            tickets=self.tickets,
            value=result.value,
        )
