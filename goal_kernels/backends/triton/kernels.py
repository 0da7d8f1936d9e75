"""Every Triton kernel that is launched. Importing this imports Triton: use `runtime.load_kernels`.

Kernel parameters are device pointers, integers and compile-time constants, which have no Python
types; their shapes and dtypes are in the docstrings of the kernels.
"""

from __future__ import annotations

from goal_kernels.backends.triton import rows
from goal_kernels.backends.triton.exact import dots_kernel
from goal_kernels.backends.triton.finish import finish_kernel
from goal_kernels.backends.triton.gather import gather_kernel
from goal_kernels.backends.triton.hubs import hub_kernel
from goal_kernels.backends.triton.prepare import prepare_kernel
from goal_kernels.backends.triton.rank import rank_kernel
from goal_kernels.backends.triton.resum import resum_kernel
from goal_kernels.backends.triton.strip import strip_kernel
from goal_kernels.backends.triton.tile import tile_kernel
from goal_kernels.backends.triton.weigh import weigh_kernel

INTERPRETED = bool(rows.INTERPRETED)
"""Whether the kernels run in the interpreter; fixed when Triton is imported."""

__all__ = [
    "INTERPRETED",
    "dots_kernel",
    "finish_kernel",
    "gather_kernel",
    "hub_kernel",
    "prepare_kernel",
    "rank_kernel",
    "resum_kernel",
    "strip_kernel",
    "tile_kernel",
    "weigh_kernel",
]
