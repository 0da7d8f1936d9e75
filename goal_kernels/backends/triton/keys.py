# mypy: allow-untyped-defs, allow-untyped-decorators
"""Mined maxima as integers: value and index of a hardest negative in one int64 that atomics order.

The upper half of a *packed key* is the similarity as an ordered integer (`states.encode`), the
lower half counts indices down, so the largest packed key is the hardest negative and, among equals,
the one of lowest index. A maximum does not depend on the order it is taken in, hence neither does
the result on the grid.
"""

from __future__ import annotations

import triton
import triton.language as tl

from goal_kernels.backends.triton.states import EMPTY, NOWHERE

NOTHING = tl.constexpr(-(2**63))
"""Packed key of an anchor that has no negative (yet)."""


@triton.jit
def pack(key, index):
    """int32 key of `encode`, EMPTY for none, and int32 index >= 0 -> int64."""
    return (key.to(tl.int64) << 32) | (index ^ NOWHERE).to(tl.int64)


@triton.jit
def unpack(packed):
    """int64 -> (int32 key, int32 index); (EMPTY, -1) where there is no negative."""
    key = (packed >> 32).to(tl.int32)
    index = (packed & NOWHERE).to(tl.int32) ^ NOWHERE
    return key, tl.where(key == EMPTY, -1, index)
