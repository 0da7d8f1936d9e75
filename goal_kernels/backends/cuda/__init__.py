"""The `cuda` backend: hand-written kernels for NVIDIA Hopper GPUs."""

from goal_kernels.backends.cuda.backend import CudaBackend

__all__ = ["CudaBackend"]
