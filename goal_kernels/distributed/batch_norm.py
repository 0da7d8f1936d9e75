"""BatchNorm1d over the rows of all processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import ProcessGroup

from goal_kernels.distributed.gather import gather_equal, world_size


class _Statistics:
    """Mean, variance and number of the rows of all processes.

    mean, variance: [C] in the statistics' dtype; the variance is the biased one. count: 0-d.
    """

    def __init__(self, rows: Tensor, group: ProcessGroup | None) -> None:
        """rows: [R, C] of this process, R >= 0; the same C in every process."""
        # Sums of squared deviations from each process's own mean, combined as Chan et al. do:
        # sums of plain squares would cancel for features far from zero.
        mean = rows.sum(dim=0) / max(len(rows), 1)  # [C]
        deviation = (rows - mean).square().sum(dim=0)  # [C]
        own = torch.cat([mean.new_tensor([len(rows)]), mean, deviation])[None]  # [1, 1 + 2 C]
        counts, means, deviations = gather_equal(own, group).split([1, *2 * [len(mean)]], dim=1)
        self.count = counts.sum()
        self.mean = (counts * means).sum(dim=0) / self.count
        between = (counts * (means - self.mean).square()).sum(dim=0)
        self.variance = (deviations.sum(dim=0) + between) / self.count


class _Normalize(torch.autograd.Function):
    """(rows - mean) * scale with statistics of all processes, which depend on the rows."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        mean: Tensor,
        inverse_deviation: Tensor,
        count: Tensor,
        group: ProcessGroup | None,
    ) -> Tensor:
        """rows: [R, C]; mean, inverse_deviation: [C]; count: 0-d. Returns: [R, C]."""
        normalized = (rows - mean) * inverse_deviation
        ctx.save_for_backward(normalized, inverse_deviation, count)
        ctx.group = group
        return normalized

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        """gradient: [R, C]. Returns: [R, C]."""
        normalized, inverse_deviation, count = ctx.saved_tensors
        # What the rows of every process say about the mean and the variance that all share: [2, C].
        shared = torch.stack([gradient.sum(dim=0), (gradient * normalized).sum(dim=0)])
        distributed.all_reduce(shared, group=ctx.group)
        about_mean, about_deviation = shared / count
        own = (gradient - about_mean - normalized * about_deviation) * inverse_deviation
        return own, None, None, None, None


class SynchronizedBatchNorm1d(nn.BatchNorm1d):
    """`nn.BatchNorm1d` whose batch statistics are those of the rows of all processes.

    Output, gradient of the input and running statistics are those of one process with all rows.
    Gradients of weight and bias are of the own rows, as DistributedDataParallel expects. Each
    process may hold another number of rows, none included. Statistics are at least float32. Works
    with gloo on CPUs and nccl on GPUs; torch's SyncBatchNorm refuses CPUs. In a single process, and
    in evaluation, it is `nn.BatchNorm1d` itself.

    Args: as `nn.BatchNorm1d`; the state dict is the same.
    Attributes: process_group, the default group when None.
    """

    process_group: ProcessGroup | None = None

    def forward(self, features: Tensor) -> Tensor:
        """Normalise [R, C] or [B, C, L] over everything but C; same shape and dtype."""
        if not self.training or world_size(self.process_group) == 1:
            return super().forward(features)
        self._check_input_dim(features)
        channels_last = features.movedim(1, -1)  # [..., C]
        rows = channels_last.reshape(-1, self.num_features)  # [R, C]
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        with torch.no_grad():
            statistics = _Statistics(rows, self.process_group)
            self._update_running(statistics)
            inverse_deviation = (statistics.variance + self.eps).rsqrt()
        normalized = _Normalize.apply(
            rows, statistics.mean, inverse_deviation, statistics.count, self.process_group
        )
        if self.affine:
            normalized = normalized * self.weight + self.bias
        return normalized.to(features.dtype).reshape(channels_last.shape).movedim(-1, 1)

    def _update_running(self, statistics: _Statistics) -> None:
        """Move the running statistics as torch does, with the unbiased variance."""
        running_mean, running_var = self.running_mean, self.running_var
        batches = self.num_batches_tracked
        if not self.track_running_stats:
            return
        # What tracking implies; said for the type checker.
        assert running_mean is not None
        assert running_var is not None
        assert batches is not None
        batches += 1
        # momentum None: the plain mean over all batches so far.
        momentum = 1 / batches if self.momentum is None else self.momentum
        # A single row has no unbiased variance; finding that out would wait for the device.
        unbiased = statistics.variance * (statistics.count / (statistics.count - 1).clamp(min=1))
        for running, seen in ((running_mean, statistics.mean), (running_var, unbiased)):
            running += momentum * (seen.to(running.dtype) - running)


def synchronize_batch_norm(module: nn.Module, group: ProcessGroup | None = None) -> nn.Module:
    """Make every `nn.BatchNorm1d` inside `module` a `SynchronizedBatchNorm1d`, in place.

    Parameters, buffers and hooks stay what they are, so an optimiser made before still fits.
    BatchNorm2d (frozen in the field's image backbones) is left alone.

    Returns: `module`.
    """
    for part in module.modules():
        if type(part) is nn.BatchNorm1d:
            part.__class__ = SynchronizedBatchNorm1d
        if isinstance(part, SynchronizedBatchNorm1d):
            part.process_group = group
    return module
