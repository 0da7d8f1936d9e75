"""Who else computes: rank and size of a process group, also where there is none."""

from __future__ import annotations

from torch import distributed
from torch.distributed import ProcessGroup


def initialized() -> bool:
    """Whether this process belongs to a process group."""
    return distributed.is_available() and distributed.is_initialized()


def world_size(group: ProcessGroup | None = None) -> int:
    """Number of processes in the group (the default one when None); 1 without a group."""
    return distributed.get_world_size(group) if initialized() else 1


def rank(group: ProcessGroup | None = None) -> int:
    """Number of this process in the group, from 0; 0 without a group."""
    return distributed.get_rank(group) if initialized() else 0
