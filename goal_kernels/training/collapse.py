"""Whether most of an epoch ran on collapsed embeddings."""

from __future__ import annotations

from typing import Any

import torch

from goal_kernels import MiningStatistics


class CollapsedSteps:
    """Counts the collapsed steps of an epoch; the device is never waited for between its ends."""

    def __init__(self) -> None:
        self._steps = 0
        self._collapsed = torch.zeros((), dtype=torch.int64, device="cpu")

    def start(self, device: torch.device) -> None:
        """Count from zero."""
        self._steps = 0
        self._collapsed = torch.zeros((), dtype=torch.int64, device=device)

    def move(self, device: torch.device) -> None:
        """Go on counting on the device of the steps."""
        self._collapsed = self._collapsed.to(device)

    def count(self, statistics: MiningStatistics) -> None:
        """One step."""
        self._collapsed += statistics.collapsed
        self._steps += 1

    def warning(self, epoch: int) -> str | None:
        """What to say at the end of an epoch when most of its steps were collapsed, else None.

        Most, since the first steps of a healthy run may start from embeddings that are all alike.
        """
        collapsed = int(self._collapsed)
        if 2 * collapsed <= self._steps:
            return None
        return (
            f"COLLAPSED: in {collapsed} of {self._steps} steps of epoch {epoch} all similarities "
            "were nearly equal, so nothing is learnt. Warm up longer (--model.warmup_steps), blend "
            "in (--model.blend_steps), hold the warm-up meanwhile (--model.hold_on_collapse true) "
            "or lower the learning rate (--model.lr)."
        )

    def state_dict(self) -> dict[str, int]:
        """Plain numbers by name."""
        return {"steps": self._steps, "collapsed_steps": int(self._collapsed)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._steps = state["steps"]
        self._collapsed.fill_(state["collapsed_steps"])
