"""Retrieval evaluation: exact ranks without the score matrix, and the field's metrics."""

from __future__ import annotations

from goal_kernels.retrieval.metrics import chance_metrics, recall_at_k, retrieval_metrics
from goal_kernels.retrieval.ranks import RetrievalRanks, retrieval_ranks

__all__ = [
    "RetrievalRanks",
    "chance_metrics",
    "recall_at_k",
    "retrieval_metrics",
    "retrieval_ranks",
]
