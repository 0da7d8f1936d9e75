"""A GOAL objective whose negatives come from every process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

from torch import Tensor
from torch.distributed import ProcessGroup

from goal_kernels.checks import Index, Mask, check_mask
from goal_kernels.distributed.gather import gather_pairs, gather_rows
from goal_kernels.functional import goal_loss
from goal_kernels.modules import GOALLoss, Result
from goal_kernels.objective import Objective
from goal_kernels.statistics import MiningStatistics


# fmt: off
@overload
def distributed_goal_loss(
    image_embeddings: Tensor, text_embeddings: Tensor, objective: Objective | str, *,
    text_to_image: Index | None = ..., image_ids: Index | None = ...,
    text_ids: Index | None = ..., rows: Sequence[int] | None = ...,
    text_rows: Sequence[int] | None = ..., exempt_texts: Mask | None = ...,
    averaged_gradients: bool = ..., group: ProcessGroup | None = ...,
    return_stats: Literal[False] = ..., **options: Any,
) -> Tensor: ...
@overload
def distributed_goal_loss(
    image_embeddings: Tensor, text_embeddings: Tensor, objective: Objective | str, *,
    text_to_image: Index | None = ..., image_ids: Index | None = ...,
    text_ids: Index | None = ..., rows: Sequence[int] | None = ...,
    text_rows: Sequence[int] | None = ..., exempt_texts: Mask | None = ...,
    averaged_gradients: bool = ..., group: ProcessGroup | None = ...,
    return_stats: bool, **options: Any,
) -> Any: ...
# fmt: on
def distributed_goal_loss(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    objective: Objective | str,
    *,
    text_to_image: Index | None = None,
    image_ids: Index | None = None,
    text_ids: Index | None = None,
    rows: Sequence[int] | None = None,
    text_rows: Sequence[int] | None = None,
    exempt_texts: Mask | None = None,
    averaged_gradients: bool = True,
    group: ProcessGroup | None = None,
    **options: Any,
) -> Tensor | tuple[Tensor, MiningStatistics]:
    """`goal_loss` of the pairs of all processes together, the same value in each of them.

    After DistributedDataParallel has averaged the gradients, every parameter has the gradient that
    one process with the whole batch would have computed, whatever the reduction: "mean" divides by
    the pairs of all processes. Every process mines all of the B_total^2 similarities itself.

    Args:
        image_embeddings, text_embeddings: [B, D], this process's pairs; B may differ between
            processes. Other tensors as in `goal_loss`, `text_to_image` among this process's images.
        rows, averaged_gradients, group: as in `gather_rows`; text_rows: as in `gather_pairs`.
        exempt_texts: as in `goal_loss`, in every process or in none.
        options: `negatives`, the limits of false negatives, `normalize`, `reduction`, `direction`,
            `precision`, `backend`, `return_stats` and hyper-parameters of `goal_loss`. Statistics
            are those of all pairs; indices count from the first of rank 0.
    Returns: as `goal_loss`. Raises: as `goal_loss`, and ValueError when `rows` does not fit.
    """
    pairs = gather_pairs(
        image_embeddings,
        text_embeddings,
        image_ids,
        text_ids,
        text_to_image=text_to_image,
        rows=rows,
        text_rows=text_rows,
        averaged_gradients=averaged_gradients,
        group=group,
    )
    return goal_loss(
        pairs.image_embeddings,
        pairs.text_embeddings,
        objective,
        text_to_image=pairs.text_to_image,
        image_ids=pairs.image_ids,
        text_ids=pairs.text_ids,
        exempt_texts=_gather_mask(
            exempt_texts, text_embeddings, rows if text_to_image is None else text_rows, group
        ),
        **options,
    )


class DistributedGOALLoss(GOALLoss[Result]):
    """`GOALLoss` whose negatives come from every process, see `distributed_goal_loss`.

    Args:
        objective, options: as in `GOALLoss`.
        averaged_gradients, group: as in `gather_rows`.
    """

    # fmt: off
    @overload
    def __init__(
        self: DistributedGOALLoss[Tensor], objective: Objective | str, *,
        averaged_gradients: bool = ..., group: ProcessGroup | None = ...,
        return_stats: Literal[False] = ..., **options: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: DistributedGOALLoss[Any], objective: Objective | str, *,
        averaged_gradients: bool = ..., group: ProcessGroup | None = ..., return_stats: bool,
        **options: Any,
    ) -> None: ...
    # fmt: on
    def __init__(
        self,
        objective: Objective | str,
        *,
        averaged_gradients: bool = True,
        group: ProcessGroup | None = None,
        **options: Any,
    ) -> None:
        super().__init__(objective, **options)  # type: ignore[misc]
        self.averaged_gradients = averaged_gradients
        self.group = group

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
        """[B, D], [B, D], optional ids [B] of this process -> 0-d loss, or (loss, stats).

        With `text_to_image` [M]: [N, D], [M, D], optional ids [N], [M].
        """
        pairs = gather_pairs(
            image_embeddings,
            text_embeddings,
            image_ids,
            text_ids,
            text_to_image=text_to_image,
            averaged_gradients=self.averaged_gradients,
            group=self.group,
        )
        return super().forward(
            *pairs[:4],
            text_to_image=pairs.text_to_image,
            exempt_texts=_gather_mask(exempt_texts, text_embeddings, None, self.group),
        )


def _gather_mask(
    exempt_texts: Mask | None,
    text_embeddings: Tensor,
    text_rows: Sequence[int] | None,
    group: ProcessGroup | None,
) -> Tensor | None:
    """`exempt_texts` of all processes, given in every process or in none."""
    own = check_mask("exempt_texts", exempt_texts, len(text_embeddings), text_embeddings.device)
    return None if own is None else gather_rows(own.long(), rows=text_rows, group=group).bool()
