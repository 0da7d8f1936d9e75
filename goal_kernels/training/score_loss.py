"""The loss of scores from regions and words, of the pairs of all processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from goal_kernels import MiningStatistics
from goal_kernels.negatives import named_negatives
from goal_kernels.training.objectives import make_objective
from goal_kernels.training.options import ScoreOptions
from goal_kernels.training.parallel_steps import BatchShare, gather_relation, gather_tokens
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
        objective = make_objective(options.objective, options.objective_parameters)
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
            negatives=named_negatives(options.negatives),
        )
        self.scorer, self.embedding_weight = scorer, options.embedding_weight

    def of_tokens(
        self,
        tokens: Sequence[Tensor],
        share: BatchShare,
        step: int,
        seed: int,
        **relation: Any,
    ) -> tuple[Tensor, MiningStatistics]:
        """Loss of the scores of all pairs of a batch, [], and what mining found among them.

        Args:
            tokens: values and weights of the images, then of the captions, of this process.
            share: of this process.
            step, seed: as in `WarmedLoss`. relation: ids and text_to_image of this process, too.
        """
        pairs = gather_relation(tokens, share, **relation)
        scores = self.scorer.matrix(*gather_tokens(tokens, share))
        return self.of_scores(scores, pairs, step, seed)
