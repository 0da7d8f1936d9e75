"""A GOAL objective whose negatives come from every process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, overload

from torch import Tensor
from torch.distributed import ProcessGroup

from goal_kernels.checks import Index, Mask, check_mask
from goal_kernels.distributed.gather import gather_pairs, gather_rows, world_size
from goal_kernels.distributed.shares import shared_search
from goal_kernels.functional import goal_loss
from goal_kernels.modules import GOALLoss, Result
from goal_kernels.objective import Objective
from goal_kernels.statistics import MiningStatistics
from goal_kernels.whole_batch.shares import sharing


# fmt: off
@overload
def distributed_goal_loss(
    image_embeddings: Tensor, text_embeddings: Tensor, objective: Objective | str, *,
    text_to_image: Index | None = ..., image_ids: Index | None = ...,
    text_ids: Index | None = ..., rows: Sequence[int] | None = ...,
    text_rows: Sequence[int] | None = ..., exempt_texts: Mask | None = ...,
    averaged_gradients: bool = ..., gathered: bool = ..., group: ProcessGroup | None = ...,
    return_stats: Literal[False] = ..., **options: Any,
) -> Tensor: ...
@overload
def distributed_goal_loss(
    image_embeddings: Tensor, text_embeddings: Tensor, objective: Objective | str, *,
    text_to_image: Index | None = ..., image_ids: Index | None = ...,
    text_ids: Index | None = ..., rows: Sequence[int] | None = ...,
    text_rows: Sequence[int] | None = ..., exempt_texts: Mask | None = ...,
    averaged_gradients: bool = ..., gathered: bool = ..., group: ProcessGroup | None = ...,
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
    gathered: bool = False,
    group: ProcessGroup | None = None,
    **options: Any,
) -> Tensor | tuple[Tensor, MiningStatistics]:
    """`goal_loss` of the pairs of all processes together, the same value in each of them.

    After DistributedDataParallel has averaged the gradients, every parameter has the gradient that
    one process with the whole batch would have computed, whatever the reduction: "mean" divides by
    the pairs of all processes. The similarities are shared out: of W processes each multiplies
    B_total^2 / W of them, twice as many for elements with relative sums (`_ms`) and for `negatives`
    or limits of false negatives (docs/scaling.md); negatives="all" as in `distributed_loss`. The
    backward needs no communication.

    Args:
        image_embeddings, text_embeddings: [B, D], this process's pairs; B may differ between
            processes. Other tensors as in `goal_loss`, `text_to_image` among this process's images.
        rows, averaged_gradients, group: as in `gather_rows`; text_rows: as in `gather_pairs`.
        exempt_texts: as in `goal_loss`, in every process or in none.
        gathered: every process already gives the pairs of all, as `gather_pairs` returns them with
            their gradient; rows, text_rows and averaged_gradients are then not looked at.
        options: `negatives`, the limits of false negatives, `normalize`, `reduction`, `direction`,
            `precision`, `backend`, `return_stats` and hyper-parameters of `goal_loss`. Statistics
            are those of all pairs; indices count from the first of rank 0.
    Returns: as `goal_loss`. Raises: as `goal_loss`, and ValueError when `rows` does not fit.
    """
    search = partial(shared_search, group=group) if world_size(group) > 1 else None
    loss: Tensor | tuple[Tensor, MiningStatistics] = distributed_loss(
        partial(goal_loss, objective=objective, _search=search),
        image_embeddings,
        text_embeddings,
        text_to_image=text_to_image,
        image_ids=image_ids,
        text_ids=text_ids,
        rows=rows,
        text_rows=text_rows,
        exempt_texts=exempt_texts,
        averaged_gradients=averaged_gradients,
        gathered=gathered,
        group=group,
        **options,
    )
    return loss


def distributed_loss(
    function: Callable[..., Any],
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    *,
    text_to_image: Index | None = None,
    image_ids: Index | None = None,
    text_ids: Index | None = None,
    rows: Sequence[int] | None = None,
    text_rows: Sequence[int] | None = None,
    exempt_texts: Mask | None = None,
    averaged_gradients: bool = True,
    gathered: bool = False,
    group: ProcessGroup | None = None,
    **options: Any,
) -> Any:
    """A loss over all negatives of the pairs of all processes together, the same in each of them.

        distributed_loss(gk.info_nce_loss, images, texts, scale=scale, reduction="mean")

    Gradients are as in `distributed_goal_loss`. Of W processes each passes over an equal share of
    the similarities; gradient rows of all pairs are summed over processes once, in the forward.

    Args:
        function: `info_nce_loss` or another loss over all negatives.
        options: those of the function; a scale or bias that is a parameter gets the whole gradient
            in every process, which DistributedDataParallel's average leaves as it is.
        Others: as in `distributed_goal_loss`.
    Returns: as the function. Raises: as the function, and ValueError when `rows` does not fit.
    """
    pairs = image_embeddings, text_embeddings, image_ids, text_ids, text_to_image
    if not gathered:
        of_texts = rows if text_to_image is None else text_rows
        exempt_texts = _gather_mask(exempt_texts, text_embeddings, of_texts, group)
        pairs = gather_pairs(
            *pairs[:4],
            text_to_image=text_to_image,
            rows=rows,
            text_rows=text_rows,
            averaged_gradients=averaged_gradients,
            group=group,
        )
    images, texts, image_ids, text_ids, text_to_image = pairs
    with sharing(group):
        return function(
            images,
            texts,
            image_ids=image_ids,
            text_ids=text_ids,
            text_to_image=text_to_image,
            exempt_texts=exempt_texts,
            **options,
        )


class DistributedGOALLoss(GOALLoss[Result]):
    """`GOALLoss` whose negatives come from every process, see `distributed_goal_loss`.

    Args:
        objective, options: as in `GOALLoss`.
        averaged_gradients, group: as in `gather_rows`. gathered: as in `distributed_goal_loss`.
    """

    # fmt: off
    @overload
    def __init__(
        self: DistributedGOALLoss[Tensor], objective: Objective | str, *,
        averaged_gradients: bool = ..., gathered: bool = ..., group: ProcessGroup | None = ...,
        return_stats: Literal[False] = ..., **options: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: DistributedGOALLoss[Any], objective: Objective | str, *,
        averaged_gradients: bool = ..., gathered: bool = ..., group: ProcessGroup | None = ...,
        return_stats: bool, **options: Any,
    ) -> None: ...
    # fmt: on
    def __init__(
        self,
        objective: Objective | str,
        *,
        averaged_gradients: bool = True,
        gathered: bool = False,
        group: ProcessGroup | None = None,
        **options: Any,
    ) -> None:
        super().__init__(objective, **options)  # type: ignore[misc]
        self.averaged_gradients = averaged_gradients
        self.gathered = gathered
        self.group = group

    def _loss(self, *pairs: Any, **options: Any) -> Any:
        return distributed_goal_loss(
            *pairs,
            averaged_gradients=self.averaged_gradients,
            gathered=self.gathered,
            group=self.group,
            **options,
        )


def _gather_mask(
    exempt_texts: Mask | None,
    text_embeddings: Tensor,
    text_rows: Sequence[int] | None,
    group: ProcessGroup | None,
) -> Tensor | None:
    """`exempt_texts` of all processes, given in every process or in none."""
    if exempt_texts is None:
        return None
    own = check_mask("exempt_texts", exempt_texts, len(text_embeddings), text_embeddings.device)
    assert own is not None
    return gather_rows(own.long(), rows=text_rows, group=group).bool()
