"""The `triton` backend. Importing this package does not import Triton; the first call does."""

from goal_kernels.backends.triton.backend import TritonBackend

__all__ = ["TritonBackend"]
