"""The `triton` backend. Importing this package does not import Triton; the first call does."""

from goal_kernels.backends.triton.backend import TritonBackend
from goal_kernels.backends.triton.plan import strategies, use_programs, use_strategy

__all__ = ["TritonBackend", "strategies", "use_programs", "use_strategy"]
