"""Calls of the Hopper mining kernel, emulated or on a GPU, and what its raw results mean.

The kernel wants positives, lengths and masks that another kernel prepares and leaves sums that a
third one finishes; both are done here in float64, sharing no code with them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from sum_units import FIELDS, from_fields, linear_scale
from torch import Tensor

from goal_kernels import native

Anchor = tuple[float, int, float, int]
"""value, index, relative sum, relative count"""
Pairing = tuple[Tensor | None, Tensor | None, Tensor | None]
"""target, image_ids, text_ids"""

TILE = 128
INPUTS = ("target", "image_ids", "text_ids", "mixed")
NO_PAIRING: Pairing = (None, None, None)
NOTHING = -(2**63)
MAGNITUDE = 0x7FFFFFFF
NAN_KEY, EMPTY_KEY = MAGNITUDE, -MAGNITUDE - 1


class Query(NamedTuple):
    """kind, threshold and beta of the relative sums; with `split`, rows are [high | low]."""

    kind: str = "none"
    threshold: float = 0.0
    beta: float = 0.0
    split: bool = False


MAXIMA = Query()


class Raw(NamedTuple):
    """Outputs of one call, each (rows, columns); None: there are none of this kind.

    bound: no similarity is larger.
    """

    keys: tuple[Tensor, Tensor]
    sums: tuple[Tensor, Tensor] | None
    counts: tuple[Tensor, Tensor] | None
    tops: tuple[Tensor, Tensor] | None
    bound: float


def aligned(matrix: Tensor) -> Tensor:
    """The same rows, 16 bytes apart, with NaN between them."""
    stride = -(-matrix.shape[1] // 8) * 8 + 8
    return matrix.new_full((len(matrix), stride), math.nan)[:, : matrix.shape[1]].copy_(matrix)


def mixed(pairing: Pairing, rows: int, columns: int) -> Tensor | None:
    """int32 [tiles, words]: bits of the blocks of TILE columns in which a pair is no negative."""
    target, image_ids, text_ids = pairing
    if target is None and image_ids is None:
        return None
    own = torch.arange(rows) if target is None else target
    none = own[:, None] == torch.arange(columns)
    if image_ids is not None and text_ids is not None:
        none |= image_ids[:, None] == text_ids
    words = torch.zeros(-(-rows // TILE), -(-columns // (32 * TILE)), dtype=torch.int64)
    for tile, block in set(zip(*(none.nonzero() // TILE).T.tolist(), strict=True)):
        words[tile, block // 32] |= 1 << block % 32
    return words.to(torch.int32)


def batch_stats(image: Tensor, text: Tensor, query: Query) -> Tensor:
    """float32 [3, 2]: the threshold as smallest positive, greatest lengths. NaN stays NaN."""
    lengths = []
    for matrix in (image, text):
        norm = matrix.double().norm(dim=1)
        lengths.append(math.nan if norm.isnan().any() else float(norm.max()))
    return torch.tensor([[query.threshold, math.inf], [lengths[0], 0.0], [0.0, lengths[1]]])


def call(
    image: Tensor,
    text: Tensor,
    pairing: Pairing = NO_PAIRING,
    query: Query = MAXIMA,
    device: str = "cpu",
    programs: int = 0,
    members: int = 0,
) -> Raw:
    """Run the kernel: `device` "cpu" emulates."""
    kernels = native.load().cuda
    image, text = (aligned(m.to(device)) for m in (image, text))
    blocks = mixed(pairing, len(image), len(text))
    inputs = [None if t is None else t.to(device) for t in (*pairing, blocks)]
    batch = batch_stats(image.cpu(), text.cpu(), query).to(device)
    width = image.shape[1] // (2 if query.split else 1)

    def pair(value: int, *fields: int, dtype: torch.dtype = torch.int64) -> tuple[Tensor, Tensor]:
        first, second = (
            torch.full((*fields, len(x)), value, dtype=dtype, device=device) for x in (image, text)
        )
        return first, second

    summed = query.kind != "none"
    raw = Raw(
        pair(NOTHING),
        pair(0, FIELDS[query.kind]) if summed else None,
        pair(0, dtype=torch.int32) if summed else None,
        pair(NOTHING) if query.kind == "linear" else None,
        float(batch[1].max() * batch[2].max()),
    )
    mine = kernels.Mine()
    mine.image = (image.data_ptr(), len(image), image.stride(0))
    mine.text = (text.data_ptr(), len(text), text.stride(0))
    mine.operand, mine.kind = str(image.dtype).removeprefix("torch."), query.kind
    mine.width, mine.split = width, query.split
    mine.epsilon, mine.slope = 0.0, query.beta * math.log2(math.e)
    mine.parts, mine.programs, mine.members = batch.shape[1], programs, members
    mine.mask_words = 0 if blocks is None else blocks.shape[1]
    pointers = dict(zip(INPUTS, inputs, strict=True), batch_stats=batch)
    for name, both in zip(("keys", "sums", "counts", "tops"), raw, strict=False):
        pointers |= zip((f"row_{name}", f"column_{name}"), both or (), strict=False)
    for name, tensor in pointers.items():
        if tensor is not None:
            setattr(mine, name, tensor.data_ptr())
    if device == "cpu":
        kernels.mine_emulated(mine)
    else:
        kernels.mine(mine, torch.cuda.current_stream().cuda_stream)
    results = (None if both is None else tuple(t.cpu() for t in both) for both in raw[:4])
    return Raw(*results, raw.bound)


def decoded(packed: int) -> tuple[float, int]:
    """Similarity and index of a packed key; (-inf, -1) for nothing."""
    key = packed >> 32
    if key == EMPTY_KEY:
        return -math.inf, -1
    bits = key ^ ((key >> 31) & MAGNITUDE)
    value = (
        math.nan if key == NAN_KEY else torch.tensor(bits, dtype=torch.int32).view(torch.float32)
    )
    return float(value), MAGNITUDE - (packed & MAGNITUDE)


def finished(raw: Raw, side: int, query: Query) -> list[Anchor]:
    """Answers for the rows (0) or the columns (1), from sums that start at the threshold."""
    anchors = []
    for k, packed in enumerate(raw.keys[side].tolist()):
        value, index = decoded(packed)
        total, count = 0.0, 0
        if query.kind != "none":
            scale = linear_scale(raw.bound, query.threshold)
            total = from_fields(raw.sums[side][:, k].tolist(), query.kind, scale)
            count = int(raw.counts[side][k])
            above = value - query.threshold
            if query.kind == "linear":
                top = int(raw.tops[side][k])
                ties = (top & 0xFFFFFFFF) * (top >> 32 == packed >> 32)
                total = count * above - total if count else 0.0
                count -= ties
            else:
                total = total * math.exp(-query.beta * above) - (above >= 0) if count else 0.0
                count -= above >= 0
        anchors.append((value, index, total, count))
    return anchors
