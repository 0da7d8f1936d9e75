"""What a model is made of: plain records that the command line and checkpoints can hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from inspect import signature
from typing import Any, TypeVar, cast

DROP_PROBABILITY = 0.2  # of a region or a word being touched, VSE-infinity
WORD_DIM = 300  # width of word vectors throughout the VSE lineage
BACKBONE_LR_SCALE = 0.01  # of a convolutional backbone, VSE-infinity
BERT_LR_SCALE = 0.1  # VSE-infinity
BLOCKS = 4  # stages of a backbone that can be frozen one after another, as in a ResNet
INITIALISATIONS = ("torch", "published")
SCORERS = ("late", "attention")
ANCHORS = ("words", "regions", "both")
BEST_MATCHES = ("lse", "max")
TOKEN_POOLINGS = ("sum", "mean", "learned", "lse")
RANKINGS = ("full", "reranked", "dual")
MATCH_POOLINGS = ("sum", "mean", "first")


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


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """The image encoder; docs/models.md says which papers the choices come from.

    Attributes:
        kind: "region" (precomputed features of regions), "grid" (raw images, cells of a backbone's
            last feature map) or "global" (raw images, one vector of a backbone, VSE++).
        pooling: "gpo", "mean" or "max" over regions or cells.
        drop_probability: in [0, 1); training drops regions with it, "grid" at most so many cells.
        normalize: embeddings have unit length; False leaves them as they are (VSE0).
        mlp: an MLP with BatchNorm beside the linear projection; null: for regions only.
        mlp_width: of its hidden layer; null: half of embed_dim, as in VSE-infinity.
        padding_in_batch_norm: let padding into the MLP's batch statistics, as VSE-infinity does.
        reasoning: layers in which regions or cells take up what they are related to (VSRN).
        initialisation: "torch" or "published" (Xavier for the linear projection).
        backbone: of raw images: "torchvision:NAME", "timm:NAME", "detector:NAME",
            "transformers:FOLDER" or "transformers:FAMILY".
        weights: local file with the backbone's weights; null starts from random ones.
        fixed_blocks: first of the backbone's 4 blocks that never train; 4 freezes all of it.
        lr_scale: learning rate of the backbone, relative to the rest.
    """

    kind: str = "region"
    pooling: str = "gpo"
    drop_probability: float = DROP_PROBABILITY
    normalize: bool = True
    mlp: bool | None = None
    mlp_width: int | None = None
    padding_in_batch_norm: bool = False
    reasoning: int = 0
    initialisation: str = "torch"
    backbone: str | None = None
    weights: str | None = None
    fixed_blocks: int = 0
    lr_scale: float = BACKBONE_LR_SCALE

    def __post_init__(self) -> None:
        """Raises: ValueError naming the option that is out of range."""
        _check_shared("model.image", self.drop_probability, self.initialisation, self.lr_scale)
        check_fixed_blocks("model.image.fixed_blocks", self.fixed_blocks)
        if self.mlp_width is not None and self.mlp_width < 1:
            raise ValueError(f"model.image.mlp_width: expected at least 1, got {self.mlp_width}")
        if self.reasoning < 0 or (self.reasoning and self.kind == "global"):
            raise ValueError(
                "model.image.reasoning: expected a number of layers, 0 where --model.image.kind is "
                f"global, which has one vector an image; got {self.reasoning}"
            )


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """The text encoder; docs/models.md says which papers the choices come from.

    Attributes:
        kind: "bigru", "gru" (one direction, VSE++), "bert", or "conv" (a convolution and a layer of
            self-attention, small).
        pooling: "gpo", "mean", "max", "first" ([CLS]) or "last" (state of the last token, VSE++).
        word_dim: width of the word vectors of a GRU or a convolution.
        drop_probability: word dropout in training, in [0, 1).
        normalize: embeddings have unit length.
        initialisation: "torch" or "published" (word vectors uniform in [-0.1, 0.1]).
        word_vectors: local text file of word vectors (GloVe, fastText) that a GRU starts from.
        bert: folder with config.json and weights, or "random:SIZE" for random weights, SIZE being
            "tiny", "mini", "small", "medium", "base" or "large".
        lr_scale: learning rate of BERT, relative to the rest; 0 freezes it.
    """

    kind: str = "bigru"
    pooling: str = "gpo"
    word_dim: int = WORD_DIM
    drop_probability: float = DROP_PROBABILITY
    normalize: bool = True
    initialisation: str = "torch"
    word_vectors: str | None = None
    bert: str | None = None
    lr_scale: float = BERT_LR_SCALE

    def __post_init__(self) -> None:
        """Raises: ValueError naming the option that is out of range."""
        _check_shared("model.text", self.drop_probability, self.initialisation, self.lr_scale)
        if self.word_dim < 1:
            raise ValueError(f"model.text.word_dim: expected at least 1, got {self.word_dim}")


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Scores of an image and a caption from all of their regions and words; docs/models.md.

    Attributes:
        kind: null, a dual encoder and nothing else; "late", late interaction: the best match of
            each word among the regions; "attention", SCAN's: each word against the mean of the
            regions that it attends to.
        anchors: which are matched with those of the other side: "words", "regions", or "both",
            whose two scores are averaged.
        width: T, of the tokens that words and regions are projected to.
        normalize: tokens have unit length, so that their products are cosines; else products are
            divided by the root of the width, and training from random weights is slow to start.
        match: of late interaction: "lse", a smooth maximum, temperature * logsumexp(x /
            temperature); or "max", MaxSim.
        temperature: of the smooth maximum, or of attention; SCAN's lambda 9 is 1/9.
        pooling: from the matches of anchors to a score: "sum", "mean", "learned" (a mean whose
            weights are learnt) or "lse" (the smooth maximum again, SCAN's LSE).
        pooling_temperature: of "lse"; SCAN's lambda 6 is 1/6.
        objective: of the scores, a name as `model.objective`.
        objective_parameters: its hyper-parameters; scores that are means of cosines are in units of
            similarities, sums are not.
        negatives: of a GOAL objective of the scores, as `model.negatives`.
        embedding_weight: of the loss of the embeddings, which choose what is re-ranked, beside
            that of the scores; more than 0.
        block: scores computed at a time, twice where there are several blocks; null: as many as
            make 2^19 products of tokens, on a GPU 2^26.
        ranking: what validation and test report first, and all that they compute: "full", every
            pair, with the other two beside it; "reranked"; or "dual".
        rerank: the first so many of the dual encoder's ranking, re-ranked in both directions.
    """

    kind: str | None = None
    anchors: str = "words"
    width: int = 64
    normalize: bool = True
    match: str = "lse"
    temperature: float = 0.1
    pooling: str = "learned"
    pooling_temperature: float = 1 / 6
    objective: str = "info_nce"
    objective_parameters: dict[str, float] | None = None
    negatives: str = "hardest"
    embedding_weight: float = 0.5
    block: int | None = None
    ranking: str = "full"
    rerank: int = 16

    def __post_init__(self) -> None:
        """Raises: ValueError naming the option that is out of range."""
        if self.kind is not None:
            choose("model.scores.kind", self.kind, dict.fromkeys(SCORERS))
        for name, offered in (
            ("anchors", ANCHORS),
            ("match", BEST_MATCHES),
            ("pooling", TOKEN_POOLINGS),
            ("ranking", RANKINGS),
        ):
            choose(f"model.scores.{name}", getattr(self, name), dict.fromkeys(offered))
        for name in ("temperature", "pooling_temperature", "embedding_weight"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"model.scores.{name}: expected more than 0, got {getattr(self, name)}"
                )
        for name in ("width", "rerank", "block"):
            given = getattr(self, name)
            if given is not None and given < 1:
                raise ValueError(f"model.scores.{name}: expected at least 1, got {given}")


@dataclass(frozen=True, kw_only=True)
class FusionOptions:
    """Layers in which the words of a caption look at the regions of an image, and a head that says
    whether the two belong together; docs/models.md.

    Attributes:
        layers: of cross attention; 0: no fusion.
        width: of the layers. heads: of their attention.
        dropout: in the layers, in [0, 1).
        aligned: the layers read each word with the regions that its scores (model.scores) match it
            with, and with how well they do; else words alone.
        pooling: of the words' logits to that of a pair: "sum", "mean", or "first", the first
            token's alone, a BERT's [CLS].
        weight: of the matching loss beside the others.
        ranking_weight: in it, of positives against their negatives, beside yes or no for each pair.
        random_share: of the negatives, drawn from all that are none of the anchor's own; the others
            are those that mining found for the loss of the scores, or else of the embeddings.
        pairs: of a batch, drawn anew each step, that are fused with their negatives; null: all. The
            loss is scaled to that of all.
        start_epochs: epochs, which may be fractions, before the matching loss.
        blend_steps: optimiser steps over which its weight then rises to the full one, and the share
            of random negatives falls from all to `random_share`.
        rerank: the first so many of the ranking by scores of all pairs, where there is one, else by
            embeddings, which the head puts into another order; both directions.
    """

    layers: int = 0
    width: int = 64
    heads: int = 4
    dropout: float = 0.0
    aligned: bool = False
    pooling: str = "sum"
    weight: float = 1.0
    ranking_weight: float = 1.0
    random_share: float = 0.3
    pairs: int | None = None
    start_epochs: float = 0.0
    blend_steps: int = 0
    rerank: int = 16

    def __post_init__(self) -> None:
        """Raises: ValueError naming the option that is out of range."""
        choose("model.fusion.pooling", self.pooling, dict.fromkeys(MATCH_POOLINGS))
        divisor = f"a divisor of width {self.width}"
        for name, fits, expected in (
            ("layers", self.layers >= 0, "at least 0"),
            ("width", self.width >= 1, "at least 1"),
            ("heads", self.heads >= 1 and self.width % self.heads == 0, divisor),
            ("rerank", self.rerank >= 1, "at least 1"),
            ("pairs", self.pairs is None or self.pairs >= 1, "at least 1, or null"),
            ("dropout", 0 <= self.dropout < 1, "a number in [0, 1)"),
            ("random_share", 0 <= self.random_share <= 1, "a number in [0, 1]"),
            ("weight", self.weight > 0, "more than 0"),
            ("ranking_weight", self.ranking_weight >= 0, "at least 0"),
            ("start_epochs", self.start_epochs >= 0, "at least 0"),
            ("blend_steps", self.blend_steps >= 0, "at least 0"),
        ):
            if not fits:
                remedy = "; change it or model.fusion.width" if name == "heads" else ""
                raise ValueError(
                    f"model.fusion.{name}: expected {expected}, got {getattr(self, name)}{remedy}"
                )


def _check_shared(part: str, drop_probability: float, initialisation: str, lr_scale: float) -> None:
    """Check what both encoders have."""
    if not 0 <= drop_probability < 1:
        raise ValueError(
            f"{part}.drop_probability: expected a number in [0, 1), got {drop_probability}; "
            "0 switches it off"
        )
    choose(f"{part}.initialisation", initialisation, dict.fromkeys(INITIALISATIONS))
    if not lr_scale >= 0:
        raise ValueError(f"{part}.lr_scale: expected a number >= 0, got {lr_scale}")


def check_fixed_blocks(argument: str, fixed_blocks: int) -> None:
    """Raises: ValueError when there are not so many blocks."""
    if not 0 <= fixed_blocks <= BLOCKS:
        raise ValueError(
            f"{argument}: expected 0 (everything trains) to {BLOCKS} (the backbone is frozen), "
            f"got {fixed_blocks}"
        )


Options = TypeVar("Options", DataSizes, ImageOptions, TextOptions, ScoreOptions, FusionOptions)


def as_options(kind: type[Options], given: Options | Mapping[str, Any] | None) -> Options:
    """The record that `given` is, or describes by name (as checkpoints do); defaults when None.

    Raises: TypeError when a name is unknown or a required one is missing.
    """
    if isinstance(given, kind):
        return given
    named: Mapping[str, Any] = {} if given is None else cast("Mapping[str, Any]", given)
    return kind(**named)


SWITCHES = {"scores": ("kind", "late"), "fusion": ("layers", 2)}
"""By part of the model, the option that switches it on, and a value that does."""


def without_effect(part: str, given: ScoreOptions | FusionOptions) -> str | None:
    """What to say where options of a part that is switched off are not the defaults, else None."""
    switch, value = SWITCHES[part]
    own, defaults = asdict(given), asdict(type(given)())
    idle = [f"model.{part}.{name}" for name in own if own[name] != defaults[name]]
    if own[switch] != defaults[switch] or not idle:
        return None
    return (
        f"{', '.join(idle)}: no effect without model.{part}.{switch}, which is "
        f"{'null' if own[switch] is None else own[switch]}; switch it on, for instance with "
        f"--model.{part}.{switch} {value}, or leave these options out"
    )


def plain(owner: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a constructor as plain types, which a checkpoint holds without any code.

    Args:
        owner: class whose constructor took them.
        given: at least its arguments, by name.
    """
    taken = {name: given[name] for name in signature(owner).parameters}
    return {n: asdict(v) if is_dataclass(v) else v for n, v in taken.items()}  # type: ignore[arg-type]


Choice = TypeVar("Choice")


def choose(argument: str, name: str, registry: Mapping[str, Choice]) -> Choice:
    """What is registered under a name.

    Raises: ValueError naming the argument and listing the names, when there is none.
    """
    if name not in registry:
        raise ValueError(f"{argument}: expected {listed(registry)}, got {name!r}")
    return registry[name]


def listed(names: Iterable[str]) -> str:
    """Names for a message: 'a', 'b' or 'c'."""
    *most, last = (repr(name) for name in names)
    return f"{', '.join(most)} or {last}" if most else last
