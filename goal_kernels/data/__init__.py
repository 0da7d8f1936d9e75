"""Data for image-text retrieval: the precomputed-feature layout, vocabularies, a built-in set.

Needs numpy alone; Pillow when images are rendered.
"""

from goal_kernels.data.precomputed import PrecomputedSplit, load_split, write_split
from goal_kernels.data.truth_relation import TruthRelation
from goal_kernels.data.vocabulary import Vocabulary, tokenize

__all__ = [
    "PrecomputedSplit",
    "TruthRelation",
    "Vocabulary",
    "load_split",
    "tokenize",
    "write_split",
]
