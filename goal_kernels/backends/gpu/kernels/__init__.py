"""The Triton kernels, each beside its launch. Importing one imports Triton: see `runtime`."""
