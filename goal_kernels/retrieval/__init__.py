"""Retrieval evaluation: exact ranks without the score matrix, and the field's metrics."""

from __future__ import annotations

from goal_kernels.retrieval.folds import FoldMetrics, fold_chance, fold_metrics, sibling_recalls
from goal_kernels.retrieval.metrics import (
    RankHistogram,
    chance_metrics,
    rank_histogram,
    recall_at_k,
    retrieval_metrics,
)
from goal_kernels.retrieval.ranks import RetrievalRanks, retrieval_ranks, similarity_ranks
from goal_kernels.retrieval.relevance import relevance_metrics
from goal_kernels.retrieval.scores import EmbeddingScores, MatrixScores, MeanScores, Scores

__all__ = [
    "EmbeddingScores",
    "FoldMetrics",
    "MatrixScores",
    "MeanScores",
    "RankHistogram",
    "RetrievalRanks",
    "Scores",
    "chance_metrics",
    "fold_chance",
    "fold_metrics",
    "rank_histogram",
    "recall_at_k",
    "relevance_metrics",
    "retrieval_metrics",
    "retrieval_ranks",
    "sibling_recalls",
    "similarity_ranks",
]
