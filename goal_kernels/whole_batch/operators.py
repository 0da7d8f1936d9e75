"""The operators behind the losses over all negatives.

`whole_batch` computes a value together with its gradients, `attach_whole_batch` hands the value
back with a backward that multiplies them. Rows are texts and columns are images.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from goal_kernels.backends.base import accumulate_dtype
from goal_kernels.backends.reference import matmul_precision
from goal_kernels.operators import define_operator, in_forward_mode
from goal_kernels.whole_batch.blocks import Batch, Gradients, Question
from goal_kernels.whole_batch.exponential import run_exponential
from goal_kernels.whole_batch.kinds import InfoNCE, Kind, Pointwise, Siglip, named_kind
from goal_kernels.whole_batch.pointwise import run_pointwise, run_siglip
from goal_kernels.whole_batch.products import readable


class Answer(NamedTuple):
    """value 0-d in the accumulate dtype, as the gradients are, [0] where they are not wanted.

    positive [M]: of each text and its image, -inf for none. skipped_images [M], skipped_texts [N]:
    candidates left out as false negatives. active: 0-d, pairs of a text and an image with a weight.
    """

    value: Tensor
    grad_text: Tensor
    grad_image: Tensor
    grad_scale: Tensor
    grad_bias: Tensor
    positive: Tensor
    skipped_images: Tensor
    skipped_texts: Tensor
    active: Tensor


def compute(
    kind: Kind, text: Tensor, image: Tensor, question: Question, precision: str, wanted: bool
) -> Answer:
    """A loss and its gradients. Args: wanted: whether gradients are."""
    lossless = accumulate_dtype(text.dtype) != text.dtype
    scale = kind.scale if isinstance(kind, InfoNCE | Siglip) else None
    with matmul_precision("highest" if lossless else precision):
        batch = Batch(text, image, question)
        gradients = Gradients(batch) if wanted else None
        bias = batch.positive.new_zeros(())
        if isinstance(kind, Siglip):
            value, bias = run_siglip(kind, batch, gradients)
        elif isinstance(kind, Pointwise):
            value = run_pointwise(kind, batch, gradients)
        else:
            value = run_exponential(kind, batch, gradients)
        value, bias, active, *skipped = map(
            batch.share.add, (value, bias, batch.active, *batch.skipped)
        )
    dtype = batch.positive.dtype
    rest = batch.positive, *skipped, active
    nothing = batch.positive.new_empty(0)
    if gradients is None:
        return Answer(value.to(dtype), nothing, nothing, nothing, nothing, *rest)
    for matrix in (gradients.rows, gradients.columns):
        batch.share.add_large(matrix)
    by_scale = value.new_zeros(())
    if scale is not None:
        by_scale = gradients.scale()
        gradients.rows *= scale
        gradients.columns *= scale
    rows, columns = gradients.raw()
    return Answer(value.to(dtype), rows, columns, by_scale.to(dtype), bias.to(dtype), *rest)


def _whole_batch(text: Tensor, image: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    question = Question(*rest[:4], *rest[8:13])
    dtype = accumulate_dtype(text.dtype)
    factors = [x.to(dtype).reshape(()) for x in rest[4:6] if x is not None]
    kind = named_kind(rest[6], factors, rest[7])
    return compute(kind, text, image, question, *rest[13:])


def _whole_batch_fake(text: Tensor, image: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    dtype, wanted = accumulate_dtype(text.dtype), rest[-1]

    def values(*shape: int) -> Tensor:
        return text.new_empty(shape, dtype=dtype)

    gradients = (text.shape, image.shape, (), ()) if wanted else ((0,),) * 4
    counts = (text.shape[0],), (image.shape[0],), ()
    return (
        values(),
        *(values(*shape) for shape in gradients),
        values(text.shape[0]),
        *(text.new_empty(shape, dtype=torch.int64) for shape in counts),
    )


_GRADIENTS = "Tensor grad_text, Tensor grad_image, Tensor grad_scale, Tensor grad_bias"

define_operator(
    "whole_batch",
    "(Tensor text, Tensor image, Tensor? target, Tensor? text_ids, Tensor? image_ids, "
    "Tensor? exempt, Tensor? scale, Tensor? bias, str kind, float[] parameters, float margin, "
    "float ratio, str direction, bool normalize, bool count, str precision, bool wanted) -> "
    f"(Tensor value, {_GRADIENTS}, Tensor positive, Tensor skipped_images, Tensor skipped_texts, "
    "Tensor active)",
    _whole_batch,
    _whole_batch_fake,
)


def _scaled(
    grad_loss: Tensor,
    text: Tensor,
    image: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    *gradients: Tensor,
) -> tuple[Tensor, ...]:
    """The gradients times the incoming one, as the inputs are; [0] for what is not there."""
    by = grad_loss.to(gradients[0].dtype)
    given = zip((text, image, scale, bias), gradients, strict=True)
    return tuple(
        by.new_empty(0) if x is None else (gradient * by).to(x.dtype).reshape(x.shape)
        for x, gradient in given
    )


def _scaled_fake(grad_loss: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return tuple(
        grad_loss.new_empty(0) if x is None else torch.empty_like(x).contiguous() for x in rest[:4]
    )


define_operator(
    "whole_batch_backward",
    f"(Tensor grad_loss, Tensor text, Tensor image, Tensor? scale, Tensor? bias, {_GRADIENTS}) -> "
    "(Tensor text, Tensor image, Tensor scale, Tensor bias)",
    _scaled,
    _scaled_fake,
)


def _attach(text: Tensor, image: Tensor, scale: Any, bias: Any, value: Tensor, *_: Any) -> Tensor:
    return value.clone()


def _attach_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    text, image, scale, bias, _, *gradients = inputs
    ctx.present = scale is not None, bias is not None
    kept = [x for x in (scale, bias) if x is not None]
    ctx.save_for_backward(text, image, *kept, *gradients)


def _alike(value: Tensor | None, gradient: Tensor) -> bool:
    return value is None or (value.dtype, value.shape) == (gradient.dtype, gradient.shape)


def _propagate(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
    text, image, *rest = ctx.saved_tensors
    factors = [rest.pop(0) if there else None for there in ctx.present]
    inputs = text, image, *factors
    # As `loss.backward()` passes it. If one of them is then written to, a second backward raises.
    known = type(grad_loss) is Tensor and readable(grad_loss)  # a subclass traces
    if known and grad_loss == 1 and all(map(_alike, inputs, rest)):
        found = rest
    else:
        found = torch.ops.goal_kernels.whole_batch_backward(grad_loss, *inputs, *rest)
    needed = zip(found, ctx.needs_input_grad[:4], strict=True)
    return *(x if need else None for x, need in needed), *(None,) * 5


define_operator(
    "attach_whole_batch",
    "(Tensor text, Tensor image, Tensor? scale, Tensor? bias, Tensor value, "
    f"{_GRADIENTS}) -> Tensor",
    _attach,
    lambda text, image, scale, bias, value, *_: torch.empty_like(value),
    _propagate,
    _attach_setup,
)


def differentiable(
    text: Tensor, image: Tensor, scale: Tensor | None, bias: Tensor | None, answer: Answer
) -> Tensor:
    """The value of an answer, 0-d, whose backward hands out its gradients."""
    operator = torch.ops.goal_kernels.attach_whole_batch
    if not (answer.grad_text.numel() or in_forward_mode()):  # forward mode is to be refused
        return answer.value
    loss: Tensor = operator(text, image, scale, bias, *answer[:5])
    return loss
