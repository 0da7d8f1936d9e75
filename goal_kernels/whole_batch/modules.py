"""The losses over all negatives as nn.Modules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from goal_kernels import constants
from goal_kernels.checks import Index, Mask
from goal_kernels.whole_batch import functional

LARGEST_SCALE = 100.0
"""Where CLIP stops its learned scale, 1 / similarity."""

PER_BATCH = {"image_ids", "text_ids", "text_to_image", "exempt_texts"}


class WholeBatchLoss(nn.Module):
    """A function of `whole_batch.functional` with its options; the base of the losses below.

    Args: options: those of the function, but what changes from batch to batch.
    """

    function: Callable[..., Any]

    def __init__(self, **options: Any) -> None:
        super().__init__()
        late = PER_BATCH & options.keys()
        if late:
            raise TypeError(f"{', '.join(sorted(late))}: give them with each batch, to the module.")
        self.options = options
        # Numbers and words are looked at before the first batch comes.
        pair = torch.zeros(2, 1, dtype=torch.float32, device="cpu")
        type(self).function(pair, pair, **options)

    def factors(self) -> dict[str, Any]:
        """Options that are parameters, as they are now."""
        return {}

    def forward(
        self,
        image_embeddings: Tensor,
        text_embeddings: Tensor,
        image_ids: Index | None = None,
        text_ids: Index | None = None,
        *,
        text_to_image: Index | None = None,
        exempt_texts: Mask | None = None,
    ) -> Any:
        """[B, D], [B, D], optional ids [B] -> 0-d loss, or (loss, stats) with `return_stats`.

        With `text_to_image` [M]: [N, D], [M, D], optional ids [N], [M].
        """
        return type(self).function(
            image_embeddings,
            text_embeddings,
            image_ids=image_ids,
            text_ids=text_ids,
            text_to_image=text_to_image,
            exempt_texts=exempt_texts,
            **self.options,
            **self.factors(),
        )

    if TYPE_CHECKING:  # with its arguments
        __call__ = forward

    def extra_repr(self) -> str:
        """What print() shows."""
        known = {
            **{n: f"{p.item():.4g}, learned" for n, p in self.named_parameters()},
            **self.options,
        }
        return ", ".join(f"{name}={value}" for name, value in known.items())


class SumOfHingesLoss(WholeBatchLoss):
    """`sum_of_hinges_loss` as a module."""

    function = staticmethod(functional.sum_of_hinges_loss)


class SoftMarginLoss(WholeBatchLoss):
    """`soft_margin_loss` as a module."""

    function = staticmethod(functional.soft_margin_loss)


class MultiSimilarityLoss(WholeBatchLoss):
    """`multi_similarity_loss` as a module."""

    function = staticmethod(functional.multi_similarity_loss)


class CircleLoss(WholeBatchLoss):
    """`circle_loss` as a module."""

    function = staticmethod(functional.circle_loss)


class InfoNCELoss(WholeBatchLoss):
    """`info_nce_loss` as a module.

    Args:
        scale: > 0; learned: where it starts, <= 100.
        learned: whether the logarithm of the scale is a parameter, as in CLIP, which is put back to
            log(100) when a step has taken it beyond.
        options: as in `WholeBatchLoss`.
    """

    function = staticmethod(functional.info_nce_loss)

    def __init__(
        self, scale: float = constants.TAU, *, learned: bool = False, **options: Any
    ) -> None:
        super().__init__(scale=scale, **options)
        if learned:
            del self.options["scale"]
            if scale > LARGEST_SCALE:
                raise ValueError(
                    f"scale: expected at most {LARGEST_SCALE:g} to learn, got {scale!r}."
                )
            self.log_scale = nn.Parameter(_logarithm(scale))

    def factors(self) -> dict[str, Any]:
        if "scale" in self.options:
            return {}
        with torch.no_grad():  # a clamp with a gradient would have none beyond
            self.log_scale.clamp_(max=math.log(LARGEST_SCALE))
        return {"scale": self.log_scale.exp()}


class SigLIPLoss(WholeBatchLoss):
    """`siglip_loss` as a module.

    Args:
        scale, bias: numbers, scale > 0; learned: where they start.
        learned: whether the logarithm of the scale and the bias are parameters, as published.
        options: as in `WholeBatchLoss`.
    """

    function = staticmethod(functional.siglip_loss)

    def __init__(
        self, scale: float = 10.0, bias: float = -10.0, *, learned: bool = True, **options: Any
    ) -> None:
        super().__init__(scale=scale, bias=bias, **options)
        if learned:
            del self.options["scale"], self.options["bias"]
            self.log_scale = nn.Parameter(_logarithm(scale))
            self.bias = nn.Parameter(torch.tensor(float(bias), dtype=torch.float32, device="cpu"))

    def factors(self) -> dict[str, Any]:
        if "scale" in self.options:
            return {}
        return {"scale": self.log_scale.exp(), "bias": self.bias}


def _logarithm(scale: float) -> Tensor:
    if not scale > 0:
        raise ValueError(f"scale: expected a number > 0 to learn its logarithm, got {scale!r}.")
    return torch.tensor(math.log(scale), dtype=torch.float32, device="cpu")
