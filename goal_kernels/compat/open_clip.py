"""A GOAL objective in the place of open_clip's `ClipLoss`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from goal_kernels.checks import Index
from goal_kernels.distributed import DistributedGOALLoss
from goal_kernels.distributed.gather import world_size as group_size
from goal_kernels.modules import GOALLoss
from goal_kernels.objective import Objective


class GOALClipLoss(nn.Module):
    """GOAL by the arguments of open_clip's `ClipLoss`, for its training loop.

    The objectives have a sharpness of their own: logit_scale and logit_bias do not enter the loss.
    They get a gradient of zero, so that DistributedDataParallel finds every parameter used.

    Args:
        local_loss, gather_with_grad, cache_labels: taken and left alone. The gradient is always
            that of one process with the whole batch, averaged by DistributedDataParallel, as
            gather_with_grad=True makes it.
        rank: taken and left alone; torch.distributed knows it.
        world_size: above 1 negatives come from every process of the default group.
        use_horovod: only False.
        objective: as in `goal_loss`.
        reduction: "mean" (over the pairs of all processes) as `ClipLoss` has it, or "sum".
        options: of `gk.GOALLoss` but return_stats: `negatives`, `direction`, hyper-parameters ...

    Raises: ValueError for Horovod; as `gk.GOALLoss`.
    """

    def __init__(
        self,
        local_loss: bool = False,
        gather_with_grad: bool = False,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        use_horovod: bool = False,
        *,
        objective: Objective | str = "nca/sigmoid_ms",
        reduction: str = "mean",
        **options: Any,
    ) -> None:
        super().__init__()
        if use_horovod:
            raise ValueError(
                "use_horovod: expected False; start the processes with torchrun instead, "
                "negatives are gathered by torch.distributed."
            )
        self.world_size = world_size
        kind = DistributedGOALLoss if world_size > 1 else GOALLoss
        self.criterion: nn.Module = kind(objective, reduction=reduction, **options)

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
        output_dict: bool = False,
        *,
        image_ids: Index | None = None,
        text_ids: Index | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """[B, D], [B, D] -> 0-d loss, or {"contrastive_loss": loss}.

        Args:
            logit_scale, logit_bias: what open_clip's models return; see above.
            image_ids, text_ids: as in `goal_loss`.
        Raises: RuntimeError when there are not `world_size` processes; as `goal_loss`.
        """
        if self.world_size > 1 and group_size() != self.world_size:
            raise RuntimeError(
                f"world_size: expected {self.world_size} processes in the default group, got "
                f"{group_size()}; call torch.distributed.init_process_group first."
            )
        loss = self.criterion(image_features, text_features, image_ids, text_ids)
        for unused in (logit_scale, logit_bias):
            if isinstance(unused, Tensor):
                loss = loss + 0.0 * unused.sum()
        return {"contrastive_loss": loss} if output_dict else loss
