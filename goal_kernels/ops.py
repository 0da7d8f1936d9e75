"""The operators, registered with torch.library under `goal_kernels::`.

For every backend `mine_<backend>` and `apply_<backend>` with one schema each, so which kernel ran
is never a guess; and, for all backends, `attach`: it hands back the value and carries the gradient.
None of them can be differentiated twice: the GOAL gradient is not the derivative of the value
(docs/derivation.md, section 3), so a second derivative would be a plausible wrong number.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from goal_kernels.backends import BACKENDS, find_backend
from goal_kernels.backends.base import (
    Backend,
    GradientTerms,
    Mined,
    Pairing,
    RelativeQuery,
    accumulate_dtype,
)
from goal_kernels.pairs import pair_similarity
from goal_kernels.reference import apply_similarity, mine_similarity

NAMESPACE = "goal_kernels"

_MINED = (
    "Tensor positive, Tensor row_value, Tensor row_index, Tensor column_value, "
    "Tensor column_index, Tensor row_sum, Tensor row_count, Tensor column_sum, Tensor column_count"
)
_MINE_SCHEMA = (
    "(Tensor image, Tensor text, Tensor? target, Tensor? image_ids, Tensor? text_ids, str relative,"
    f" float epsilon, float beta, str precision) -> ({_MINED})"
)
_MINE_SIMILARITY_SCHEMA = (
    "(Tensor similarity, Tensor? image_ids, Tensor? text_ids, str relative, float epsilon, "
    f"float beta) -> ({_MINED})"
)
_TERMS = (
    "Tensor hardest_text, Tensor hardest_image, Tensor? target, Tensor positive_weight, "
    "Tensor row_weight, Tensor column_weight"
)
_APPLY_SCHEMA = (
    f"(Tensor grad_loss, Tensor image, Tensor text, {_TERMS}, bool need_image, bool need_text)"
    " -> (Tensor grad_image, Tensor grad_text)"
)
_ATTACH_SCHEMA = f"(Tensor image, Tensor text, Tensor value, {_TERMS}, str backend) -> Tensor"
_APPLY_SIMILARITY_SCHEMA = f"(Tensor grad_loss, Tensor similarity, {_TERMS}) -> Tensor"
_ATTACH_SIMILARITY_SCHEMA = f"(Tensor similarity, Tensor value, {_TERMS}) -> Tensor"

DOUBLE_BACKWARD = (
    "goal_loss cannot be differentiated twice: its gradient is defined directly and is not the "
    "derivative of the reported value. Detach it, or call backward without create_graph=True."
)


def _without_autocast(device_type: str) -> AbstractContextManager[Any]:
    """Autocast would silently lower the precision of products inside an operator."""
    if torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def _query(kind: str, positive: Tensor, epsilon: float, beta: float) -> RelativeQuery:
    """What to sum, at or above min over existing positives [N] - epsilon (eq. 6)."""
    if kind == "none":
        return RelativeQuery(kind, positive.new_zeros(()), beta)
    exists = positive != float("-inf")
    threshold = torch.where(exists, positive, float("inf")).amin() - epsilon
    return RelativeQuery(kind, threshold, beta)


def _mine(backend: Backend) -> Callable[..., tuple[Tensor, ...]]:
    def mine(
        image: Tensor,
        text: Tensor,
        target: Tensor | None,
        image_ids: Tensor | None,
        text_ids: Tensor | None,
        relative: str,
        epsilon: float,
        beta: float,
        precision: str,
    ) -> tuple[Tensor, ...]:
        with torch.no_grad(), _without_autocast(image.device.type):
            positive = pair_similarity(image, text, target)
            query = _query(relative, positive, epsilon, beta)
            pairing = Pairing(target, image_ids, text_ids)
            return (positive, *backend.mine(image, text, pairing, query, precision))

    return mine


def _mined_like(like: Tensor, rows: int, columns: int, relative: str) -> tuple[Tensor, ...]:
    """Empty tensors with the shapes and dtypes that mining [rows, columns] returns."""
    dtype = accumulate_dtype(like.dtype)

    def values(size: int) -> Tensor:
        return like.new_empty(size, dtype=dtype)

    def integers(size: int) -> Tensor:
        return like.new_empty(size, dtype=torch.int64)

    sums = (0, 0) if relative == "none" else (rows, columns)
    return (
        values(rows),
        *(values(rows), integers(rows), values(columns), integers(columns)),
        *(values(sums[0]), integers(sums[0]), values(sums[1]), integers(sums[1])),
    )


def _mine_fake(
    image: Tensor,
    text: Tensor,
    target: Tensor | None,
    image_ids: Tensor | None,
    text_ids: Tensor | None,
    relative: str,
    epsilon: float,
    beta: float,
    precision: str,
) -> tuple[Tensor, ...]:
    return _mined_like(image, image.shape[0], text.shape[0], relative)


def _mine_similarity(
    similarity: Tensor,
    image_ids: Tensor | None,
    text_ids: Tensor | None,
    relative: str,
    epsilon: float,
    beta: float,
) -> tuple[Tensor, ...]:
    with torch.no_grad():
        scores = similarity.to(accumulate_dtype(similarity.dtype))
        positive = scores.diagonal().clone()
        query = _query(relative, positive, epsilon, beta)
        return (positive, *mine_similarity(scores, Pairing(None, image_ids, text_ids), query))


def _mine_similarity_fake(
    similarity: Tensor,
    image_ids: Tensor | None,
    text_ids: Tensor | None,
    relative: str,
    epsilon: float,
    beta: float,
) -> tuple[Tensor, ...]:
    return _mined_like(similarity, similarity.shape[0], similarity.shape[1], relative)


def _apply(backend: Backend) -> Callable[..., tuple[Tensor, Tensor]]:
    def apply(
        grad_loss: Tensor, image: Tensor, text: Tensor, *terms_and_need: Any
    ) -> tuple[Tensor, Tensor]:
        *terms, need_image, need_text = terms_and_need
        with torch.no_grad(), _without_autocast(image.device.type):
            scale = grad_loss.to(accumulate_dtype(image.dtype))
            grads = backend.apply(
                scale, image, text, GradientTerms(*terms), (need_image, need_text)
            )
        # A schema cannot promise an absent tensor; an empty one stands for "not wanted".
        grad_image, grad_text = (image.new_empty(0) if g is None else g for g in grads)
        return grad_image, grad_text

    return apply


def _apply_fake(
    grad_loss: Tensor, image: Tensor, text: Tensor, *terms_and_need: Any
) -> tuple[Tensor, Tensor]:
    need_image, need_text = terms_and_need[-2:]
    grad_image = image.new_empty(image.shape if need_image else (0,))
    grad_text = text.new_empty(text.shape if need_text else (0,))
    return grad_image, grad_text


def _apply_similarity(grad_loss: Tensor, similarity: Tensor, *terms: Any) -> Tensor:
    with torch.no_grad():
        scale = grad_loss.to(accumulate_dtype(similarity.dtype))
        rows, columns = similarity.shape
        grad = apply_similarity(scale, (rows, columns), GradientTerms(*terms))
        return grad.to(similarity.dtype)


def _apply_similarity_fake(grad_loss: Tensor, similarity: Tensor, *terms: Any) -> Tensor:
    return similarity.new_empty(similarity.shape)


def _attach(image: Tensor, text: Tensor, value: Tensor, *rest: Any) -> Tensor:
    return value.clone()


def _attach_similarity(similarity: Tensor, value: Tensor, *terms: Any) -> Tensor:
    return value.clone()


def _attach_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    image, text, _, *terms, backend = inputs
    ctx.save_for_backward(image, text, *terms)
    ctx.backend = backend


def _attach_backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
    image, text, *terms = ctx.saved_tensors
    need_image, need_text = ctx.needs_input_grad[:2]
    apply = getattr(torch.ops.goal_kernels, f"apply_{ctx.backend}")
    grad_image, grad_text = apply(grad_loss, image, text, *terms, need_image, need_text)
    absent = (None,) * (len(terms) + 2)
    return (grad_image if need_image else None, grad_text if need_text else None, *absent)


def _attach_similarity_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    similarity, _, *terms = inputs
    ctx.save_for_backward(similarity, *terms)


def _attach_similarity_backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
    similarity, *terms = ctx.saved_tensors
    grad = torch.ops.goal_kernels.apply_similarity(grad_loss, similarity, *terms)
    return (grad, *(None,) * (len(terms) + 1))


def _refuse_backward(ctx: Any, *grads: Tensor) -> None:
    raise RuntimeError(DOUBLE_BACKWARD)


def _register(
    name: str,
    schema: str,
    implementation: Callable[..., Any],
    fake: Callable[..., Any],
    backward: Callable[..., Any] = _refuse_backward,
    setup: Callable[..., None] | None = None,
) -> None:
    qualified = f"{NAMESPACE}::{name}"
    torch.library.define(qualified, schema)
    torch.library.impl(qualified, "CompositeExplicitAutograd")(implementation)
    torch.library.register_fake(qualified)(fake)
    torch.library.register_autograd(qualified, backward, setup_context=setup)


for _backend in BACKENDS:
    _register(f"mine_{_backend.name}", _MINE_SCHEMA, _mine(_backend), _mine_fake)
    _register(f"apply_{_backend.name}", _APPLY_SCHEMA, _apply(_backend), _apply_fake)
_register("mine_similarity", _MINE_SIMILARITY_SCHEMA, _mine_similarity, _mine_similarity_fake)
_register("apply_similarity", _APPLY_SIMILARITY_SCHEMA, _apply_similarity, _apply_similarity_fake)
_register("attach", _ATTACH_SCHEMA, _attach, _attach, _attach_backward, _attach_setup)
_register(
    "attach_similarity",
    _ATTACH_SIMILARITY_SCHEMA,
    _attach_similarity,
    _attach_similarity,
    _attach_similarity_backward,
    _attach_similarity_setup,
)


def mine(
    backend: str,
    image: Tensor,
    text: Tensor,
    pairing: Pairing,
    relative: str,
    epsilon: float,
    beta: float,
    precision: str,
) -> tuple[Tensor, Mined]:
    """Positives [N] and `Mined`, by the operator of that backend. Not differentiable."""
    operator = getattr(torch.ops.goal_kernels, f"mine_{find_backend(backend).name}")
    positive, *mined = operator(
        image.detach(), text.detach(), *pairing, relative, epsilon, beta, precision
    )
    return positive, Mined(*mined)
