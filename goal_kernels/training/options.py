"""What a model is made of: plain records that the command line and checkpoints can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

DROP_PROBABILITY = 0.2  # of a region or a word being touched, VSE-infinity
WORD_DIM = 300  # width of word vectors throughout the VSE lineage


@dataclass(frozen=True)
class DataSizes:
    """What a model must know of its data.

    Attributes:
        region_dim: width of one region feature; 0 when images are raw.
        vocabulary_size: number of token ids, special ones included.
        mask_id: token that stands for a word that augmentation masks.
        first_word_id: lowest id of an ordinary word; random words are drawn from there on.
    """

    region_dim: int
    vocabulary_size: int
    mask_id: int = 3
    first_word_id: int = 4


@dataclass(frozen=True)
class ImageOptions:
    """The image encoder.

    Attributes:
        kind: "region", for precomputed region features.
        drop_probability: region dropout in training, in [0, 1).
    """

    kind: str = "region"
    drop_probability: float = DROP_PROBABILITY


@dataclass(frozen=True)
class TextOptions:
    """The text encoder.

    Attributes:
        kind: "bigru".
        word_dim: width of the word vectors.
        drop_probability: word dropout in training, in [0, 1).
    """

    kind: str = "bigru"
    word_dim: int = WORD_DIM
    drop_probability: float = DROP_PROBABILITY


Options = TypeVar("Options", DataSizes, ImageOptions, TextOptions)


def as_options(kind: type[Options], given: Options | Mapping[str, Any] | None) -> Options:
    """The record that `given` is, or describes by name (as checkpoints do); defaults when None.

    Raises: TypeError when a name is unknown or a required one is missing.
    """
    if isinstance(given, kind):
        return given
    named: Mapping[str, Any] = {} if given is None else cast("Mapping[str, Any]", given)
    return kind(**named)
