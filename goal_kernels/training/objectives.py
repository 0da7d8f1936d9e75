"""What `model.objective` names: GOAL objectives, and losses over all negatives beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any

import goal_kernels as gk
from goal_kernels import Objective
from goal_kernels.registry import PARAMETERS

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


def make_objective(
    name: str, parameters: dict[str, float] | None = None, option: str = "model.objective"
) -> Objective:
    """The objective that `model.objective` and `model.objective_parameters` name.

    Args:
        name: "triplet/pair", "triplet/pair/direction", or a name in `WHOLE_BATCH_LOSSES`.
        parameters: hyper-parameters by name; defaults for the others.
        option: which is to blame, with _parameters behind it for these.
    Raises: ValueError when the name is unknown or a parameter out of range, TypeError when one is
        unknown or no number.
    """
    if name not in WHOLE_BATCH_LOSSES and "/" not in name:
        raise ValueError(
            f"{option}: expected 'triplet/pair' such as 'nca/sigmoid_ms' (`goal-kernels "
            f"objectives` lists them), or one of {', '.join(WHOLE_BATCH_LOSSES)}; got {name!r}"
        )
    try:
        objective = (
            # The mining statistics are those of the hinge: they follow from embeddings and margin.
            WholeBatchObjective("hinge", "constant", whole_batch=name)
            if name in WHOLE_BATCH_LOSSES
            else Objective.parse(name)
        )
    except ValueError as error:
        raise ValueError(f"{option}: {str(error).removeprefix('objective: ')}") from error
    known = [*PARAMETERS, *dict(objective.parameters)]
    for given, value in (parameters or {}).items():
        if given not in known:
            near = get_close_matches(given, known, 1)
            raise TypeError(
                f"{option}_parameters: expected hyper-parameters of {objective.name} "
                f"({', '.join(known)}), got {given}={value}; "
                + (f"did you mean {near[0]!r}?" if near else "leave it out")
            )
    try:
        return objective.with_parameters(parameters or {})
    except (TypeError, ValueError) as error:
        raise type(error)(f"{option}_parameters.{error}") from error
