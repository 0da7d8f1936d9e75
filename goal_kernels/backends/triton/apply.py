"""Launch of the Triton gradient kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from goal_kernels.backends.answers import VECTORS
from goal_kernels.backends.triton import weigh_configs
from goal_kernels.backends.triton.configs import LAUNCH_OPTIONS
from goal_kernels.backends.triton.runtime import load_kernels
from goal_kernels.backends.triton.weigh_configs import GatherShape, gather_shape

Gradients = tuple[Tensor | None, Tensor | None]


def square_gradients(
    grad_loss: Tensor,
    embeddings: tuple[Tensor, Tensor],
    vectors: Tensor,
    hardest: Tensor,
    need: tuple[bool, bool],
) -> Gradients:
    """Gradients of images and texts [B, D] from what a forward left.

    Args: as in `Backend.backward`; rows of unit inner stride; hardest with its lists. One launch,
        and one more before it when B is above SMALL.
    """
    batch, width = embeddings[0].shape
    small = batch <= weigh_configs.SMALL
    shape = gather_shape(width, embeddings[0].element_size(), small)
    hubs: tuple[Tensor | None, Tensor | None] = (None, None)
    if not small:
        hubs = _sum_hubs(embeddings, vectors, hardest, shape)
    return _gather(grad_loss, embeddings, (vectors, hardest), hubs, need, shape)


def _sum_hubs(
    embeddings: tuple[Tensor, Tensor], vectors: Tensor, hardest: Tensor, shape: GatherShape
) -> tuple[Tensor, Tensor | None]:
    """Run `hub_kernel`; sums of pieces of long lists, and their projections of normalised rows."""
    image, text = embeddings
    batch, width = image.shape
    normalized = len(vectors) > VECTORS
    pieces = 2 * -(-batch // weigh_configs.HUB_CHUNK)
    sums = vectors.new_empty((pieces, width))
    projections = vectors.new_empty(pieces) if normalized else None
    load_kernels().hub_kernel[(pieces, -(-width // shape.width))](
        sums,
        projections,
        image,
        text,
        vectors,
        hardest,
        batch,
        width,
        image.stride(0),
        text.stride(0),
        NORMALIZE=normalized,
        HUB=weigh_configs.HUB_CHUNK,
        COUNT=shape.count,
        BLOCK_WIDTH=shape.width,
        num_warps=shape.warps,
        **LAUNCH_OPTIONS,
    )
    return sums, projections


def _gather(
    grad_loss: Tensor,
    embeddings: tuple[Tensor, Tensor],
    state: tuple[Tensor, Tensor],
    hubs: tuple[Tensor | None, Tensor | None],
    need: tuple[bool, bool],
    shape: GatherShape,
) -> Gradients:
    """Run `gather_kernel`; state: vectors and hardest."""
    if not any(need):
        return None, None
    image, text = embeddings
    batch, width = image.shape
    kernels = load_kernels()
    # The interpreter truncates to bfloat16 instead of rounding, so there torch does the rounding.
    stored = torch.float32 if kernels.INTERPRETED else image.dtype
    outputs = [
        torch.empty(side.shape, dtype=stored, device=image.device) if wanted else None
        for side, wanted in zip(embeddings, need, strict=True)
    ]
    programs = sum(need) * batch
    kernels.gather_kernel[(programs, -(-width // shape.width))](
        # The kernel never writes to the stand-in of a gradient that is not wanted.
        outputs[0] if need[0] else outputs[1],
        outputs[1] if need[1] else outputs[0],
        grad_loss,
        image,
        text,
        *state,
        *hubs,
        0 if need[0] else batch,
        batch,
        width,
        image.stride(0),
        text.stride(0),
        NORMALIZE=len(state[0]) > VECTORS,
        HUB=0 if hubs[0] is None else weigh_configs.HUB_CHUNK,
        COUNT=shape.count,
        FIRST=shape.first,
        BLOCK_WIDTH=shape.width,
        num_warps=shape.warps,
        **LAUNCH_OPTIONS,
    )
    grad_image, grad_text = (None if out is None else out.to(image.dtype) for out in outputs)
    return grad_image, grad_text
