"""The CUDA kernels for compute capability 9.0 (csrc/cuda): mining and ranking, and their calls.

On CPU tensors the same kernel code runs emulated, warp by warp: for tests. docs/hopper.md.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from goal_kernels import native
from goal_kernels.backends.base import Pairing
from goal_kernels.backends.gpu.configs import ALIGNMENT, DTYPES, PADDING
from goal_kernels.backends.gpu.plan import forced_members, forced_programs
from goal_kernels.backends.gpu.records import (
    MiningQuery,
    MiningResult,
    Operands,
    Prepared,
    Wants,
)
from goal_kernels.backends.gpu.score_bounds import (
    BFLOAT16_LOSS,
    CENTRE,
    UNKNOWN,
    make_bounds,
    product_error,
)
from goal_kernels.backends.scores import RankCounts, best_positives, comparable

CAPABILITY = (9, 0)
"""The only one: code for products of a warpgroup runs on no newer architecture."""

WIDEST = 8192
"""Elements of a row that is ranked. Where no product tells, a warp computes 4096 scores while
another waits for it, and a wait that lasts too long counts as a fault."""


def hopper_wants(image: Tensor, query: MiningQuery) -> Wants:
    """What `mine_hopper` needs of a prepared batch; image: as given to `prepare`."""
    return Wants(aligned=True, split=True, mixed=True, sums=query.kind)


def mine_hopper(
    prepared: Prepared, pairing: Pairing, query: MiningQuery
) -> tuple[Prepared, MiningResult]:
    """Run the mining kernel; returns the batch with the operands that it multiplied.

    float32 rows are two bfloat16 parts; at precision "medium" the second part is left out.
    """
    image, text, width = prepared.operands
    if prepared.image.dtype == torch.float32 and query.precision == "medium":
        image, text = image[:, :width], text[:, :width]
    prepared = prepared._replace(operands=Operands(image, text, width))
    result = MiningResult.fixed(prepared)
    fields = {}
    for name, side in (("row", result.rows), ("column", result.columns)):
        for field in ("keys", "sums", "counts", "tops"):
            fields[f"{name}_{field}"] = getattr(side, field)
    arguments = _structure(
        "Mine",
        image=_matrix(image),
        text=_matrix(text),
        operand=DTYPES[image.dtype],
        width=width,
        split=prepared.operands.split,
        programs=forced_programs(),
        members=forced_members(),
        kind=query.kind,
        **pairing._asdict(),
        mixed=prepared.mixed,
        mask_words=prepared.mask_words,
        batch_stats=prepared.batch_stats,
        parts=prepared.batch_stats.shape[1],
        epsilon=query.epsilon,
        slope=query.slope,
        **fields,
    )
    launch("mine", arguments, image.device)
    return prepared, result


def count_ranks(image: Tensor, text: Tensor, owner: Tensor) -> RankCounts:
    """`Backend.rank`: score the positives, then count what beats them. owner: int64 [M]."""
    image, text = _aligned(image), _aligned(text)
    width, device = image.shape[1], image.device
    if width > WIDEST:
        raise ValueError(
            f"image: expected at most {WIDEST} elements a row, got {width}; use backend='triton'"
        )
    images, texts = image.shape[0], text.shape[0]
    split = image.dtype == torch.float32
    operands = (_operand(image), _operand(text)) if split else (image, text)
    positive = torch.empty(texts, dtype=torch.float32, device=device)
    squares = [torch.empty(n, dtype=torch.float64, device=device) for n in (images, texts)]
    scored = _structure(
        "Score",
        image=_matrix(image),
        text=_matrix(text),
        dtype=DTYPES[image.dtype],
        width=width,
        owner=owner,
        image_squares=squares[0],
        text_squares=squares[1],
        positive=positive,
        image_operand=operands[0] if split else None,
        text_operand=operands[1] if split else None,
    )
    launch("score", scored, device)
    text_best = comparable(positive)
    best = best_positives(text_best, owner, images), text_best
    error = product_error(image.dtype, width, BFLOAT16_LOSS)
    bounds = [_bounds(*side, width, error) for side in zip(best, squares, strict=True)]
    counts = [torch.zeros((2, n), dtype=torch.int32, device=device) for n in (images, texts)]
    rank = _structure(
        "Rank",
        image=_matrix(operands[0]),
        text=_matrix(operands[1]),
        operand=DTYPES[operands[0].dtype],
        width=width,
        split=split,
        programs=forced_programs(),
        members=forced_members(),
        scored=scored,
        image_bounds=bounds[0],
        text_bounds=bounds[1],
        image_counts=counts[0],
        text_counts=counts[1],
    )
    launch("rank", rank, device)
    return RankCounts(positive, *counts[0].long(), *counts[1].long())


def _aligned(rows: Tensor) -> Tensor:
    """The rows, or a copy of them, padded with zeros, that TMA can read in whole packs."""
    pack = ALIGNMENT // rows.itemsize
    (_, width), stride = rows.shape, rows.stride(0)
    apart = (width % PADDING, stride % pack, rows.data_ptr() % ALIGNMENT)
    if stride >= width and not any(apart):
        return rows
    return F.pad(rows, (0, -width % PADDING)).contiguous()


def _operand(rows: Tensor) -> Tensor:
    """Room for the two bfloat16 parts of every row."""
    length, width = rows.shape
    return torch.empty((length, 2 * width), dtype=torch.bfloat16, device=rows.device)


def _bounds(best: Tensor, squares: Tensor, width: int, error: float) -> Tensor:
    """`make_bounds` as csrc/cuda/rank.h describes them. best float32, squares float64: [L]."""
    bounds = make_bounds(best, squares.sqrt(), width, error)
    unknown = bounds[UNKNOWN] > 0
    bounds[CENTRE].masked_fill_(unknown, torch.nan)
    bounds[UNKNOWN] = unknown.any(dim=1, keepdim=True).to(bounds.dtype)
    return bounds


def _structure(name: str, /, **fields: Any) -> Any:
    """An argument structure of the native module; fields not named are zero.

    Tensors become their addresses: the caller keeps them until the launch.
    """
    result = getattr(native.load().cuda, name)()
    for field, value in fields.items():
        if value is not None:
            setattr(result, field, value.data_ptr() if isinstance(value, Tensor) else value)
    return result


def _matrix(rows: Tensor) -> tuple[int, int, int]:
    """What the kernels know of a matrix with unit stride along its rows."""
    return rows.data_ptr(), rows.shape[0], rows.stride(0)


def launch(kernel: str, arguments: Any, device: torch.device) -> None:
    """Enqueue a kernel on the current stream of `device`; emulate it for CPU tensors."""
    if device.type == "cpu":
        getattr(native.load().cuda, f"{kernel}_emulated")(arguments)
    else:
        stream = torch.cuda.current_stream(device).cuda_stream
        getattr(native.load().cuda, kernel)(arguments, stream)
