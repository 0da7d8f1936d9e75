"""A session on a machine with an NVIDIA GPU: `python -m tools.gpu_session --help`."""
