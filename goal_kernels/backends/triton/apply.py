"""Launch of the Triton gradient kernel: every gradient row gathers its weighted source rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from goal_kernels.backends.answers import GradientTerms
from goal_kernels.backends.triton.configs import LAUNCH_OPTIONS, WARPS, gather_constants
from goal_kernels.backends.triton.runtime import load_kernels


@dataclass(frozen=True)
class Entries:
    """Weighted source rows grouped by the gradient row they add to.

    source int64 [E], weight float32 [E], starts int64 [R + 1]: row r owns starts[r]:starts[r + 1].
    """

    source: Tensor
    weight: Tensor
    starts: Tensor


@dataclass(frozen=True)
class Direct:
    """One weighted source row per gradient row: index int64 [R] or None for its own position."""

    index: Tensor | None
    weight: Tensor | None


def image_gradient(grad_loss: Tensor, image: Tensor, text: Tensor, terms: GradientTerms) -> Tensor:
    """Gradient of the image embeddings [N, D]."""
    entries = _group(terms.hardest_image, terms.column_weight, image.shape[0])
    mined = Direct(terms.hardest_text.contiguous(), terms.row_weight.contiguous())
    positive = Direct(terms.target, terms.positive_weight.contiguous())
    return _gather(grad_loss, image, text, (mined, positive), entries)


def text_gradient(grad_loss: Tensor, image: Tensor, text: Tensor, terms: GradientTerms) -> Tensor:
    """Gradient of the text embeddings [M, D]."""
    keys, weights = terms.hardest_text, terms.row_weight
    positive = Direct(None, None)
    if terms.target is not None:
        keys = torch.cat([keys, terms.target])
        weights = torch.cat([weights, -terms.positive_weight])
    else:
        positive = Direct(None, _fit(terms.positive_weight, text.shape[0]))
    entries = _group(keys, weights, text.shape[0])
    entries = replace(entries, source=entries.source % image.shape[0])
    mined = Direct(terms.hardest_image.contiguous(), terms.column_weight.contiguous())
    return _gather(grad_loss, text, image, (mined, positive), entries)


def _fit(weight: Tensor, length: int) -> Tensor:
    """First `length` weights, padded with zeros (which meet no source row): [length]."""
    if weight.shape[0] >= length:
        return weight[:length].contiguous()
    return torch.nn.functional.pad(weight, (0, length - weight.shape[0]))


def _group(keys: Tensor, weights: Tensor, rows: int) -> Entries:
    """Invert keys int64 [E] into lists per row, each in ascending entry order; no synchronisation.

    A key outside [0, rows) sorts behind the last list.
    """
    keys = torch.where((keys >= 0) & (keys < rows), keys, rows)
    ordered, order = torch.sort(keys, stable=True)
    bounds = torch.arange(rows + 1, device=keys.device)
    return Entries(order, weights[order], torch.searchsorted(ordered, bounds))


def _gather(
    grad_loss: Tensor,
    like: Tensor,
    source: Tensor,
    direct: tuple[Direct, Direct],
    entries: Entries,
) -> Tensor:
    """Run `gather_kernel`: gradient rows shaped like `like`, summed from rows of `source`."""
    rows, width = like.shape
    kernels = load_kernels()
    # The interpreter truncates to bfloat16 instead of rounding, so there torch does the rounding.
    stored = torch.float32 if kernels.INTERPRETED else like.dtype
    out = torch.empty((rows, width), dtype=stored, device=like.device)
    mined, positive = direct
    constants = gather_constants(width)
    grid = (rows, -(-width // constants["BLOCK_WIDTH"]))
    kernels.gather_kernel[grid](
        out,
        source,
        grad_loss,
        mined.index,
        mined.weight,
        positive.index,
        positive.weight,
        entries.source,
        entries.weight,
        entries.starts,
        source.shape[0],
        width,
        source.stride(0),
        **constants,
        num_warps=WARPS,
        **LAUNCH_OPTIONS,
    )
    return out.to(like.dtype)
