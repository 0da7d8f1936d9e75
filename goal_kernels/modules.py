"""`GOALLoss`: the objective as an nn.Module."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, Literal, overload

from torch import Tensor, nn
from typing_extensions import TypeVar

from goal_kernels.checks import Index, Mask
from goal_kernels.functional import goal_loss
from goal_kernels.negatives import ALL, HARDEST, Negatives, as_selection
from goal_kernels.objective import Objective, as_objective
from goal_kernels.statistics import MiningStatistics

Result = TypeVar("Result", default=Tensor)
"""What a call returns: the loss, or with `return_stats` (loss, statistics)."""


class GOALLoss(nn.Module, Generic[Result]):
    """A GOAL objective as a criterion: `GOALLoss("nca/sigmoid_ms")(images, texts)`.

    Args: as `goal_loss`. Hyper-parameters are validated here, everything else when called.

    Has no parameters and no state: swapping objectives in a run changes nothing else. Attributes
    may be changed between calls: `Sampled` wants a new seed each step.
    """

    _loss: Callable[..., Tensor | tuple[Tensor, MiningStatistics]] = staticmethod(goal_loss)

    if TYPE_CHECKING:

        def __call__(
            self,
            image_embeddings: Tensor,
            text_embeddings: Tensor,
            image_ids: Index | None = None,
            text_ids: Index | None = None,
            *,
            text_to_image: Index | None = None,
            exempt_texts: Mask | None = None,
        ) -> Result: ...

    # fmt: off
    @overload
    def __init__(
        self: GOALLoss[Tensor], objective: Objective | str, *, negatives: Negatives = ...,
        false_negative_margin: float | None = ..., false_negative_ratio: float | None = ...,
        normalize: bool = ...,
        reduction: str = ..., direction: str = ..., precision: str | None = ...,
        backend: str = ..., return_stats: Literal[False] = ..., **parameters: float,
    ) -> None: ...
    @overload
    def __init__(
        self: GOALLoss[tuple[Tensor, MiningStatistics]], objective: Objective | str, *,
        negatives: Negatives = ..., false_negative_margin: float | None = ...,
        false_negative_ratio: float | None = ..., normalize: bool = ..., reduction: str = ...,
        direction: str = ..., precision: str | None = ..., backend: str = ...,
        return_stats: Literal[True], **parameters: float,
    ) -> None: ...
    @overload
    def __init__(
        self: GOALLoss[Tensor | tuple[Tensor, MiningStatistics]], objective: Objective | str, *,
        negatives: Negatives = ..., false_negative_margin: float | None = ...,
        false_negative_ratio: float | None = ..., normalize: bool = ..., reduction: str = ...,
        direction: str = ..., precision: str | None = ..., backend: str = ...,
        return_stats: bool, **parameters: float,
    ) -> None: ...
    # fmt: on
    def __init__(
        self,
        objective: Objective | str,
        *,
        negatives: Negatives = "hardest",
        false_negative_margin: float | None = None,
        false_negative_ratio: float | None = None,
        normalize: bool = False,
        reduction: str = "sum",
        direction: str = "both",
        precision: str | None = None,
        backend: str = "auto",
        return_stats: bool = False,
        **parameters: float,
    ) -> None:
        super().__init__()
        self.objective = as_objective(objective, parameters)
        kind = HARDEST if negatives == ALL else negatives
        as_selection(kind, false_negative_margin, false_negative_ratio)
        self.negatives = negatives
        self.false_negative_margin = false_negative_margin
        self.false_negative_ratio = false_negative_ratio
        self.normalize = normalize
        self.reduction = reduction
        self.direction = direction
        self.precision = precision
        self.backend = backend
        self.return_stats = return_stats

    def forward(
        self,
        image_embeddings: Tensor,
        text_embeddings: Tensor,
        image_ids: Index | None = None,
        text_ids: Index | None = None,
        *,
        text_to_image: Index | None = None,
        exempt_texts: Mask | None = None,
    ) -> Tensor | tuple[Tensor, MiningStatistics]:
        """See `goal_loss`: [B, D], [B, D], optional ids [B] -> 0-d loss, or (loss, stats).

        With `text_to_image` [M]: [N, D], [M, D], optional ids [N], [M].
        """
        return self._loss(
            image_embeddings,
            text_embeddings,
            self.objective,
            text_to_image=text_to_image,
            image_ids=image_ids,
            text_ids=text_ids,
            negatives=self.negatives,
            false_negative_margin=self.false_negative_margin,
            false_negative_ratio=self.false_negative_ratio,
            exempt_texts=exempt_texts,
            normalize=self.normalize,
            reduction=self.reduction,
            direction=self.direction,
            precision=self.precision,
            backend=self.backend,
            return_stats=self.return_stats,
        )

    def extra_repr(self) -> str:
        """What print() shows: the elements and every option that matters."""
        return (
            f"{self.objective.name}, reduction={self.reduction}, direction={self.direction}, "
            f"normalize={self.normalize}, negatives={self.negatives}, backend={self.backend}"
        )
