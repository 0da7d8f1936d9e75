"""Mining by the vendor library's product, some rows at a time, and a kernel that reads it back."""

from __future__ import annotations

import torch
from torch import Tensor

from goal_kernels.backends.base import Pairing
from goal_kernels.backends.triton.harvest import Harvest, MiningQuery
from goal_kernels.backends.triton.prepared import Prepared
from goal_kernels.backends.triton.strip_configs import (
    CHUNK_TILE,
    StripPlan,
    buffer_rows,
    strip_plan,
)
from goal_kernels.backends.triton.strip_mine import (
    allocate,
    launch_resum,
    launch_strip,
    usual_programs,
    usual_tile,
)


def mine_chunks(prepared: Prepared, pairing: Pairing, query: MiningQuery) -> Harvest:
    """Two launches per chunk of rows: the product, float32 [chunk, M], then `strip_kernel`.

    16-bit operands. The workspace is a buffer of `BUFFER_BYTES`, larger only where 64 rows of
    similarities are, beside the partial sums.
    """
    image, text, _ = prepared.operands
    rows, columns = image.shape[0], text.shape[0]
    step = buffer_rows(columns)
    cuts = [_cut(min(step, rows - start), columns, query.kind) for start in range(0, rows, step)]
    segments = sum(cut.segments for cut in cuts)
    harvest = allocate(prepared, cuts[0]._replace(segments=segments), query.kind)
    buffer = prepared.facts.new_empty((min(step, rows), columns))
    programs = usual_programs(CHUNK_TILE, image.device)
    segment = 0
    for start, cut in zip(range(0, rows, step), cuts, strict=True):
        scores = buffer[: min(step, rows - start)]
        _multiply(image[start : start + step], text, scores)
        tiles = start // CHUNK_TILE.rows, -(-(start + len(scores)) // CHUNK_TILE.rows)
        source = scores, text, scores.stride(0)
        where = (*tiles, segment)
        launch_strip(
            source, prepared, pairing, harvest, (CHUNK_TILE, cut), query, 2 * programs, where
        )
        segment += cut.segments
    if query.kind != "none":
        tile = usual_tile(prepared, pairing, query.kind)
        launch_resum(prepared, pairing, harvest, query, (tile, programs))
    return harvest


def _cut(rows: int, columns: int, kind: str) -> StripPlan:
    """How a chunk of similarities is cut."""
    return strip_plan(CHUNK_TILE, rows, columns, 4 * columns, kind)


def _multiply(image: Tensor, text: Tensor, scores: Tensor) -> None:
    """scores = image @ text.T, 16-bit factors and float32 sums."""
    if image.is_cuda:
        torch.mm(image, text.T, out_dtype=torch.float32, out=scores)
    else:
        torch.mm(image.float(), text.T.float(), out=scores)
