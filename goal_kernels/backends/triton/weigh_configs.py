"""Shapes of the Triton kernels that weigh and that sum gradients, and their codes for words.

Needs no Triton. The launchers and the ahead-of-time check take their compile-time constants from
here.
"""

from __future__ import annotations

from dataclasses import dataclass

from goal_kernels.backends.base import WeightStage
from goal_kernels.backends.triton.configs import KIND_CODES, PARTS, row_block

TRIPLET_CODES = {"constant": 0, "nca": 1, "circle": 2, "hinge": 3}
"""Triplet elements as `formulas` knows them."""

PAIR_CODES = {"constant": 0, "linear": 1, "sigmoid": 2, "linear_ms": 3, "sigmoid_ms": 4}
"""Pair elements as `formulas` knows them."""

DIRECTION_CODES = {"both": 0, "i2t": 1, "t2i": 2}
"""Directions as `weigh_kernel` knows them."""

DENSE_LIMIT = 4096
"""Largest batch whose anchors `weigh_kernel` compares with one another, pair by pair.

It then needs no sort and no further launch, for about 30 instructions a pair. Less than 32768: the
kernel compares positions in inverse lists as int32 `index * B + position` and adds counters as
halves of an int32.
"""

DENSE_BLOCK = 8
"""Anchors of one program when pairs are compared, all in every thread: 128 programs for 1024."""

DENSE_CHUNK = 128
"""Anchors they are compared with at a time: one per thread, so that loads are shared by a block."""

SORTED_BLOCK = 128
"""Anchors of one program when nothing is compared pair by pair: one per thread."""

WEIGH_WARPS = 4
"""Warps of `weigh_kernel`."""

SMALL = 2048
"""Largest batch whose backward is one launch; beyond, `hub_kernel` sums pieces of long lists."""

HUB_CHUNK = 64
"""Entries of an inverse list that one program of `hub_kernel` sums."""

GATHER_WIDTH_LIMIT = 1024
"""Widest slice of a gradient row that one program sums."""


@dataclass(frozen=True)
class GatherShape:
    """How one program sums a slice of a gradient row.

    width: elements of the slice, a power of two. warps: that share it. first: source rows that are
    loaded at once to begin with, two of them the row's own; count: at once from then on, and of
    them `hub_kernel` adds up.
    """

    width: int
    warps: int
    first: int
    count: int


def gather_shape(width: int, itemsize: int, small: bool) -> GatherShape:
    """The shape for rows of `width` elements of `itemsize` bytes.

    A thread loads 16 bytes of a row, so that rows are added up within it. A small batch has too few
    rows to hide how long each waits for memory: it has more source rows in flight.
    """
    block = min(max(32, 1 << (width - 1).bit_length()), GATHER_WIDTH_LIMIT)
    warps = max(1, block * itemsize // (16 * 32))
    return GatherShape(block, warps, 8 if small else 4, 16 if small else 8)


def weighs(stage: WeightStage) -> bool:
    """Whether `weigh_kernel` has the formulas of this stage."""
    return stage.triplet in TRIPLET_CODES and stage.pair in PAIR_CODES


def weigh_constants(
    objective: tuple[str, str, str],
    mining: tuple[str, int, bool],
    normalize: bool,
    dense: bool,
    width: int,
) -> dict[str, int]:
    """Compile-time arguments of `weigh_kernel`.

    Args:
        objective: triplet, pair, direction.
        mining: kind and form of the relative sums; whether similarities are recomputed.
        width: of the embeddings.
    """
    triplet, pair, direction = objective
    kind, sums, rescore = mining
    rows = row_block(width)
    sparse_block = rows["ROWS"] if rescore else SORTED_BLOCK
    return {
        "TRIPLET": TRIPLET_CODES[triplet],
        "PAIR": PAIR_CODES[pair],
        "DIRECTION": DIRECTION_CODES[direction],
        "KIND": KIND_CODES[kind],
        "SUMS": sums,
        "RESCORE": rescore,
        "NORMALIZE": normalize,
        "DENSE": dense,
        "PARTS": PARTS,
        "BLOCK": DENSE_BLOCK if dense else sparse_block,
        "CHUNK": DENSE_CHUNK,
        "WIDTH": rows["WIDTH"],
    }
