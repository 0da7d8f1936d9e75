"""Several processes that train as one: gathered negatives, synchronised batch statistics.

Plain torch.distributed, on any backend (gloo on CPUs, nccl on GPUs); no Lightning. Where no process
group is initialised, or it has one member, everything here does what a single process would do.
"""

from goal_kernels.distributed.batch_norm import SynchronizedBatchNorm1d, synchronize_batch_norm
from goal_kernels.distributed.gather import GatheredPairs, gather_pairs, gather_rows, rows_per_rank
from goal_kernels.distributed.loss import (
    DistributedGOALLoss,
    distributed_goal_loss,
    distributed_loss,
)
from goal_kernels.whole_batch.shares import sharing

__all__ = [
    "DistributedGOALLoss",
    "GatheredPairs",
    "SynchronizedBatchNorm1d",
    "distributed_goal_loss",
    "distributed_loss",
    "gather_pairs",
    "gather_rows",
    "rows_per_rank",
    "sharing",
    "synchronize_batch_norm",
]
