"""What the strip kernel is given and what it leaves, in torch alone.

Stands in for the kernels before and after it, and shares no code with them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from mining_literal import Anchor
from sum_units import as_final, from_fields, linear_scale
from torch import Tensor

from goal_kernels.backends.base import Pairing
from goal_kernels.backends.gpu.configs import StripTile
from goal_kernels.backends.gpu.kernels.resum import resum
from goal_kernels.backends.gpu.kernels.strip import mine_strips
from goal_kernels.backends.gpu.records import MiningQuery, MiningResult, Operands, Prepared, Side

NOTHING = -(2**63)
LOG2_E = 1.0 / math.log(2.0)
SMALL = StripTile(32, 16, 16, warps=1, stages=1)
"""4 slices a tile."""


class Query(NamedTuple):
    """kind, threshold, beta as in `RelativeQuery`; split, tile and programs as the launcher's."""

    kind: str = "none"
    threshold: float = 0.0
    beta: float = 0.0
    split: bool = False
    tile: StripTile | None = SMALL
    programs: int = 3


class Run(NamedTuple):
    """A batch after mining."""

    batch: Prepared
    result: MiningResult
    query: Query

    def tensors(self) -> list[Tensor]:
        """Everything a reader of the results reads."""
        wanted: list[Tensor | None] = []
        for keys, sums, counts, tops, _ in self.result[:2]:
            wanted += [keys, counts]
            # Sums that were made again have one field and no ties to leave out.
            again = sums is not None and wide(self)
            wanted += [sums[:1]] if again else [sums, tops]
        return [t for t in wanted if t is not None]


def prepared(image: Tensor, text: Tensor, pairing: Pairing, query: Query) -> Prepared:
    """Padded operands, batch_stats in two parts, empty keys, sums of nothing and mixed blocks."""
    operands = [padded(split(x) if query.split else x[None]) for x in (image, text)]
    lengths = [x.float().norm(dim=1).max() for x in (image, text)]
    lowest = torch.tensor([math.inf, query.threshold], device=image.device)
    batch_stats = torch.stack([lowest, *(torch.stack([x * 0.5, x]) for x in lengths)])
    sides = [Side.empty(x, query.kind) for x in (image, text)]
    for side in sides:
        for started in (side.keys, side.tops):
            if started is not None:
                started.fill_(NOTHING)
        for started in (side.sums, side.counts):
            if started is not None:
                started.zero_()
    blocks = mixed(pairing, len(image), len(text))
    width = operands[0].shape[1] // (2 if query.split else 1)
    return Prepared(
        *(image, text, Operands(*operands, width), None),
        batch_stats.float(),
        *sides,
        torch.zeros(1, dtype=torch.int32, device=image.device),
        None if blocks is None else blocks.to(image.device),
    )


def split(rows: Tensor) -> Tensor:
    """float32 [N, D] -> bfloat16 [2, N, D], the rounded values and what rounding lost."""
    high = rows.bfloat16()
    return torch.stack([high, (rows - high.float()).bfloat16()])


def padded(halves: Tensor) -> Tensor:
    """[halves, N, D] -> [N, halves * D], each half padded to a multiple of 8."""
    wide = torch.nn.functional.pad(halves, (0, -halves.shape[2] % 8))
    return wide.transpose(0, 1).reshape(halves.shape[1], -1).contiguous()


def mixed(pairing: Pairing, rows: int, columns: int) -> Tensor | None:
    """int32 [blocks of 128 rows, words]: bits of 128 columns with pairs that are no negatives."""
    if pairing.target is None and pairing.image_ids is None:
        return None
    target, image_ids, text_ids = pairing
    place = torch.arange(columns)
    own = torch.arange(rows) if target is None else target.cpu()
    none = own[:, None] == place
    if image_ids is not None and text_ids is not None:
        none |= image_ids.cpu()[:, None] == text_ids.cpu()
    row, column = (none.nonzero() // 128).unique(dim=0).unbind(1)
    bits = torch.zeros(-(-rows // 128), -(-columns // 4096), dtype=torch.int64)
    bits.index_put_((row, column // 32), 1 << column % 32, accumulate=True)
    return bits.to(torch.int32)


def run(image: Tensor, text: Tensor, pairing: Pairing, query: Query) -> Run:
    """Prepare and mine."""
    pairing = Pairing(*(None if t is None else t.to(image.device) for t in pairing))
    batch = prepared(image, text, pairing, query)
    slope = min(query.beta * LOG2_E, torch.finfo(torch.float32).max)
    with np.errstate(invalid="ignore", over="ignore"):
        mining = MiningQuery(query.kind, 0.0, slope, "high")
        batch, result = mine_strips(batch, pairing, mining, query.tile, query.programs)
        if query.kind != "none":
            resum(batch, pairing, result, mining, query.tile, query.programs)
    return Run(batch, result, query)


def anchors(run: Run, rows: bool) -> list[Anchor]:
    """value, index, sum, count of every row, or of every column, read in float64."""
    side = run.result.rows if rows else run.result.columns
    keys = side.keys.tolist()
    decoded = [unpacked(key) for key in keys]
    if run.query.kind == "none":
        return [(value, index, 0.0, 0) for value, index in decoded]
    counts, tops = side.counts.tolist(), side.tops
    if wide(run):
        sums = as_final(side.sums).tolist()
    else:
        scale = linear_scale(bound(run), run.query.threshold)
        fields = side.sums.T.tolist()
        sums = [from_fields(anchor, run.query.kind, scale) for anchor in fields]
    found = []
    for anchor, (value, index) in enumerate(decoded):
        top = keys[anchor] if tops is None else int(tops[anchor])
        ties = 1 if tops is None else (top & 0xFFFFFFFF) * (top >> 32 == keys[anchor] >> 32)
        found.append((value, index, *read_sums(run, value, counts[anchor], sums[anchor], ties)))
    return found


def read_sums(run: Run, value: float, count: int, total: float, ties: int) -> tuple[float, int]:
    """Sum and count of one anchor, from its FIXED sum and maximum."""
    kind, threshold, beta = run.query[:3]
    if wide(run):
        return total, count
    reached = value >= threshold
    if kind == "linear":
        total = count * (value - threshold) - total
        count -= ties * reached
    else:
        total = total * math.exp(min(beta * (threshold - value), 700.0)) - reached
        count -= reached
    return (max(total, 0.0), count) if count > 0 else (0.0, 0)


def wide(run: Run) -> bool:
    """`batch_stats.wide_range`."""
    kind, threshold, beta = run.query[:3]
    threshold, most = float(torch.tensor(threshold, dtype=torch.float32)), bound(run)
    if kind == "linear":
        return not (most - threshold <= 64 * most and most < 1e38)
    return not (beta * (most - threshold) < 66.0 and most < 1e38)


def bound(run: Run) -> float:
    """`batch_stats.read_bound`."""
    return (run.batch.batch_stats[1].max() * run.batch.batch_stats[2].max()).item()


def unpacked(packed: int) -> tuple[float, int]:
    """Value and index of a packed key."""
    if packed == NOTHING:
        return -math.inf, -1
    key = packed >> 32
    bits = key if key >= 0 else key ^ 0x7FFFFFFF
    value = torch.tensor(bits, dtype=torch.int32).view(torch.float32).item()
    return value, 2**31 - 1 - (packed & 0x7FFFFFFF)
