"""Ahead-of-time compilation of the Triton kernels, without a GPU: `python -m tools.aot`."""
