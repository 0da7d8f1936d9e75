"""Inverse lists by sorting, in torch: which anchors mined an item, for any number of anchors.

A list is a *span* of an *order*: order int64 [E] holds entries grouped by the item they mined, each
group ascending; span int64 [R] holds start << 32 | end of the group of every item. Entries that
mined nothing stand behind the last group. Nothing here synchronises with the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from goal_kernels.backends.answers import Forward

LIST_ROWS = 4
"""Rows of `Forward.hardest` that hold inverse lists: orders of images and texts, then spans."""


def invert(mined: Tensor, items: int) -> tuple[Tensor, Tensor]:
    """Order [S, E] and span [S, items] of the lists of mined int64 [S, E], out of range: none."""
    present = (mined >= 0) & (mined < items)
    keys = torch.where(present, mined, items).int()
    ordered, order = keys.sort(dim=1, stable=True)
    bounds = torch.arange(items + 1, dtype=torch.int32, device=mined.device)
    starts = torch.searchsorted(ordered, bounds.repeat(len(mined), 1))
    return order, (starts[:, :-1] << 32) | starts[:, 1:]


def fill_lists(hardest: Tensor) -> None:
    """Write rows 2 to 5 of int64 [2 + LIST_ROWS, B] from rows 0 and 1."""
    # The list of an image holds texts, those that mined it.
    order, span = invert(hardest[:2].flip(0), hardest.shape[1])
    hardest[2:4] = order
    hardest[4:] = span


def with_lists(hardest: Tensor) -> Tensor:
    """`Forward.hardest` with its lists, [2 + LIST_ROWS, B]; itself where it has them."""
    if hardest.shape[0] == 2 + LIST_ROWS:
        return hardest.contiguous()
    full = hardest.new_empty((2 + LIST_ROWS, hardest.shape[1]))
    full[:2] = hardest
    fill_lists(full)
    return full


def listed(forward: Forward) -> Forward:
    """The forward with inverse lists."""
    return forward._replace(hardest=with_lists(forward.hardest))
