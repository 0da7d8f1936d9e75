"""`goal_loss_from_similarity`, the objective for models that give scores."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from goal_kernels import checks, rectangular
from goal_kernels.backends.answers import Found, unpack_terms
from goal_kernels.backends.base import Pairing
from goal_kernels.backends.candidates import PLAIN
from goal_kernels.checks import Index, Mask
from goal_kernels.functional import Options, finish, weigh_mined
from goal_kernels.negatives import Negatives, as_selection
from goal_kernels.objective import Objective, as_objective
from goal_kernels.pairing_checks import check_pairing
from goal_kernels.selection_ops import select_scores
from goal_kernels.statistics import MiningStatistics


# fmt: off
@overload
def goal_loss_from_similarity(
    similarity: Tensor, objective: Objective | str, *, text_to_image: Index | None = ...,
    image_ids: Index | None = ..., text_ids: Index | None = ..., negatives: Negatives = ...,
    false_negative_margin: float | None = ..., false_negative_ratio: float | None = ...,
    exempt_texts: Mask | None = ..., reduction: str = ..., direction: str = ...,
    return_stats: Literal[False] = ..., **parameters: float,
) -> Tensor: ...
@overload
def goal_loss_from_similarity(
    similarity: Tensor, objective: Objective | str, *, text_to_image: Index | None = ...,
    image_ids: Index | None = ..., text_ids: Index | None = ..., negatives: Negatives = ...,
    false_negative_margin: float | None = ..., false_negative_ratio: float | None = ...,
    exempt_texts: Mask | None = ..., reduction: str = ..., direction: str = ...,
    return_stats: Literal[True], **parameters: float,
) -> tuple[Tensor, MiningStatistics]: ...
@overload
def goal_loss_from_similarity(
    similarity: Tensor, objective: Objective | str, *, text_to_image: Index | None = ...,
    image_ids: Index | None = ..., text_ids: Index | None = ..., negatives: Negatives = ...,
    false_negative_margin: float | None = ..., false_negative_ratio: float | None = ...,
    exempt_texts: Mask | None = ..., reduction: str = ..., direction: str = ...,
    return_stats: bool, **parameters: float,
) -> Tensor | tuple[Tensor, MiningStatistics]: ...
# fmt: on
def goal_loss_from_similarity(
    similarity: Tensor,
    objective: Objective | str,
    *,
    text_to_image: Index | None = None,
    image_ids: Index | None = None,
    text_ids: Index | None = None,
    negatives: Negatives = "hardest",
    false_negative_margin: float | None = None,
    false_negative_ratio: float | None = None,
    exempt_texts: Mask | None = None,
    reduction: str = "sum",
    direction: str = "both",
    return_stats: bool = False,
    **parameters: float,
) -> Tensor | tuple[Tensor, MiningStatistics]:
    """`goal_loss` for models that give scores instead of embeddings (cross-attention).

    Args:
        similarity: [B, B] float16, bfloat16, float32 or float64, image i against text j, B >= 1;
            the diagonal holds the positives. With `text_to_image` [N, M]. Made for cosines,
            whatever the model: hyper-parameters are similarities.
        objective: along "dot": scores have no rows from which another direction could take part.
        Others: as in `goal_loss`.

    Returns: as `goal_loss`. The gradient of `similarity` has its shape and at most 3 B entries that
        are not zero (N + 2 M); see `goal_loss` for what differentiates it.

    Raises: TypeError, ValueError naming the argument.
    """
    objective = as_objective(objective, parameters)
    if objective.direction_element != "dot":
        raise ValueError(
            f"objective: expected the direction 'dot' of scores, which have no rows, got "
            f"{objective.name!r}; leave the direction out, or give embeddings to goal_loss."
        )
    checks.check_similarity(similarity)
    options = Options(reduction, direction, return_stats)
    options.check()
    selection = as_selection(negatives, false_negative_margin, false_negative_ratio)
    owner, ids = check_pairing(
        similarity, similarity.T, text_to_image, image_ids, text_ids, "similarity"
    )
    images, texts = similarity.shape
    exempt = checks.check_mask("exempt_texts", exempt_texts, texts, similarity.device)
    relative = objective.pair_element.relative, objective.epsilon, objective.beta
    scores = similarity
    skipped: tuple[Tensor, ...] = ()
    if owner is None and selection != PLAIN:
        owner = torch.arange(texts, device=similarity.device)
    if owner is not None:  # texts as rows, as in `rectangular`
        scores = similarity.T
        found = select_scores(scores, Pairing(owner, *reversed(ids)), exempt, relative, selection)
        with torch.no_grad():
            forward, terms = rectangular.weigh_pairs(objective, found, owner, direction)
        skipped = found.skipped
    else:
        found = torch.ops.goal_kernels.mine_similarity(scores.detach(), *ids, *relative)
        forward = weigh_mined(objective, Found(*found), direction)
        terms, _ = unpack_terms(forward.vectors, forward.hardest)
    value = torch.ops.goal_kernels.attach_similarity(scores, forward.value, *terms)
    forward = forward._replace(value=value)
    return finish(objective, forward, options, owner, images, skipped)
