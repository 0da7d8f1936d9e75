"""What all losses over all negatives share: options, checks, computation, reduction, statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple, TypedDict

import torch
from torch import Tensor

from goal_kernels import checks
from goal_kernels.backends.base import settled_precision
from goal_kernels.checks import Index, Mask
from goal_kernels.negatives import as_selection
from goal_kernels.objective import Objective
from goal_kernels.operators import transformed
from goal_kernels.pairing_checks import check_pairing
from goal_kernels.pairs import owned
from goal_kernels.weights import DIRECTIONS
from goal_kernels.whole_batch.blocks import Question
from goal_kernels.whole_batch.kinds import Averaged
from goal_kernels.whole_batch.operators import Answer, compute, differentiable

REDUCTIONS = ("sum", "mean")


class Options(TypedDict, total=False):
    """What every loss over all negatives takes beside its own numbers; see `goal_loss` for each.

    An option that is left out has the default of `goal_loss`.
    """

    text_to_image: Index | None
    image_ids: Index | None
    text_ids: Index | None
    false_negative_margin: float | None
    false_negative_ratio: float | None
    exempt_texts: Mask | None
    normalize: bool
    reduction: str
    direction: str
    precision: str | None


class WholeBatchStatistics(NamedTuple):
    """What a loss over all negatives met, without gradients.

    value: 0-d, the sum over anchors, whatever the reduction. positive: [M], similarity of each
    pair, -inf for a text of no image. active_fraction: 0-d, share of the N M similarities whose
    weight is not 0, leaving out that of pairs but in SigLIP; NaN when no gradient was asked for.
    skipped_texts [N], skipped_images [M]: candidates of each image and text that were left out as
    false negatives.
    """

    value: Tensor
    positive: Tensor
    active_fraction: Tensor
    skipped_texts: Tensor
    skipped_images: Tensor


def run_loss(
    kind: str | Objective,
    embeddings: tuple[Tensor, Tensor],
    parameters: Sequence[float],
    options: dict[str, Any],
    **factors: Tensor | float,
) -> Any:
    """Check, compute, reduce.

    Args: options: those of `Options`, and return_stats. factors: scale and bias, if there are any.
    """
    image, text = checks.check_embeddings(*embeddings)
    owner, (image_ids, text_ids) = check_pairing(
        image, text, *(options.pop(x, None) for x in ("text_to_image", "image_ids", "text_ids"))
    )
    limits = (options.pop(f"false_negative_{x}", None) for x in ("margin", "ratio"))
    selection = as_selection("hardest", *limits)
    exempt = checks.check_mask(
        "exempt_texts", options.pop("exempt_texts", None), len(text), text.device
    )
    reduction, direction = options.pop("reduction", "sum"), options.pop("direction", "both")
    normalize, counting = options.pop("normalize", False), options.pop("return_stats", False)
    precision = options.pop("precision", None)
    checks.check_choice("reduction", reduction, REDUCTIONS)
    checks.check_choice("direction", direction, DIRECTIONS)
    checks.check_flag("normalize", normalize)
    checks.check_flag("return_stats", counting)
    checks.check_precision(precision)
    if options:
        raise TypeError(
            f"{', '.join(options)}: expected options of a loss over all negatives, "
            f"{', '.join(Options.__annotations__)} or return_stats."
        )
    given = {name: _factor(name, value, text) for name, value in factors.items()}
    scale, bias = given.get("scale"), given.get("bias")
    inputs = text, image, *given.values()
    # A transform of torch.func hides from the one inside whether gradients are wanted outside.
    asked = transformed() or any(x.requires_grad for x in inputs)
    wanted = torch.is_grad_enabled() and asked
    question = Question(
        *(owner, text_ids, image_ids, exempt, selection.margin, selection.ratio),
        *(direction, normalize, counting),
    )
    precision = settled_precision(precision, text.device.type)
    if isinstance(kind, str):
        inner = [None if x is None else x.detach() for x in (text, image, scale, bias)]
        answer = Answer(
            *torch.ops.goal_kernels.whole_batch(
                *inner[:2],
                *question[:4],
                *inner[2:],
                kind,
                list(parameters),
                *question[4:],
                precision,
                wanted,
            )
        )
    else:
        with torch.no_grad():
            answer = compute(
                Averaged(kind), text.detach(), image.detach(), question, precision, wanted
            )
    loss = differentiable(text, image, scale, bias, answer)
    if reduction == "mean":
        loss = loss / (len(image) if owner is None else owned(owner, len(image)).sum())
    if not counting:
        return loss
    share = (
        answer.active / (len(image) * len(text)) if wanted else answer.value.new_tensor(math.nan)
    )
    found = answer.value, answer.positive, share, answer.skipped_texts, answer.skipped_images
    return loss, WholeBatchStatistics(*found)


def _factor(name: str, value: object, like: Tensor) -> Tensor:
    """A number, or a tensor of one, that may have a gradient. Raises: TypeError, ValueError."""
    if isinstance(value, Tensor):
        if not value.is_floating_point() or value.numel() != 1:
            raise ValueError(
                f"{name}: expected one floating-point number, got {value.dtype} of shape "
                f"{list(value.shape)}."
            )
        checks.check_same_device(name, value, like.device)
        return value
    number = check_number(name, value, -math.inf)
    return torch.tensor(number, dtype=torch.float64, device=like.device)


def check_number(name: str, value: object, least: float, *, open_end: bool = True) -> float:
    """Require a finite number > least, or >= least. Raises: TypeError, ValueError."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number, got {value!r}.")
    number = float(value)
    if not (least < number < math.inf or (number == least and not open_end)):
        bound = "" if least == -math.inf else f" {'>' if open_end else '>='} {least:g}"
        raise ValueError(f"{name}: expected a finite number{bound}, got {value!r}.")
    return number
