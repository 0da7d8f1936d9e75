"""The losses over all negatives as functions."""

from __future__ import annotations

import math
from typing import Any, Literal, overload

from torch import Tensor
from typing_extensions import Unpack

from goal_kernels import constants
from goal_kernels.backends.choice import BackendUnavailableError
from goal_kernels.directions import makes_a_difference
from goal_kernels.objective import Objective
from goal_kernels.whole_batch.call import Options, check_number, run_loss


# fmt: off
@overload
def sum_of_hinges_loss(
    image_embeddings: Tensor, text_embeddings: Tensor, *, margin: float = ...,
    return_stats: Literal[False] = ..., **options: Unpack[Options],
) -> Tensor: ...
@overload
def sum_of_hinges_loss(
    image_embeddings: Tensor, text_embeddings: Tensor, *, margin: float = ...,
    return_stats: bool, **options: Unpack[Options],
) -> Any: ...
# fmt: on
def sum_of_hinges_loss(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    *,
    margin: float = constants.MARGIN,
    return_stats: bool = False,
    **options: Unpack[Options],
) -> Any:
    """Triplet loss over all negatives of the batch, both directions.

    Equals, with S = image @ text.T and p of each pair, summed over pairs (image i, text j):
        sum over negative texts k of relu(margin + S[i, k] - p)
        + sum over negative images k of relu(margin + S[k, j] - p).
    Args:
        image_embeddings, text_embeddings: [B, D], or [N, D] and [M, D] with `text_to_image`.
        margin: >= 0, a similarity.
        return_stats: also return `WholeBatchStatistics`.
        options: see `Options`.
    Returns: 0-d loss, float32 (float64 for float64 inputs); with `return_stats` (loss, stats).
        Its gradients are computed with it, in O((N + M) D) memory and a block of rows of S; they
        cannot be differentiated again.
    Raises: TypeError, ValueError naming the argument.
    Source: VSE++ (Faghri et al., BMVC 2018), eq. 5.
    """
    parameters = [check_number("margin", margin, 0, open_end=False)]
    given = {**options, "return_stats": return_stats}
    return run_loss("sum_of_hinges", (image_embeddings, text_embeddings), parameters, given)


# fmt: off
@overload
def soft_margin_loss(
    image_embeddings: Tensor, text_embeddings: Tensor, *, tau: float = ...,
    return_stats: Literal[False] = ..., **options: Unpack[Options],
) -> Tensor: ...
@overload
def soft_margin_loss(
    image_embeddings: Tensor, text_embeddings: Tensor, *, tau: float = ...,
    return_stats: bool, **options: Unpack[Options],
) -> Any: ...
# fmt: on
def soft_margin_loss(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    *,
    tau: float = constants.TAU,
    return_stats: bool = False,
    **options: Unpack[Options],
) -> Any:
    """`sum_of_hinges_loss` with log(1 + exp(tau (n - p))) / tau in place of each hinge.

    Args: tau: sharpness, > 0, 1 / similarity; the others as in `sum_of_hinges_loss`.
    Returns, raises: as `sum_of_hinges_loss`.
    Source: Hermans et al. 2017 (arXiv 1703.07737), section 2; tau as in the NCA triplet weight.
    """
    given = {**options, "return_stats": return_stats}
    embeddings = image_embeddings, text_embeddings
    return run_loss("soft_margin", embeddings, [check_number("tau", tau, 0)], given)


# fmt: off
@overload
def info_nce_loss(
    image_embeddings: Tensor, text_embeddings: Tensor, *, scale: Tensor | float = ...,
    label_smoothing: float = ..., hardness: float = ..., return_stats: Literal[False] = ...,
    **options: Unpack[Options],
) -> Tensor: ...
@overload
def info_nce_loss(
    image_embeddings: Tensor, text_embeddings: Tensor, *, scale: Tensor | float = ...,
    label_smoothing: float = ..., hardness: float = ..., return_stats: bool,
    **options: Unpack[Options],
) -> Any: ...
# fmt: on
def info_nce_loss(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    *,
    scale: Tensor | float = constants.TAU,
    label_smoothing: float = 0.0,
    hardness: float = 0.0,
    return_stats: bool = False,
    **options: Unpack[Options],
) -> Any:
    """Cross-entropy of each pair against all negatives of the batch, both directions.

    Equals, summed over pairs (image i, text j), with S = image @ text.T:
        logsumexp over j and the negative texts k of scale S[i, k]
        + logsumexp over i and the negative images k of scale S[k, j] - 2 scale S[i, j].
    CLIP's loss is half of this with reduction="mean".
    Args:
        image_embeddings, text_embeddings: [B, D], or [N, D] and [M, D] with `text_to_image`.
        scale: factor of the similarities, the inverse of the temperature: a number, or a tensor of
            one number, which gets its gradient.
        label_smoothing: in [0, 1), share of the target that is spread evenly over the pair and its
            negatives, as torch's cross_entropy does.
        hardness: >= 0, 1 / similarity: the terms of negatives are weighted by
            exp(hardness S), where S counts as a constant: hard negatives push more.
        return_stats, options: as in `sum_of_hinges_loss`. Items of equal ids are neither positives
            nor negatives of each other.
    Returns, raises: as `sum_of_hinges_loss`.
    Source: van den Oord et al. 2018; symmetric as in CLIP (Radford et al., ICML 2021); hardness as
        in LLaVE (Lan et al. 2025, arXiv 2503.04812).
    """
    parameters = [
        check_number("label_smoothing", label_smoothing, 0, open_end=False),
        check_number("hardness", hardness, 0, open_end=False),
    ]
    if label_smoothing >= 1:
        raise ValueError(f"label_smoothing: expected a number in [0, 1), got {label_smoothing!r}.")
    given = {**options, "return_stats": return_stats}
    return run_loss("info_nce", (image_embeddings, text_embeddings), parameters, given, scale=scale)


# fmt: off
@overload
def siglip_loss(
    image_embeddings: Tensor, text_embeddings: Tensor, *, scale: Tensor | float = ...,
    bias: Tensor | float = ..., return_stats: Literal[False] = ..., **options: Unpack[Options],
) -> Tensor: ...
@overload
def siglip_loss(
    image_embeddings: Tensor, text_embeddings: Tensor, *, scale: Tensor | float = ...,
    bias: Tensor | float = ..., return_stats: bool, **options: Unpack[Options],
) -> Any: ...
# fmt: on
def siglip_loss(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    *,
    scale: Tensor | float = 10.0,
    bias: Tensor | float = -10.0,
    return_stats: bool = False,
    **options: Unpack[Options],
) -> Any:
    """A binary decision on every text and image: a pair or not.

    Equals the sum over all images i and texts j of log(1 + exp(-z (scale S[i, j] + bias))) with
    S = image @ text.T, z = 1 for pairs and items of equal ids, z = -1 otherwise.
    Args:
        image_embeddings, text_embeddings: [B, D], or [N, D] and [M, D] with `text_to_image`.
        scale, bias: numbers, or tensors of one number, which get their gradients.
        return_stats, options: as in `sum_of_hinges_loss`; each image and text counts once, so
            there is no `direction`. What either side leaves out as a false negative is left out.
    Returns, raises: as `sum_of_hinges_loss`. reduction="mean" divides by the number of pairs.
    Source: Zhai et al., ICCV 2023 (arXiv 2303.15343), with its initial scale and bias.
    """
    if "direction" in options:
        raise TypeError("direction: siglip_loss has none, each image and text counts once.")
    given = {**options, "return_stats": return_stats}
    return run_loss(
        "siglip", (image_embeddings, text_embeddings), [], given, scale=scale, bias=bias
    )


# fmt: off
@overload
def multi_similarity_loss(
    image_embeddings: Tensor, text_embeddings: Tensor, *, alpha: float = ..., beta: float = ...,
    lam: float = ..., return_stats: Literal[False] = ..., **options: Unpack[Options],
) -> Tensor: ...
@overload
def multi_similarity_loss(
    image_embeddings: Tensor, text_embeddings: Tensor, *, alpha: float = ..., beta: float = ...,
    lam: float = ..., return_stats: bool, **options: Unpack[Options],
) -> Any: ...
# fmt: on
def multi_similarity_loss(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    *,
    alpha: float = 2.0,
    beta: float = 50.0,
    lam: float = 0.5,
    return_stats: bool = False,
    **options: Unpack[Options],
) -> Any:
    """Multi-similarity loss over all positives and negatives of each image and each text.

    Equals the sum over anchors that have a positive, images and texts, of
        log(1 + sum over positives p of exp(alpha (lam - p))) / alpha
        + log(1 + sum over negatives n of exp(beta (n - lam))) / beta.
    Positives are the texts of the image, or the image of the text, and items of equal ids.
    Args:
        image_embeddings, text_embeddings: [B, D], or [N, D] and [M, D] with `text_to_image`.
        alpha, beta: sharpness, > 0, 1 / similarity. lam: a similarity.
        return_stats, options: as in `sum_of_hinges_loss`.
    Returns, raises: as `sum_of_hinges_loss`. reduction="mean" divides by the number of pairs.
    Source: Wang et al., CVPR 2019 (arXiv 1904.06627), eq. 15, without its mining of pairs.
    """
    parameters = [
        check_number("alpha", alpha, 0),
        check_number("beta", beta, 0),
        check_number("lam", lam, -math.inf),
    ]
    given = {**options, "return_stats": return_stats}
    return run_loss("multi_similarity", (image_embeddings, text_embeddings), parameters, given)


# fmt: off
@overload
def circle_loss(
    image_embeddings: Tensor, text_embeddings: Tensor, *, gamma: float = ..., margin: float = ...,
    return_stats: Literal[False] = ..., **options: Unpack[Options],
) -> Tensor: ...
@overload
def circle_loss(
    image_embeddings: Tensor, text_embeddings: Tensor, *, gamma: float = ..., margin: float = ...,
    return_stats: bool, **options: Unpack[Options],
) -> Any: ...
# fmt: on
def circle_loss(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    *,
    gamma: float = 80.0,
    margin: float = 0.25,
    return_stats: bool = False,
    **options: Unpack[Options],
) -> Any:
    """Circle loss over all positives and negatives of each image and each text.

    Equals the sum over anchors that have a positive, images and texts, of
        log(1 + sum over negatives n of exp(gamma relu(n + m) (n - m))
                x sum over positives p of exp(-gamma relu(1 + m - p) (p - 1 + m)))
    with m the margin; the factors relu() count as constants in the gradient, as published.
    Positives are those of `multi_similarity_loss`.
    Args:
        image_embeddings, text_embeddings: [B, D], or [N, D] and [M, D] with `text_to_image`.
        gamma: sharpness, > 0. margin: a similarity, in [0, 1].
        return_stats, options: as in `sum_of_hinges_loss`.
    Returns, raises: as `sum_of_hinges_loss`. reduction="mean" divides by the number of pairs.
    Source: Sun et al., CVPR 2020 (arXiv 2002.10857), eq. 6 to 8.
    """
    parameters = [
        check_number("gamma", gamma, 0),
        check_number("margin", margin, 0, open_end=False),
    ]
    if margin > 1:
        raise ValueError(f"margin: expected a similarity in [0, 1], got {margin!r}.")
    given = {**options, "return_stats": return_stats}
    return run_loss("circle", (image_embeddings, text_embeddings), parameters, given)


def averaged_goal_loss(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    objective: Objective,
    backend: str,
    **options: Any,
) -> Any:
    """`goal_loss` with negatives="all". options: those of `Options`, and return_stats.

    Raises: as `goal_loss`, and ValueError for directions other than "dot" of rows that are not
    normalised.
    """
    if backend not in ("auto", "chunked"):
        raise BackendUnavailableError(
            f"backend: expected 'auto' or 'chunked' with negatives='all', got {backend!r}."
        )
    if makes_a_difference(objective, options["normalize"]):
        raise ValueError(
            f"negatives: expected another kind than 'all' with {objective.name!r}, whose direction "
            "is built for one negative at a time; leave the direction out, or give "
            "normalize=True, with which all directions are the same."
        )
    objective = objective.along_products
    embeddings = image_embeddings, text_embeddings
    if not objective.built_in:
        return run_loss(objective, embeddings, [], options)
    return run_loss(objective.name, embeddings, list(objective.scalars), options)
