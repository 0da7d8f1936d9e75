"""Mining alone: positives and both hardest negatives, no weights and no gradients."""

from __future__ import annotations

from bench.bench_objective import bench_objective as bench_mining

__all__ = ["bench_mining"]
