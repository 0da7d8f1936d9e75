"""goal_kernels: fused kernels for gradient-space image-text retrieval objectives.

Importing costs next to nothing: torch is loaded with the first name that is used, native code,
Triton and the training driver when something needs them. `import goal_kernels.ops` registers the
operators, for programs that load an exported graph and use nothing else.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from goal_kernels import elements  # noqa: F401, the registry is never without them

if TYPE_CHECKING:  # for type checkers and editors; __getattr__ does it at run time
    from goal_kernels.backends.choice import BackendUnavailableError
    from goal_kernels.backends.explain import available_backends, explain_backend
    from goal_kernels.functional import goal_loss
    from goal_kernels.graphs import GraphedLoss, graphed_loss
    from goal_kernels.memory import NegativeMemory
    from goal_kernels.mining import MinedPairs, mine
    from goal_kernels.modules import GOALLoss
    from goal_kernels.negatives import Sampled, SkipHardest, TopK
    from goal_kernels.objective import Objective, builtin_objectives
    from goal_kernels.registry import (
        Element,
        Parameter,
        list_elements,
        register_direction,
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
    from goal_kernels.similarity_loss import goal_loss_from_similarity
    from goal_kernels.statistics import MiningStatistics
    from goal_kernels.top_k import MinedTopK, mine_top_k
    from goal_kernels.whole_batch.call import WholeBatchStatistics
    from goal_kernels.whole_batch.functional import (
        circle_loss,
        info_nce_loss,
        multi_similarity_loss,
        siglip_loss,
        soft_margin_loss,
        sum_of_hinges_loss,
    )
    from goal_kernels.whole_batch.modules import (
        CircleLoss,
        InfoNCELoss,
        MultiSimilarityLoss,
        SigLIPLoss,
        SoftMarginLoss,
        SumOfHingesLoss,
    )

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailableError",
    "CircleLoss",
    "Element",
    "GOALLoss",
    "GraphedLoss",
    "InfoNCELoss",
    "MinedPairs",
    "MinedTopK",
    "MiningStatistics",
    "MultiSimilarityLoss",
    "NegativeMemory",
    "Objective",
    "Parameter",
    "RetrievalRanks",
    "Sampled",
    "SigLIPLoss",
    "SkipHardest",
    "SoftMarginLoss",
    "SumOfHingesLoss",
    "TopK",
    "WholeBatchStatistics",
    "available_backends",
    "builtin_objectives",
    "chance_metrics",
    "circle_loss",
    "explain_backend",
    "fold_metrics",
    "goal_loss",
    "goal_loss_from_similarity",
    "graphed_loss",
    "info_nce_loss",
    "list_elements",
    "mine",
    "mine_top_k",
    "multi_similarity_loss",
    "rank_histogram",
    "recall_at_k",
    "register_direction",
    "register_pair",
    "register_triplet",
    "relevance_metrics",
    "retrieval_metrics",
    "retrieval_ranks",
    "siglip_loss",
    "similarity_ranks",
    "soft_margin_loss",
    "sum_of_hinges_loss",
]

_HOMES = (
    "backends.choice",
    "backends.explain",
    "functional",
    "graphs",
    "memory",
    "mining",
    "modules",
    "negatives",
    "objective",
    "registry",
    "retrieval",
    "similarity_loss",
    "statistics",
    "top_k",
    "whole_batch.call",
    "whole_batch.functional",
    "whole_batch.modules",
)
"""Modules that hold the names of `__all__`."""


def __getattr__(name: str) -> Any:
    """A name of `__all__` or a module of the package, which is imported now."""
    if name in __all__:
        for home in _HOMES:
            found = vars(import_module(f"goal_kernels.{home}"))
            globals().update({each: found[each] for each in __all__ if each in found})
        return globals()[name]
    if not name.startswith("_") and find_spec(f"goal_kernels.{name}") is not None:
        return import_module(f"goal_kernels.{name}")
    raise AttributeError(f"module 'goal_kernels' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
