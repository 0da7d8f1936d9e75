"""`GOALLoss`: the objective as an nn.Module."""

from __future__ import annotations

from torch import Tensor, nn

from goal_kernels.functional import goal_loss
from goal_kernels.objective import Objective, as_objective
from goal_kernels.statistics import MiningStatistics


class GOALLoss(nn.Module):
    """A GOAL objective as a criterion: `GOALLoss("nca/sigmoid_ms")(images, texts)`.

    Args: as `goal_loss`; they are validated when called.

    Has no parameters and no state: swapping objectives in a run changes nothing else.
    """

    def __init__(
        self,
        objective: Objective | str,
        *,
        normalize: bool = False,
        reduction: str = "sum",
        direction: str = "both",
        precision: str | None = None,
        backend: str = "auto",
        return_stats: bool = False,
    ) -> None:
        super().__init__()
        self.objective = as_objective(objective)
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
        image_ids: Tensor | None = None,
        text_ids: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, MiningStatistics]:
        """See `goal_loss`: [B, D], [B, D], optional ids [B] -> 0-d loss, or (loss, stats)."""
        return goal_loss(
            image_embeddings,
            text_embeddings,
            self.objective,
            image_ids=image_ids,
            text_ids=text_ids,
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
            f"normalize={self.normalize}, backend={self.backend}"
        )
