"""goal_kernels: fused kernels for gradient-space image-text retrieval objectives.

Importing costs torch and nothing else: native code, Triton and the training driver are loaded when
first used.
"""

from __future__ import annotations

from goal_kernels.backends import BackendUnavailableError
from goal_kernels.backends.explain import available_backends, explain_backend
from goal_kernels.functional import MinedPairs, goal_loss, goal_loss_from_similarity, mine
from goal_kernels.graphs import GraphedLoss, graphed_loss
from goal_kernels.modules import GOALLoss
from goal_kernels.objective import Objective, builtin_objectives
from goal_kernels.registry import (
    Element,
    Parameter,
    list_elements,
    register_pair,
    register_triplet,
)
from goal_kernels.retrieval import (
    RetrievalRanks,
    chance_metrics,
    fold_metrics,
    rank_histogram,
    recall_at_k,
    relevance_metrics,
    retrieval_metrics,
    retrieval_ranks,
    similarity_ranks,
)
from goal_kernels.statistics import MiningStatistics

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailableError",
    "Element",
    "GOALLoss",
    "GraphedLoss",
    "MinedPairs",
    "MiningStatistics",
    "Objective",
    "Parameter",
    "RetrievalRanks",
    "available_backends",
    "builtin_objectives",
    "chance_metrics",
    "explain_backend",
    "fold_metrics",
    "goal_loss",
    "goal_loss_from_similarity",
    "graphed_loss",
    "list_elements",
    "mine",
    "rank_histogram",
    "recall_at_k",
    "register_pair",
    "register_triplet",
    "relevance_metrics",
    "retrieval_metrics",
    "retrieval_ranks",
    "similarity_ranks",
]
