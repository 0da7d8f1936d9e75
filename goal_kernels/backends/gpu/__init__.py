"""The GPU backends `triton` and `cuda`. Triton is imported by their first call."""

from goal_kernels.backends.gpu.backend import CudaBackend, TritonBackend
from goal_kernels.backends.gpu.plan import use_members, use_programs, use_strategy

__all__ = ["CudaBackend", "TritonBackend", "use_members", "use_programs", "use_strategy"]
