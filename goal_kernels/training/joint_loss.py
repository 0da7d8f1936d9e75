"""What a batch is trained with: the losses of embeddings, of scores, and of matching, added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from goal_kernels import MiningStatistics
from goal_kernels.distributed import gather_pairs, gather_rows
from goal_kernels.negatives import named_negatives
from goal_kernels.training.matching_loss import MatchingLoss
from goal_kernels.training.objectives import WholeBatchObjective, make_objective
from goal_kernels.training.options import ScoreOptions
from goal_kernels.training.parallel_steps import BatchShare, gather_tokens
from goal_kernels.training.pooling import widened
from goal_kernels.training.scoring import Scorer
from goal_kernels.training.warmup import WarmedLoss, WarmupSchedule


class ScoreLoss(WarmedLoss):
    """The objective of the scores after the same warm-up as that of the embeddings.

    Args:
        scorer: of the model.
        options: of the scores.
        schedule, backend, mined_for_matching: as in `WarmedLoss`.
    Raises: ValueError when the objective cannot be had of scores.
    """

    def __init__(
        self,
        scorer: Scorer,
        options: ScoreOptions,
        schedule: WarmupSchedule,
        backend: str,
        mined_for_matching: bool = False,
    ) -> None:
        objective = make_objective(
            options.objective, options.objective_parameters, "model.scores.objective"
        )
        if objective.direction_element != "dot":
            raise ValueError(
                "model.scores.objective: expected the direction 'dot' of scores, which have no "
                f"rows, got {options.objective!r}; leave the third part of it out"
            )
        super().__init__(
            objective,
            replace(schedule, margin=None),  # which is one of the embeddings' similarities
            backend,
            precision="highest",
            mined_for_matching=mined_for_matching,
            part="model.scores",
            negatives=named_negatives(options.negatives, "model.scores.negatives"),
        )
        self.scorer, self.embedding_weight = scorer, options.embedding_weight


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
        step, seed: as in `WarmedLoss`.
        relation: ids and text_to_image of this process.
        stored: as in `WarmedLoss`, of this process.
    Returns: the loss, [] float32; what mining found among embeddings; what else is to be logged.
    """
    images, texts, *tokens = encoded
    sizes: dict[str, Any] = {"rows": share.rows, "text_rows": share.text_rows}
    # Half precision would blur which negative is the hardest.
    with torch.autocast(images.device.type, enabled=False):
        pairs = gather_pairs(widened(images), widened(texts), **sizes, **relation)
        if stored is not None:
            slow_images, slow_texts = stored
            stored = (
                gather_rows(slow_images, rows=share.rows),
                gather_rows(slow_texts, rows=share.text_rows),
            )
        loss, statistics = of_embeddings(pairs, step=step, seed=seed, stored=stored)
        logged, mined = _mining(statistics), statistics
        # In every step of a run or in none: Lightning's log repeats what a step leaves out.
        if isinstance(of_embeddings.objective, WholeBatchObjective):
            assert of_embeddings.active_pairs is not None
            logged["train/active_pairs"] = of_embeddings.active_pairs
        if of_scores is not None:
            logged["train/embedding_loss"] = loss.detach()
            scores = of_scores.scorer.matrix(*gather_tokens(tokens[:4], share))
            of_all, mined = of_scores.of_scores(scores, pairs, step, seed)
            logged["mining/active_fraction_of_scores"] = mined.active_fraction
            loss = of_all + of_scores.embedding_weight * loss
    if of_matching is not None:
        matching, right = of_matching(tokens[-4:], share, pairs, mined, step, seed)
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
