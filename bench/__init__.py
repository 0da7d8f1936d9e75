"""Benchmarks of goal_kernels: `python -m bench --help`; bench/README.md says how they measure."""
