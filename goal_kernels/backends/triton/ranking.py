"""Launch of the Triton ranking kernels: score the positives, then count what beats them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from goal_kernels.backends.rank_bars import any_unknown, make_bars, product_error
from goal_kernels.backends.scores import RankCounts, best_positives, comparable
from goal_kernels.backends.triton.configs import LAUNCH_OPTIONS, RANK_ALIGNMENT
from goal_kernels.backends.triton.runtime import load_kernels

WARPS = 8

PROGRAMS = 512
"""Most programs of a launch: a few per multiprocessor, and their lists are of constant size."""

ITEMS = 4 * PROGRAMS
"""Work items wanted at least, so that no program is left with much more work than another."""

SEGMENT_TILES = 32
"""Row tiles of a work item at most: 4096 rows that all column blocks read stay in the L2 cache."""

SEGMENTS_LIMIT = 2**15

HOPPER = 9
TENSOR_MEMORY = (10, 11)
"""Compute capabilities, by their major number, that accumulate products in tensor memory."""

GROUP = 1024
"""Pairs of a tile that are looked through at once for those to put on the list."""

BACKLOG = 4096
"""Pairs a program puts off before it decides them: enough to do it a full batch at a time."""


@dataclass(frozen=True)
class RankTile:
    """Shape of one similarity tile, its pipeline stages, and how many warps share its rows."""

    rows: int
    columns: int
    width: int
    stages: int
    row_warps: int


def rank_tile(dtype: torch.dtype, major: int) -> RankTile:
    """The tile for embeddings of `dtype` on a device of compute capability `major`.

    Every shape compiles without spilling more than `STACK_LIMIT`. Warps stand 8 x 1 over the
    accumulators of Hopper and 4 x 2 over others. From tensor memory a thread reads a row at a time:
    it keeps counts of fewer columns.
    """
    columns = 64 if dtype == torch.float32 or major in TENSOR_MEMORY else 128
    row_warps = 8 if major == HOPPER else 4
    return RankTile(128, columns, 128 // dtype.itemsize, stages=3, row_warps=row_warps)


def batch_constants(dtype: torch.dtype) -> dict[str, int]:
    """Pairs decided in float64 at a time, and how many of their elements."""
    return {"BATCH": 32, "BATCH_WIDTH": 256 // dtype.itemsize}


def rank_constants(dtype: torch.dtype, major: int, upcast: bool) -> dict[str, object]:
    """Compile-time arguments of `rank_kernel`; `upcast` widens operands before the product."""
    tile = rank_tile(dtype, major)
    return {
        "PRECISION": "tf32x3" if dtype == torch.float32 else "ieee",
        "UPCAST": upcast,
        "BLOCK_ROWS": tile.rows,
        "BLOCK_COLUMNS": tile.columns,
        "BLOCK_WIDTH": tile.width,
        "ROW_WARPS": tile.row_warps,
        "GROUP": GROUP,
        "BACKLOG": BACKLOG,
        **batch_constants(dtype),
    }


def count_ranks(image: Tensor, text: Tensor, owner: Tensor) -> RankCounts:
    """`Backend.rank`. owner: int64 [M], row of each text's image."""
    image, text = _aligned(image), _aligned(text)
    error = product_error(image.dtype, image.shape[1])
    positive = _dots(image, owner, text).float()
    text_best = comparable(positive)
    image_best = best_positives(text_best, owner, image.shape[0])
    image_counts, text_counts = _count(
        image, text, owner, _bars(image, image_best, error), _bars(text, text_best, error)
    )
    return RankCounts(positive, *image_counts.long(), *text_counts.long())


def _aligned(embeddings: Tensor) -> Tensor:
    """Rows as the kernels read them; a copy, padded with zeros, unless they lie so already."""
    width = embeddings.shape[1]
    row, element = embeddings.stride()
    # Elements from row to row, but bytes for where the first one begins.
    apart = (width, row, embeddings.data_ptr())
    if element == 1 and not any(distance % RANK_ALIGNMENT for distance in apart):
        return embeddings
    return F.pad(embeddings, (0, -width % RANK_ALIGNMENT)).contiguous()


def _bars(embeddings: Tensor, best: Tensor, error: float) -> Tensor:
    length = _dots(embeddings, None, embeddings).sqrt()
    return make_bars(best, length, embeddings.shape[1], error)


def _dots(left: Tensor, index: Tensor | None, right: Tensor) -> Tensor:
    """<left[index[p]], right[p]> in float64, [P], summed as the ranking kernel sums them."""
    pairs, width = right.shape
    out = torch.empty(pairs, dtype=torch.float64, device=right.device)
    constants = batch_constants(right.dtype)
    load_kernels().dots_kernel[(-(-pairs // constants["BATCH"]),)](
        out,
        left,
        index,
        right,
        pairs,
        width // RANK_ALIGNMENT,
        left.stride(0) // RANK_ALIGNMENT,
        right.stride(0) // RANK_ALIGNMENT,
        **constants,
        num_warps=WARPS,
        **LAUNCH_OPTIONS,
    )
    return out


def _count(
    image: Tensor, text: Tensor, owner: Tensor, image_bars: Tensor, text_bars: Tensor
) -> tuple[Tensor, Tensor]:
    """Run `rank_kernel`; counts int32 [2, N] and [2, M]: better, ties."""
    device = image.device
    major = torch.cuda.get_device_capability(device)[0] if image.is_cuda else 0
    tile = rank_tile(image.dtype, major)
    (images, width), texts = image.shape, text.shape[0]
    segments, programs = _grid(-(-images // tile.rows), -(-texts // tile.columns))
    pairs = tile.rows * tile.columns
    image_counts = torch.zeros((2, images), dtype=torch.int32, device=device)
    text_counts = torch.zeros((2, texts), dtype=torch.int32, device=device)
    load_kernels().rank_kernel[(programs,)](
        image,
        text,
        owner,
        any_unknown(image_bars, text_bars),
        image_bars,
        text_bars,
        image_counts,
        text_counts,
        torch.empty((programs, pairs), dtype=torch.int8, device=device),
        torch.empty((programs, BACKLOG + pairs + tile.rows), dtype=torch.int32, device=device),
        images,
        texts,
        width // RANK_ALIGNMENT,
        image.stride(0) // RANK_ALIGNMENT,
        text.stride(0) // RANK_ALIGNMENT,
        segments,
        **rank_constants(image.dtype, major, load_kernels().INTERPRETED),
        num_warps=WARPS,
        num_stages=tile.stages,
        **LAUNCH_OPTIONS,
    )
    return image_counts, text_counts


def _grid(tiles: int, blocks: int) -> tuple[int, int]:
    """Segments that the row tiles are cut into for each column block, and programs."""
    segments = max(-(-ITEMS // blocks), -(-tiles // SEGMENT_TILES))
    segments = min(segments, tiles, SEGMENTS_LIMIT)
    return segments, min(PROGRAMS, blocks * segments)
