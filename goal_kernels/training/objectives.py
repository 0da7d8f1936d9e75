"""What `model.objective` names: GOAL objectives, and losses over all negatives beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import goal_kernels as gk
from goal_kernels import Objective

WholeBatchLoss = Callable[..., Any]

WHOLE_BATCH_LOSSES: dict[str, Callable[[Objective], WholeBatchLoss]] = {
    "sum_of_hinges": lambda own: partial(gk.sum_of_hinges_loss, margin=own.margin),
    "soft_margin": lambda own: partial(gk.soft_margin_loss, tau=own.tau),
    "info_nce": lambda own: partial(gk.info_nce_loss, scale=own.tau),
    "multi_similarity": lambda own: partial(
        gk.multi_similarity_loss, alpha=own.alpha, beta=own.beta, lam=own.lam
    ),
    "circle": lambda own: partial(gk.circle_loss, gamma=own.tau, margin=own.margin),
}
"""By name, from the hyper-parameters of an objective. `sum_of_hinges` is VSE0's."""


@dataclass(frozen=True)
class WholeBatchObjective(Objective):
    """A loss over all negatives in the place of an objective: mining serves its statistics only.

    Attributes: whole_batch, a name in `WHOLE_BATCH_LOSSES`.
    """

    whole_batch: str = "sum_of_hinges"

    @property
    def name(self) -> str:
        """The name in `WHOLE_BATCH_LOSSES`."""
        return self.whole_batch

    @property
    def loss(self) -> WholeBatchLoss:
        """See `goal_kernels.sum_of_hinges_loss` for what it takes."""
        return WHOLE_BATCH_LOSSES[self.whole_batch](self)


def make_objective(name: str, parameters: dict[str, float] | None = None) -> Objective:
    """The objective that `model.objective` and `model.objective_parameters` name.

    Args:
        name: "triplet/pair", "triplet/pair/direction", or a name in `WHOLE_BATCH_LOSSES`.
        parameters: hyper-parameters by name; defaults for the others.
    Raises: ValueError when the name or a parameter is unknown, TypeError when one is no number.
    """
    options = dict(parameters or {})
    try:
        if name in WHOLE_BATCH_LOSSES:
            # The mining statistics are those of the hinge: they follow from embeddings and margin.
            return WholeBatchObjective("hinge", "constant", whole_batch=name, **options)  # type: ignore[arg-type]
        if "/" not in name:
            raise ValueError(
                f"objective: expected 'triplet/pair' such as 'nca/sigmoid_ms' (`goal-kernels "
                f"objectives` lists them), or one of {', '.join(WHOLE_BATCH_LOSSES)}; got {name!r}"
            )
        return replace(Objective.parse(name), **options)  # type: ignore[arg-type]
    except TypeError as error:
        raise TypeError(f"objective_parameters: {error}") from error
