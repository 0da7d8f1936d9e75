"""Warm-up of hardest-negative training: a sum over all negatives first, the objective later.

Hardest-negative losses started from random encoders tend to collapse: every embedding becomes
equal and the loss stays at 2 * B * margin. A phase that pulls on all negatives avoids it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from goal_kernels import GOALLoss, MiningStatistics, Objective, constants


def sum_of_hinges(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    image_ids: Tensor | None = None,
    margin: float = constants.MARGIN,
) -> Tensor:
    """Triplet loss over all negatives of the batch, both directions, summed.

    Equals: sum over i, j with j not a positive of i of
        relu(margin + S[i, j] - S[i, i]) + relu(margin + S[j, i] - S[i, i]),  S = X Y^T.
    Args:
        image_embeddings: [B, D] floating point, X.
        text_embeddings: [B, D] of the same dtype, Y; row i matches image row i.
        image_ids: [B] integers or None; pairs of equal ids are never negatives of each other.
        margin: in units of similarity.
    Returns: 0-d tensor, dtype of the embeddings.
    Source: VSE++ (Faghri et al., BMVC 2018), eq. 5; dense, [B, B] is stored.
    """
    similarity = image_embeddings @ text_embeddings.T  # [B, B]
    positive = similarity.diagonal()  # [B]
    if image_ids is None:
        same = torch.eye(len(positive), dtype=torch.bool, device=similarity.device)
    else:
        same = image_ids[:, None] == image_ids[None, :]  # [B, B]
    i2t = (margin + similarity - positive[:, None]).clamp(min=0)
    t2i = (margin + similarity - positive[None, :]).clamp(min=0)
    return (i2t + t2i).masked_fill(same, 0).sum()


@dataclass(frozen=True)
class WarmupSchedule:
    """How much of the objective counts at each optimiser step.

    Attributes:
        warmup_steps: steps of `sum_of_hinges` alone.
        blend_steps: steps after them over which the objective takes over linearly; 0 switches
            at once. The two losses are blended as they are: the sum of hinges is larger by up to
            a factor of B - 1, so that the objective is felt late in the blend.
    """

    warmup_steps: int = 0
    blend_steps: int = 0

    def __post_init__(self) -> None:
        for name in ("warmup_steps", "blend_steps"):
            value = getattr(self, name)
            if value < 0:
                raise ValueError(f"{name}: expected a number of steps >= 0, got {value}")

    def weight(self, step: int) -> float:
        """Share of the objective at `step` (0 is the first), in [0, 1]."""
        after = step - self.warmup_steps
        if after < 0:
            return 0.0
        return min(1.0, (after + 1) / (self.blend_steps + 1))


class WarmedLoss(nn.Module):
    """`sum_of_hinges` first, then a hardest-negative objective, by `schedule`.

    Holds no state: the step is an argument, so that a resumed run continues where it was.
    """

    def __init__(self, objective: Objective, schedule: WarmupSchedule, backend: str) -> None:
        super().__init__()
        self.objective_loss = GOALLoss(objective, backend=backend, return_stats=True)
        self.schedule = schedule
        self.margin = objective.margin

    def forward(
        self, image_embeddings: Tensor, text_embeddings: Tensor, image_ids: Tensor | None, step: int
    ) -> tuple[Tensor, MiningStatistics]:
        """Loss at one optimiser step.

        Args:
            image_embeddings, text_embeddings: [B, D], unit rows.
            image_ids: [B] integers or None.
            step: optimiser steps taken so far.
        Returns: 0-d loss, and what mining found, in the warm-up too.
        """
        weight = self.schedule.weight(step)
        with torch.set_grad_enabled(torch.is_grad_enabled() and weight > 0):
            objective, statistics = self.objective_loss(
                image_embeddings, text_embeddings, image_ids, image_ids
            )
        if weight == 1:
            return objective, statistics
        hinges = sum_of_hinges(image_embeddings, text_embeddings, image_ids, self.margin)
        return (1 - weight) * hinges + weight * objective, statistics
