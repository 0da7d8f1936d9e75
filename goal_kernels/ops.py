"""The operators, registered with torch.library under `goal_kernels::`.

For every backend `search_<backend>`, `forward_<backend>`, `backward_<backend>` and
`apply_<backend>` with one schema each, so which kernel ran is never a guess. `forward_*` carries
the gradient of a built-in objective on a square batch; the `attach*` hand back a value with the
gradient of weights computed elsewhere, `attach_terms` for any [N, D] and [M, D].
None of them can be differentiated twice: the GOAL gradient is not the derivative of the value
(docs/derivation.md, section 3), so a second derivative would be a plausible wrong number.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from goal_kernels.backends.answers import Forward, Found, GradientTerms, row_scales
from goal_kernels.backends.base import (
    Backend,
    Pairing,
    Scalars,
    SearchQuery,
    WeightStage,
    accumulate_dtype,
)
from goal_kernels.backends.choice import BACKENDS, find_backend
from goal_kernels.objective import Objective
from goal_kernels.operators import define_operator, is_unwatched
from goal_kernels.pairs import relative_query
from goal_kernels.reference import apply_similarity, mine_similarity
from goal_kernels.weights import weigh

_FOUND = "Tensor values, Tensor indices, Tensor sums, Tensor counts, Tensor scales_of_rows"
_IDS = "Tensor? image_ids, Tensor? text_ids"
_SEARCH_SCHEMA = (
    f"(Tensor image, Tensor text, Tensor? target, {_IDS}, str relative, float epsilon, float beta,"
    f" bool normalize, str precision) -> ({_FOUND})"
)
_MINE_SIMILARITY_SCHEMA = (
    f"(Tensor similarity, {_IDS}, str relative, float epsilon, float beta) -> ({_FOUND})"
)
_FORWARD_SCHEMA = (
    f"(Tensor image, Tensor text, {_IDS}, str triplet, str pair, float tau, float alpha, "
    "float beta, float lam, float epsilon, float margin, str direction, bool normalize, "
    "str precision) -> (Tensor value, Tensor vectors, Tensor hardest)"
)
_BACKWARD_SCHEMA = (
    "(Tensor grad_loss, Tensor image, Tensor text, Tensor vectors, Tensor hardest, "
    "bool need_image, bool need_text) -> (Tensor grad_image, Tensor grad_text)"
)
_ATTACH_SCHEMA = (
    "(Tensor image, Tensor text, Tensor value, Tensor vectors, Tensor hardest, str backend)"
    " -> Tensor"
)
_TERMS = (
    "Tensor hardest_text, Tensor hardest_image, Tensor? target, Tensor positive_weight, "
    "Tensor row_weight, Tensor column_weight"
)
_APPLY_SCHEMA = (
    f"(Tensor grad_loss, Tensor image, Tensor text, {_TERMS}, Tensor scales_of_rows, "
    "bool need_image, bool need_text) -> (Tensor grad_image, Tensor grad_text)"
)
_ATTACH_TERMS_SCHEMA = (
    f"(Tensor image, Tensor text, Tensor value, {_TERMS}, Tensor scales_of_rows, str backend)"
    " -> Tensor"
)
_BACKWARD_SIMILARITY_SCHEMA = f"(Tensor grad_loss, Tensor similarity, {_TERMS}) -> Tensor"
_ATTACH_SIMILARITY_SCHEMA = f"(Tensor similarity, Tensor value, {_TERMS}) -> Tensor"


def _search(backend: Backend) -> Callable[..., tuple[Tensor, ...]]:
    def search(image: Tensor, text: Tensor, *question: Any) -> tuple[Tensor, ...]:
        pairing, query = Pairing(*question[:3]), SearchQuery(*question[3:])
        return backend.search(image, text, pairing, query)

    return search


def _search_fake(image: Tensor, text: Tensor, *question: Any) -> tuple[Tensor, ...]:
    sizes, query = (image.shape[0], text.shape[0]), SearchQuery(*question[3:])
    dtype = accumulate_dtype(image.dtype)
    return Found.empty(image, sizes, dtype, query.relative, query.normalize)


def _mine_similarity(similarity: Tensor, *question: Any) -> tuple[Tensor, ...]:
    pairing, (relative, epsilon, beta) = Pairing(None, *question[:2]), question[2:]
    scores = similarity.to(accumulate_dtype(similarity.dtype))
    positive = scores.diagonal().clone()
    query = relative_query(relative, positive, epsilon, beta)
    return Found.pack(positive, mine_similarity(scores, pairing, query))


def _mine_similarity_fake(similarity: Tensor, *question: Any) -> tuple[Tensor, ...]:
    rows, columns = similarity.shape
    dtype = accumulate_dtype(similarity.dtype)
    return Found.empty(similarity, (rows, columns), dtype, question[2], normalize=False)


@lru_cache(maxsize=256)
def _stage(triplet: str, pair: str, *rest: Any) -> tuple[str, WeightStage]:
    """The relative kind and the weight stage behind the words and numbers of a schema."""
    scalars, direction = Scalars(*rest[:-1]), rest[-1]
    objective = Objective(triplet, pair, **scalars._asdict())
    if not objective.built_in:
        raise ValueError(f"triplet, pair: expected built-in elements, got {objective.name}.")
    as_torch = partial(weigh, objective, direction=direction)
    triplet, pair = objective.triplet_element.name, objective.pair_element.name
    stage = WeightStage(triplet, pair, scalars, direction, as_torch)
    return objective.pair_element.relative, stage


def _forward(backend: Backend) -> Callable[..., tuple[Tensor, ...]]:
    def forward(
        image: Tensor,
        text: Tensor,
        image_ids: Tensor | None,
        text_ids: Tensor | None,
        *rest: Any,
    ) -> tuple[Tensor, ...]:
        *objective, normalize, precision = rest
        relative, stage = _stage(*objective)
        scalars = stage.scalars
        query = SearchQuery(relative, scalars.epsilon, scalars.beta, normalize, precision)
        return backend.forward(image, text, Pairing(None, image_ids, text_ids), query, stage)

    return forward


def _forward_fake(backend: Backend) -> Callable[..., tuple[Tensor, ...]]:
    def fake(image: Tensor, text: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        normalize = rest[-2]
        return Forward.empty(image, accumulate_dtype(image.dtype), normalize, backend.list_rows)

    return fake


def _forward_setup(
    ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...], backend: str
) -> None:
    _, vectors, hardest = output
    ctx.mark_non_differentiable(vectors, hardest)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:2], vectors, hardest)
    ctx.operator, ctx.arguments = f"backward_{backend}", len(inputs)


def _attach(image: Tensor, text: Tensor, value: Tensor, *rest: Any) -> Tensor:
    return value.clone()


def _attach_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor, operation: str) -> None:
    image, text, _, *weighted, backend = inputs
    ctx.save_for_backward(image, text, *weighted)
    ctx.operator, ctx.arguments = f"{operation}_{backend}", len(inputs)


def _propagate(ctx: Any, grad_loss: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad_loss is None:  # not materialised: nothing flows back
        return (None,) * ctx.arguments
    need_image, need_text = ctx.needs_input_grad[:2]
    operator = getattr(torch.ops.goal_kernels, ctx.operator)
    grad_image, grad_text = operator(grad_loss, *ctx.saved_tensors, need_image, need_text)
    absent = (None,) * (ctx.arguments - 2)
    return (grad_image if need_image else None, grad_text if need_text else None, *absent)


def _backward(backend: Backend) -> Callable[..., tuple[Tensor, Tensor]]:
    def backward(
        grad_loss: Tensor,
        image: Tensor,
        text: Tensor,
        vectors: Tensor,
        hardest: Tensor,
        need_image: bool,
        need_text: bool,
    ) -> tuple[Tensor, Tensor]:
        scale = grad_loss.to(vectors.dtype)
        grads = backend.backward(scale, image, text, vectors, hardest, (need_image, need_text))
        grad_image, grad_text = (image.new_empty(0) if g is None else g for g in grads)
        return grad_image, grad_text

    return backward


def _backward_fake(
    grad_loss: Tensor, image: Tensor, text: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    need_image, need_text = rest[-2:]
    grad_image = image.new_empty(image.shape if need_image else (0,))
    grad_text = text.new_empty(text.shape if need_text else (0,))
    return grad_image, grad_text


def _apply(backend: Backend) -> Callable[..., tuple[Tensor, Tensor]]:
    def apply(grad_loss: Tensor, image: Tensor, text: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        terms, (scales_of_rows, *need) = GradientTerms(*rest[:6]), rest[6:]
        scales = row_scales(scales_of_rows, (len(image), len(text)))
        scale = grad_loss.to(terms.row_weight.dtype)
        # Several negatives an anchor are summed by torch; the kernels know one.
        several = terms.hardest_text.dim() > 1
        summing = find_backend("reference") if several else backend
        grads = summing.apply(scale, image, text, terms, scales, (need[0], need[1]))
        grad_image, grad_text = (image.new_empty(0) if g is None else g for g in grads)
        return grad_image, grad_text

    return apply


def _backward_similarity(grad_loss: Tensor, similarity: Tensor, *rest: Tensor) -> Tensor:
    terms = GradientTerms(*rest)
    grad = apply_similarity(grad_loss.to(terms.row_weight.dtype), similarity.shape, terms)
    return grad.to(similarity.dtype)


def _backward_similarity_fake(grad_loss: Tensor, similarity: Tensor, *rest: Any) -> Tensor:
    return similarity.new_empty(similarity.shape)


def _attach_similarity(similarity: Tensor, value: Tensor, *rest: Any) -> Tensor:
    return value.clone()


def _attach_similarity_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    similarity, _, *terms = inputs
    ctx.save_for_backward(similarity, *terms)


def _propagate_similarity(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
    grad = torch.ops.goal_kernels.backward_similarity(grad_loss, *ctx.saved_tensors)
    return grad, *(None,) * 7


for _backend in BACKENDS:
    _name = _backend.name
    define_operator(f"search_{_name}", _SEARCH_SCHEMA, _search(_backend), _search_fake)
    define_operator(f"backward_{_name}", _BACKWARD_SCHEMA, _backward(_backend), _backward_fake)
    define_operator(f"apply_{_name}", _APPLY_SCHEMA, _apply(_backend), _backward_fake)
    define_operator(
        f"forward_{_name}",
        _FORWARD_SCHEMA,
        _forward(_backend),
        _forward_fake(_backend),
        _propagate,
        partial(_forward_setup, backend=_name),
    )
for _name, _schema, _operation in (
    ("attach", _ATTACH_SCHEMA, "backward"),
    ("attach_terms", _ATTACH_TERMS_SCHEMA, "apply"),
):
    _setup = partial(_attach_setup, operation=_operation)
    define_operator(_name, _schema, _attach, _attach, _propagate, _setup)
define_operator("mine_similarity", _MINE_SIMILARITY_SCHEMA, _mine_similarity, _mine_similarity_fake)
define_operator(
    "backward_similarity",
    _BACKWARD_SIMILARITY_SCHEMA,
    _backward_similarity,
    _backward_similarity_fake,
)
define_operator(
    "attach_similarity",
    _ATTACH_SIMILARITY_SCHEMA,
    _attach_similarity,
    _attach_similarity,
    _propagate_similarity,
    _attach_similarity_setup,
)


def search(
    backend: str, image: Tensor, text: Tensor, pairing: Pairing, query: SearchQuery
) -> Found:
    """`Backend.search`, by the operator of that backend where one is seen. Not differentiable."""
    chosen, direct = find_backend(backend), is_unwatched(image, text)
    if not direct or image.requires_grad or text.requires_grad:
        image, text = image.detach(), text.detach()
    if direct:
        return chosen.search(image, text, pairing, query)
    operator = getattr(torch.ops.goal_kernels, f"search_{chosen.name}")
    return Found(*operator(image, text, *pairing, *query))


def forward(
    backend: str,
    image: Tensor,
    text: Tensor,
    ids: tuple[Tensor | None, Tensor | None],
    objective: Objective,
    options: tuple[str, bool, str],
) -> Forward:
    """`Backend.forward` by the operator of that backend; the value carries the gradient.

    Args: options: direction, normalize, precision.
    """
    operator = getattr(torch.ops.goal_kernels, f"forward_{backend}")
    names = objective.triplet_element.name, objective.pair_element.name
    return Forward(*operator(image, text, *ids, *names, *objective.scalars, *options))
