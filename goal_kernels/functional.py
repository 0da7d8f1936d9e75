"""`goal_loss`, the public function of the objective."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor

from goal_kernels import checks, directions, ops, rectangular
from goal_kernels.backends.answers import Forward, Found
from goal_kernels.backends.base import Pairing, SearchQuery, device_kind, settled_precision
from goal_kernels.backends.candidates import PLAIN
from goal_kernels.backends.choice import resolve
from goal_kernels.checks import Index, Mask
from goal_kernels.negatives import ALL, Negatives, as_selection
from goal_kernels.notices import similarity_watch
from goal_kernels.objective import Objective, as_objective
from goal_kernels.pairing_checks import check_pairing
from goal_kernels.pairs import owned
from goal_kernels.selection_ops import Selected
from goal_kernels.statistics import MiningStatistics
from goal_kernels.weights import DIRECTIONS, weigh
from goal_kernels.whole_batch.call import REDUCTIONS
from goal_kernels.whole_batch.functional import averaged_goal_loss

_resolve_once = lru_cache(resolve)


def choose_backend(
    backend: str, device_type: str, dtype: torch.dtype, precision: str | None
) -> tuple[str, str]:
    """The backend and the precision of a call; a constant while the caller's arguments are."""
    precision = settled_precision(precision, device_type)
    # What serves CPU tensors stays the same; elsewhere it depends on which GPU is the current one.
    decide = _resolve_once if device_type == "cpu" and isinstance(backend, str) else resolve
    return decide(backend, device_type, dtype, precision), precision


choose_backend._dynamo_marked_constant = True  # type: ignore[attr-defined]


class Options(NamedTuple):
    """What is done with a weighted batch, identical for embeddings and for similarities."""

    reduction: str
    direction: str
    return_stats: bool

    def check(self) -> None:
        checks.check_choice("reduction", self.reduction, REDUCTIONS)
        checks.check_choice("direction", self.direction, DIRECTIONS)
        checks.check_flag("return_stats", self.return_stats)


def finish(
    objective: Objective,
    forward: Forward,
    options: Options,
    owner: Tensor | None,
    images: int,
    skipped: tuple[Tensor, ...],
) -> Tensor | tuple[Tensor, MiningStatistics]:
    """Reduce the value, and add the statistics.

    Args:
        forward: its value carries the gradient. skipped: as in `MiningStatistics`, or empty.
        owner: the image of each text, None: the one of its number. images: how many there are.
    """
    loss = forward.value
    if options.reduction == "mean":
        loss = loss / (images if owner is None else owned(owner, images).sum())
    if options.return_stats:
        return loss, MiningStatistics.of(forward, objective.margin, skipped)
    return loss


def weigh_mined(objective: Objective, found: Found, direction: str) -> Forward:
    """The weight stage as torch code, for elements that no backend knows."""
    with torch.no_grad():
        return Forward.pack(found, weigh(objective, found.positive, found.mined, direction))


def _of_square(
    backend: str,
    objective: Objective,
    embeddings: tuple[Tensor, Tensor],
    ids: tuple[Tensor | None, Tensor | None],
    query: SearchQuery,
    direction: str,
) -> Forward:
    """The hardest negatives of a square batch, weighted; the value carries the gradient."""
    turned = directions.makes_a_difference(objective, query.normalize)
    if objective.built_in:
        sides = (embeddings[0].detach(), embeddings[1].detach()) if turned else embeddings
        options = direction, query.normalize, query.precision
        forward = ops.forward(backend, *sides, ids, objective, options)
    else:
        mined = ops.search(backend, *embeddings, Pairing(None, *ids), query)
        forward = weigh_mined(objective, mined, direction)
    if objective.built_in and not turned:
        return forward
    leaves = directions.accumulated(embeddings) if turned else embeddings
    value = torch.ops.goal_kernels.attach(*leaves, *forward, backend)
    if turned:
        value = directions.directed(objective, value, leaves, *directions.of_square(forward))
    return forward._replace(value=value)


def _of_pairs(
    backend: str,
    objective: Objective,
    embeddings: tuple[Tensor, Tensor],
    text_to_image: Tensor,
    found: Selected,
    query: SearchQuery,
    direction: str,
) -> Forward:
    """What was found for texts as rows, weighted; the value carries the gradient."""
    turned = directions.makes_a_difference(objective, query.normalize)
    image, text = directions.accumulated(embeddings) if turned else embeddings
    with torch.no_grad():
        forward, terms = rectangular.weigh_pairs(objective, found, text_to_image, direction)
    value = torch.ops.goal_kernels.attach_terms(
        text, image, forward.value, *terms, found.scales_of_rows, backend
    )
    if turned:
        of_terms = found.rows.value, found.positive, found.columns.value
        value = directions.directed(objective, value, (text, image), terms, of_terms)
    return forward._replace(value=value)


# fmt: off
@overload
def goal_loss(
    image_embeddings: Tensor, text_embeddings: Tensor, objective: Objective | str, *,
    text_to_image: Index | None = ..., image_ids: Index | None = ...,
    text_ids: Index | None = ..., negatives: Negatives = ...,
    false_negative_margin: float | None = ..., false_negative_ratio: float | None = ...,
    exempt_texts: Mask | None = ..., normalize: bool = ..., reduction: str = ...,
    direction: str = ..., precision: str | None = ..., backend: str = ...,
    return_stats: Literal[False] = ..., **parameters: float,
) -> Tensor: ...
@overload
def goal_loss(
    image_embeddings: Tensor, text_embeddings: Tensor, objective: Objective | str, *,
    text_to_image: Index | None = ..., image_ids: Index | None = ...,
    text_ids: Index | None = ..., negatives: Negatives = ...,
    false_negative_margin: float | None = ..., false_negative_ratio: float | None = ...,
    exempt_texts: Mask | None = ..., normalize: bool = ..., reduction: str = ...,
    direction: str = ..., precision: str | None = ..., backend: str = ...,
    return_stats: Literal[True], **parameters: float,
) -> tuple[Tensor, MiningStatistics]: ...
@overload
def goal_loss(
    image_embeddings: Tensor, text_embeddings: Tensor, objective: Objective | str, *,
    text_to_image: Index | None = ..., image_ids: Index | None = ...,
    text_ids: Index | None = ..., negatives: Negatives = ...,
    false_negative_margin: float | None = ..., false_negative_ratio: float | None = ...,
    exempt_texts: Mask | None = ..., normalize: bool = ..., reduction: str = ...,
    direction: str = ..., precision: str | None = ..., backend: str = ...,
    return_stats: bool, **parameters: float,
) -> Tensor | tuple[Tensor, MiningStatistics]: ...
# fmt: on
def goal_loss(  # type: ignore[misc]  # _search is for `distributed`, no overload has it
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    objective: Objective | str,
    *,
    text_to_image: Index | None = None,
    image_ids: Index | None = None,
    text_ids: Index | None = None,
    negatives: Negatives = "hardest",
    false_negative_margin: float | None = None,
    false_negative_ratio: float | None = None,
    exempt_texts: Mask | None = None,
    normalize: bool = False,
    reduction: str = "sum",
    direction: str = "both",
    precision: str | None = None,
    backend: str = "auto",
    return_stats: bool = False,
    _search: rectangular.Search | None = None,
    **parameters: float,
) -> Tensor | tuple[Tensor, MiningStatistics]:
    """The value of a GOAL objective, whose backward hands out the designed gradient.

    Equals, with S = image @ text.T, p = diag(S), n_i = S[i, j*] = max over j != i of S[i, j]:
        value = sum (n^i2t - p) + sum (n^t2i - p), or the hinge loss itself for hinge/constant;
        grad_image[i] = T P- text[j*] - T P+ text[i] + the terms in which image i is the negative
    (docs/derivation.md, eq. 1 to 10).

    Args:
        image_embeddings, text_embeddings: [B, D] float16, bfloat16, float32 or float64, B >= 1,
            any strides; row i of one is the positive of row i of the other. With `text_to_image`
            [N, D] and [M, D]. Two dtypes are promoted as torch does it. Rows are to be of unit
            length (see `normalize`): a similarity far beyond 1 is warned about, once per process
            and without waiting for a GPU. A pair alone has no negative: its loss and gradients are
            0, with a warning, once per process.
        objective: an `Objective`, or its name such as "nca/sigmoid" or "nca/sigmoid/tangent".
        text_to_image: [M] integers, tensor, array or list: the image that each text belongs to,
            -1 for none. Every text with an image is a pair; the texts of an image are never its
            negatives; a text of no image and an image of no text are negatives only. None: text i
            belongs to image i. Out of range: ValueError on the CPU, elsewhere as -1.
        image_ids, text_ids: [B] integers, or [N] and [M]; items with equal ids are never negatives
            of each other. One of them alone stands for both; with `text_to_image` only image_ids
            may stand alone, for the texts of each image.
        negatives: which candidates become an anchor's negatives: "hardest"; "semi_hard", the
            hardest that scores below the positive; `SkipHardest`, `TopK` or `Sampled`; or "all",
            whose terms are averaged (not with another direction than "dot"; statistics are
            `WholeBatchStatistics`). An anchor without one adds nothing.
        false_negative_margin, false_negative_ratio: leave out candidates with S > p + margin, or
            S > ratio p, as probable false negatives. An image with several texts has the highest
            of its positives for p here, and the lowest in "semi_hard".
        exempt_texts: [M] booleans, texts that these two never leave out, such as negatives chosen
            by hand.
        normalize: divide each row by its length first, as F.normalize does; differentiated through,
            but rows shorter than 1e-12 get no gradient, where torch's is infinite in float16.
        reduction: "sum" (as in the paper and VSE) or "mean" (value and gradients divided by the
            number of pairs).
        direction: "both", or one of "i2t" (images are anchors) and "t2i".
        precision: "highest", "high" or "medium", torch's words for float32 products; None follows
            torch.get_float32_matmul_precision(). Weights always use similarities of full precision.
        backend: "auto" or a name from `available_backends()`; a named backend never falls back.
        return_stats: also return `MiningStatistics`.
        parameters: hyper-parameters by name that replace those of the objective: `margin=0.3`.

    Returns: 0-d loss, float32 (float64 for float64 inputs); with `return_stats` (loss, stats).

    Gradients: image_embeddings and text_embeddings, each in its dtype, times the incoming gradient.
        NOT the derivative of the value, except for hinge/constant and constant/constant. Double
        backward and forward mode (torch.func.jvp) raise RuntimeError; torch.func.grad, vjp and vmap
        work. NaN or Inf in an embedding makes the loss NaN or Inf.

    Raises: TypeError, ValueError naming the argument; BackendUnavailableError with the reason.
    Warns: RuntimeWarning.

    Source: Xuan & Chen, WACV 2023, arXiv 2210.13188. Ties: the lowest index is the hardest.
    """
    objective = as_objective(objective, parameters)
    if negatives == ALL:
        return averaged_goal_loss(
            image_embeddings,
            text_embeddings,
            objective,
            backend,
            text_to_image=text_to_image,
            image_ids=image_ids,
            text_ids=text_ids,
            false_negative_margin=false_negative_margin,
            false_negative_ratio=false_negative_ratio,
            exempt_texts=exempt_texts,
            normalize=normalize,
            reduction=reduction,
            direction=direction,
            precision=precision,
            return_stats=return_stats,
        )
    embeddings = checks.check_embeddings(image_embeddings, text_embeddings)
    checks.check_precision(precision)
    checks.check_flag("normalize", normalize)
    options = Options(reduction, direction, return_stats)
    options.check()
    image, text = embeddings
    selection = as_selection(negatives, false_negative_margin, false_negative_ratio)
    owner, ids = check_pairing(*embeddings, text_to_image, image_ids, text_ids)
    exempt = checks.check_mask("exempt_texts", exempt_texts, len(text), text.device)
    name, precision = choose_backend(backend, device_kind(image), image.dtype, precision)
    query = SearchQuery(
        objective.pair_element.relative, objective.epsilon, objective.beta, normalize, precision
    )
    skipped: tuple[Tensor, ...] = ()
    if owner is None and (selection != PLAIN or _search is not None):
        owner = torch.arange(len(text), device=text.device)
    if owner is None:
        forward = _of_square(name, objective, embeddings, ids, query, direction)
    else:  # texts as rows, as in `rectangular`
        pairing = Pairing(owner, *reversed(ids))
        search = _search or rectangular.search
        found = search(name, *embeddings, pairing, query, selection, exempt)
        forward = _of_pairs(name, objective, embeddings, owner, found, query, direction)
        skipped = found.skipped
    if not normalize:
        similarity_watch.look(forward.vectors)
    return finish(objective, forward, options, owner, len(image), skipped)
