"""Launch of the Triton mining kernels: partial states per tile group, then one state per anchor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from goal_kernels.backends.base import Pairing, RelativeQuery
from goal_kernels.backends.triton.configs import (
    COLLAPSE_BLOCK,
    KIND_CODES,
    LAUNCH_OPTIONS,
    SLOTS,
    STATE_FIELDS,
    WARPS,
    mine_constants,
    mine_tile,
)
from goal_kernels.backends.triton.runtime import load_kernels

LOG2_E = 1.0 / math.log(2.0)
FLOAT32_MAX = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class Anchors:
    """Collapsed states of the rows or of the columns, each [length]; [0] where not asked for."""

    value: Tensor
    index: Tensor
    total: Tensor
    count: Tensor


class MineLaunch:
    """One mining call: its embeddings (rows of unit inner stride) and its relative query."""

    def __init__(self, image: Tensor, text: Tensor, relative: RelativeQuery) -> None:
        self.image = image
        self.text = text
        self.kind = relative.kind
        self.threshold = None if relative.kind == "none" else relative.threshold
        # A finite slope keeps slope * 0 = 0 for every beta a float64 can hold.
        self.slope = min(float(relative.beta) * LOG2_E, FLOAT32_MAX)

    def partial_states(self, pairing: Pairing, precision: str) -> tuple[Tensor, Tensor]:
        """Run `mine_kernel`; int32 workspaces [fields, slots, N] and [fields, slots, M]."""
        image, text = self.image, self.text
        tile = mine_tile(image.dtype, precision, self.kind)
        row_groups = min(SLOTS, -(-image.shape[0] // tile.rows))
        column_groups = min(SLOTS, -(-text.shape[0] // tile.columns))
        fields = STATE_FIELDS[self.kind]
        row_states = _words(image.device, fields, column_groups, image.shape[0])
        column_states = _words(image.device, fields, row_groups, text.shape[0])
        kernels = load_kernels()
        kernels.mine_kernel[(column_groups, row_groups)](
            image,
            text,
            pairing.target,
            pairing.image_ids,
            pairing.text_ids,
            self.threshold,
            row_states,
            column_states,
            image.shape[0],
            text.shape[0],
            image.shape[1],
            image.stride(0),
            text.stride(0),
            self.slope,
            **mine_constants(image.dtype, precision, self.kind, kernels.INTERPRETED),
            num_warps=tile.warps,
            num_stages=tile.stages,
            **LAUNCH_OPTIONS,
        )
        return row_states, column_states

    def collapse(self, states: Tensor) -> Anchors:
        """Run `collapse_kernel` over int32 [fields, slots, length]."""
        _, slots, length = states.shape
        summed = 0 if self.kind == "none" else length
        anchors = Anchors(
            value=torch.empty(length, dtype=torch.float32, device=states.device),
            index=torch.empty(length, dtype=torch.int64, device=states.device),
            total=torch.empty(summed, dtype=torch.float32, device=states.device),
            count=torch.empty(summed, dtype=torch.int64, device=states.device),
        )
        load_kernels().collapse_kernel[(-(-length // COLLAPSE_BLOCK),)](
            states,
            anchors.value,
            anchors.index,
            anchors.total if summed else None,
            anchors.count if summed else None,
            slots,
            length,
            self.slope,
            KIND=KIND_CODES[self.kind],
            BLOCK=COLLAPSE_BLOCK,
            num_warps=WARPS,
            **LAUNCH_OPTIONS,
        )
        return anchors


def _words(device: torch.device, *shape: int) -> Tensor:
    """Uninitialised int32 workspace."""
    return torch.empty(shape, dtype=torch.int32, device=device)
