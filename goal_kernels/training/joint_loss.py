"""What a batch is trained with: the losses of embeddings, of scores, and of matching, added up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from goal_kernels import MiningStatistics
from goal_kernels.training.matching_loss import MatchingLoss
from goal_kernels.training.objectives import WholeBatchObjective
from goal_kernels.training.parallel_steps import BatchShare
from goal_kernels.training.pooling import widened
from goal_kernels.training.score_loss import ScoreLoss
from goal_kernels.training.warmup import WarmedLoss


def joint_loss(
    of_embeddings: WarmedLoss,
    of_scores: ScoreLoss | None,
    of_matching: MatchingLoss | None,
    encoded: Sequence[Tensor],
    share: BatchShare,
    step: int,
    seed: int,
    relation: dict[str, Any],
    stored: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, MiningStatistics, dict[str, Tensor]]:
    """Loss of one batch.

    Args:
        encoded: what the model returns for it.
        share: of this process.
        step, seed, relation, stored: as in `WarmedLoss`.
    Returns: the loss, [] float32; what mining found among embeddings; what else is to be logged.
    """
    images, texts, *tokens = encoded
    # Half precision would blur which negative is the hardest.
    with torch.autocast(images.device.type, enabled=False):
        loss, statistics = of_embeddings(
            widened(images),
            widened(texts),
            step=step,
            rows=share.rows,
            seed=seed,
            text_rows=share.text_rows,
            stored=stored,
            **relation,
        )
        logged, mined = _mining(statistics), statistics
        # In every step of a run or in none: Lightning's log repeats what a step leaves out.
        if isinstance(of_embeddings.objective, WholeBatchObjective):
            assert of_embeddings.active_pairs is not None
            logged["train/active_pairs"] = of_embeddings.active_pairs
        if of_scores is not None:
            logged["train/embedding_loss"] = loss.detach()
            scores, mined = of_scores.of_tokens(tokens[:4], share, step, seed, **relation)
            logged["mining/active_fraction_of_scores"] = mined.active_fraction
            loss = scores + of_scores.embedding_weight * loss
    if of_matching is not None:
        matching, right = of_matching(tokens[-4:], share, mined, step, seed, **relation)
        logged |= {"train/matching_loss": matching.detach(), "matching/negatives_below": right}
        loss = loss + matching
    return loss, statistics, logged


def _mining(statistics: MiningStatistics) -> dict[str, Tensor]:
    """What is logged of mining; the device is never waited for."""
    found = {
        "mining/mean_positive": statistics.mean_positive,
        "mining/mean_hardest_negative": statistics.mean_hardest_negative,
        "mining/mean_absolute_gap": statistics.mean_absolute_gap,
        "mining/active_fraction": statistics.active_fraction,
    }
    if statistics.skipped_text is not None:
        found["mining/skipped_negatives"] = statistics.skipped_negatives.float()
    return found
