"""`dissect`: a batch's gradient of any loss, taken apart into pulls, pushes and what is neither."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from goal_kernels.analysis.catalogue import CatalogueLoss, as_loss
from goal_kernels.functional import goal_loss
from goal_kernels.objective import Objective
from goal_kernels.registry import PARAMETERS, list_elements
from goal_kernels.similarity_loss import goal_loss_from_similarity

BLOCK = 256
"""Columns by which embeddings are widened at once."""

WIDENING = 1e-4
"""Length of the added part of a row of unit length. It changes norms by half its square."""


class Anchors(NamedTuple):
    """What the rows of one side, as anchors, feel: [B] float64 each.

    hardest_share: share of the hardest negative in the sum of |push|; NaN without any push.
    effective_negatives: (sum |push|)^2 / sum push^2, how many equal ones would be as spread.
    outside: share of the gradient's length that is along neither the row itself nor rows of the
        other side, which no choice of weights and direction expresses; 0 without a gradient.
    """

    hardest_share: Tensor
    effective_negatives: Tensor
    outside: Tensor


@dataclass(frozen=True)
class Dissection:
    """The gradient of a loss over a batch, taken apart. Made by `dissect`; float64 on the CPU.

    Attributes:
        similarity: [B, B], images by texts.
        ids: int64 [B]; equal ones are positives of each other.
        slope: [B, B], dL/dS: what each pair contributes to the gradients of its two rows.
        pull: [B], -dL/dS of each pair. Both of its anchors are in it.
        other_pull: [B], likewise of the other positives of each image.
        push: [B, B], dL/dS of the negatives, 0 elsewhere.
        image, text: what anchors of either side feel.
        kappa: the coefficient of one direction for all contributions, w (y - kappa x), that fits
            the gradients best: 0 for products, 1 for squared distances; NaN where pulls and pushes
            cancel in every row and nothing can be told.
        direction: the registered one that fits best, at its default parameters; "dot" among equal
            ones.
        direction_error: length of what it misses along the rows themselves, over that of the
            gradient.
        outside: share of the length of both gradients that is outside, see `Anchors`.
    """

    similarity: Tensor
    ids: Tensor
    slope: Tensor
    pull: Tensor
    other_pull: Tensor
    push: Tensor
    image: Anchors
    text: Anchors
    kappa: float
    direction: str
    direction_error: float
    outside: float

    def summary(self) -> dict[str, float]:
        """Means over the anchors, and the numbers of the whole batch."""
        numbers = {"pull": self.pull.mean().item(), "push": self.push.sum(dim=1).mean().item()}
        for side in ("image", "text"):
            for name, values in getattr(self, side)._asdict().items():
                numbers[f"{side}/{name}"] = values.nanmean().item()
        return numbers | {"kappa": self.kappa, "outside": self.outside}


def dissect(
    loss: Objective | CatalogueLoss | str | Callable[..., Tensor],
    image: Tensor,
    text: Tensor,
    *,
    ids: Tensor | None = None,
    on: str = "embeddings",
    block: int = BLOCK,
) -> Dissection:
    """Take the gradient of a loss over a batch apart.

    A loss on embeddings is a black box. Its dL/dS is read exactly all the same: rows of images get
    columns of zeros, rows of texts a tiny unit vector each there, so that similarities stay as they
    are, and the gradient in column j of image i is the weight with which text j acts on it. That
    takes B / block passes; no more than B x B and B x (D + block) numbers are held.

    Args:
        loss: a differentiable callable, loss(image, text) or with `on="similarities"`
            loss(image @ text.T), that returns a number, or one for each anchor, which are added;
            bind labels with a lambda. Or an objective, a loss of the catalogue, or the name of
            either, which get `ids`.
        image, text: [B, D], pair i in row i of both; taken as float64 on the CPU.
        ids: integers [B]; equal ones are positives of each other. None: all are different.
        on: "embeddings" or "similarities", what a callable takes.
        block: columns at a time.
    Raises: TypeError, ValueError naming what is wrong.
    """
    image, text, ids = _batch(image, text, ids)
    if on not in ("embeddings", "similarities") or block < 1:
        raise ValueError(
            f"on, block: expected 'embeddings' or 'similarities' and a number >= 1, got {on!r} and "
            f"{block}."
        )
    function, on = _callable(loss, ids, on)
    similarity = image @ text.T
    if on == "similarities":
        (slope,) = _gradients(function, similarity)
        of_image, of_text = slope @ text, slope.T @ image
    else:
        of_image, of_text = _gradients(function, image, text)
        slope = _slope(function, image, text, block)
    same = ids[:, None] == ids[None, :]
    push = slope.masked_fill(same, 0.0)
    images = _side(image, text, slope, of_image, same)
    texts = _side(text, image, slope.T, of_text, same)
    lost, length, own = (
        torch.cat(part, dim=-1) for part in zip(images[1:], texts[1:], strict=True)
    )
    kappa, direction, error = _direction(own, length.norm())
    return Dissection(
        similarity,
        ids,
        slope,
        pull=-slope.diagonal(),
        other_pull=slope.diagonal() - slope.masked_fill(~same, 0.0).sum(dim=1),
        push=push,
        image=images[0],
        text=texts[0],
        kappa=kappa,
        direction=direction,
        direction_error=error,
        outside=_share(lost.norm(), length.norm()).item(),
    )


def _batch(image: Tensor, text: Tensor, ids: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Checked, as float64 and int64 on the CPU, ids made up when there are none."""
    for name, rows in (("image", image), ("text", text)):
        if not isinstance(rows, Tensor) or not rows.dtype.is_floating_point or rows.dim() != 2:
            shown = f"{rows.dtype} {list(rows.shape)}" if isinstance(rows, Tensor) else type(rows)
            raise TypeError(f"{name}: expected floating-point embeddings [B, D], got {shown}.")
    if image.shape != text.shape or not len(image):
        raise ValueError(
            f"text: expected a row for each of B >= 1 images, of the same width, got "
            f"{list(text.shape)} for images {list(image.shape)}."
        )
    if ids is None:
        ids = torch.arange(len(image), device="cpu")
    elif not isinstance(ids, Tensor) or ids.is_floating_point() or ids.shape != image.shape[:1]:
        raise ValueError(f"ids: expected integers [{len(image)}], got {ids!r}.")
    return image.detach().cpu().double(), text.detach().cpu().double(), ids.cpu().long()


def _callable(loss: Any, ids: Tensor, on: str) -> tuple[Callable[..., Tensor], str]:
    """The loss as a callable, and what it takes."""
    loss = as_loss(loss)
    if isinstance(loss, Objective):
        objective = loss
        if objective.direction_element != "dot":
            return lambda x, y: goal_loss(x, y, objective, image_ids=ids), "embeddings"
        return lambda s: goal_loss_from_similarity(s, objective, image_ids=ids), "similarities"
    if isinstance(loss, CatalogueLoss):
        entry = loss
        return lambda s: entry.of_similarity(s, ids), "similarities"
    if not callable(loss):
        raise TypeError(
            f"loss: expected an objective, a loss of the catalogue, the name of either, or a "
            f"callable, got {type(loss).__name__}."
        )
    return loss, on


def _gradients(function: Callable[..., Any], *inputs: Tensor) -> tuple[Tensor, ...]:
    """The gradients of the sum of what the function returns. Raises: when it has none."""
    leaves = [part.detach().clone().requires_grad_() for part in inputs]
    with torch.enable_grad():
        value = function(*leaves)
    if not isinstance(value, Tensor) or value.is_complex() or not value.requires_grad:
        shown = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(
            f"loss: expected a real tensor that depends on its arguments differentiably, got "
            f"{shown}{' without a graph' if isinstance(value, Tensor) else ''}."
        )
    found = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
    gradients = tuple(
        torch.zeros_like(leaf) if part is None else part
        for leaf, part in zip(leaves, found, strict=True)
    )
    if not value.isfinite().all() or not all(part.isfinite().all() for part in gradients):
        raise ValueError("loss: expected finite values and gradients, got NaN or infinity.")
    return gradients


def _slope(function: Callable[..., Tensor], image: Tensor, text: Tensor, block: int) -> Tensor:
    """dL/dS of a loss on embeddings, [B, B]: see `dissect`."""
    width = image.shape[1]
    columns = []
    tiny = WIDENING * text.norm(dim=1).mean().clamp(min=torch.finfo(text.dtype).tiny)
    for start in range(0, len(text), block):
        unit = torch.eye(len(text), dtype=text.dtype, device="cpu")[:, start : start + block]
        wide_image = torch.cat([image, torch.zeros_like(unit)], dim=1)
        wide_text = torch.cat([text, tiny * unit], dim=1)
        try:
            gradient = _gradients(function, wide_image, wide_text)[0]
        except RuntimeError as error:
            raise ValueError(
                f"loss: takes rows of width {width}, but no wider ones, as this needs ({error}); "
                "give what comes before the first layer with weights, or use on='similarities'."
            ) from error
        columns.append(gradient[:, width:] / tiny)
    return torch.cat(columns, dim=1)


def _side(
    x: Tensor, y: Tensor, slope: Tensor, gradient: Tensor, same: Tensor
) -> tuple[Anchors, Tensor, Tensor, Tensor]:
    """One side of a batch: rows x with their gradient [B, D] beside the others y, slope by x.

    Returns: what its anchors feel; lengths [B] of the gradient's part outside and of all of it; its
        parts along x times the length of x, found and as each direction asks: [1 + kinds, B].
    """
    rest, similarity = gradient - slope @ y, x @ y.T
    square = x.square().sum(dim=1).clamp(min=torch.finfo(x.dtype).tiny)
    along = (rest * x).sum(dim=1) / square
    outside = (rest - along[:, None] * x).norm(dim=1)
    share = similarity / square[:, None]
    expected = [-(slope * kappa(share)).sum(dim=1) for kappa in _directions().values()]
    push = slope.masked_fill(same, 0.0).abs()
    total, squares = push.sum(dim=1), push.square().sum(dim=1)
    hardest = similarity.masked_fill(same, -math.inf).argmax(dim=1, keepdim=True)
    anchors = Anchors(
        hardest_share=push.gather(1, hardest)[:, 0] / total,
        effective_negatives=_share(total.square(), squares),
        outside=_share(outside, gradient.norm(dim=1)),
    )
    own = torch.stack([along, *expected]) * square.sqrt()
    return anchors, outside, gradient.norm(dim=1), own


def _directions() -> dict[str, Callable[[Tensor], Tensor]]:
    """kappa of every registered direction, from <x, y> / <x, x>."""
    found: dict[str, Callable[[Tensor], Tensor]] = {}
    for element in list_elements("direction"):
        defaults = {p.name: p.default for p in (*PARAMETERS.values(), *element.own_parameters)}
        values = {name: defaults[name] for name in element.parameters}
        found[element.name] = partial(_kappa, element.formula, values)
    return found


def _kappa(formula: Callable[..., Tensor], values: dict[str, float], share: Tensor) -> Tensor:
    return formula(similarity=share, **values)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, 0 for nothing of nothing."""
    return torch.where(whole > 0, part / whole, 0.0)


def _direction(own: Tensor, length: Tensor) -> tuple[float, str, float]:
    """kappa, the direction and its error.

    Args: own: [1 + kinds, 2 B], parts of the gradients along the rows, times the rows' lengths:
        found, and expected of each direction.
    """
    found, expected = own[0], dict(zip(_directions(), own[1:], strict=True))
    whole = expected["euclidean"]  # what kappa = 1 would give
    told = whole.norm() > 1e-6 * length
    kappa = (found @ whole / whole.square().sum()).item() if told else math.nan
    misses = {name: (found - part).norm() for name, part in expected.items()}
    least = min(misses.values())
    name = next(name for name, miss in misses.items() if miss <= least + 1e-9 * length)
    return kappa, name, _share(misses[name], length).item()
