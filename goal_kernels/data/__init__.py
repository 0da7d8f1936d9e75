"""Data for image-text retrieval: datasets in the field's layouts, vocabularies, a built-in set.

Needs numpy alone; Pillow when images are read or rendered.
"""

from goal_kernels.data.precomputed import load_split, write_split
from goal_kernels.data.sources import SourceOptions, open_source
from goal_kernels.data.split import PictureSplit, PrecomputedSplit, Split
from goal_kernels.data.truth_relation import TruthRelation
from goal_kernels.data.vocabulary import Vocabulary, tokenize

__all__ = [
    "PictureSplit",
    "PrecomputedSplit",
    "SourceOptions",
    "Split",
    "TruthRelation",
    "Vocabulary",
    "load_split",
    "open_source",
    "tokenize",
    "write_split",
]
