"""Retrieval metrics of encoded images and captions, beside chance and the oracle ceiling."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor

import goal_kernels as gk
from goal_kernels.data.split import Split
from goal_kernels.retrieval import EmbeddingScores, MatrixScores, sibling_recalls
from goal_kernels.retrieval.metrics import DIRECTIONS
from goal_kernels.training.rankings import MATCHED, PairScores, make_rankings
from goal_kernels.training.scoring import lengthened

if TYPE_CHECKING:
    from goal_kernels.training.data import TextBatch
    from goal_kernels.training.model import VSE

SIBLINGS = "R@1_among_siblings"  # in logs


@dataclass(frozen=True)
class Evaluation:
    """A ranked evaluation set.

    Attributes:
        image_embeddings: [N, D], distinct images.
        text_embeddings: [M, D].
        image_of_caption: [M] int64, row of each caption's image.
        metrics: `gk.retrieval_metrics`: "i2t", "t2i" (percent and ranks) and "rsum".
        chance: the same record for a random ranking.
        rankings: of a model that scores pairs, the metrics of each of its rankings, those of
            `make_rankings`; `metrics` are the last of these.
        scoring: `PairScores.cost` of "scores" and of "matching"; empty for a dual encoder.
        similarity: [N, M] scores of all pairs where they were computed, else None.
        groups: [N] int64, where several images show one thing, else None.
        siblings: `sibling_recalls` of the rankings, of "dual" alone where there are no others;
            empty where images have no families.
    """

    image_embeddings: Tensor
    text_embeddings: Tensor
    image_of_caption: Tensor
    metrics: dict[str, Any]
    chance: dict[str, Any]
    rankings: dict[str, dict[str, Any]] = field(default_factory=dict)
    scoring: dict[str, dict[str, float]] = field(default_factory=dict)
    similarity: Tensor | None = None
    groups: Tensor | None = None
    siblings: dict[str, dict[str, float]] = field(default_factory=dict)

    def scores_of_caption(self, caption: int) -> Tensor:
        """[N] scores of all images."""
        if self.similarity is not None:
            return self.similarity[:, caption]
        return self.image_embeddings @ self.text_embeddings[caption]

    def scores_of_image(self, image: int) -> Tensor:
        """[M] scores of all captions."""
        if self.similarity is not None:
            return self.similarity[image]
        return self.text_embeddings @ self.image_embeddings[image]


def evaluate(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    image_of_caption: Tensor,
    pairs: Mapping[str, PairScores] | None = None,
    groups: Tensor | None = None,
    families: NDArray[Any] | None = None,
) -> Evaluation:
    """Rank all captions for each image and all images for each caption.

    Args: see `Evaluation`. Captions of images that were not encoded, and images without a caption
        at the end, are left out, so that a truncated evaluation (a dry run) is still a sound one.
        pairs: of all images and captions, as `VSE.pair_scores` gives them.
        groups: of all images; those of one group, and their captions, are right for each other.
        families: of all images, as in `sibling_recalls`.
    """
    encoded = image_of_caption < len(image_embeddings)
    text_embeddings, image_of_caption = text_embeddings[encoded], image_of_caption[encoded]
    image_embeddings = image_embeddings[: int(image_of_caption.max()) + 1]
    facts = image_embeddings, text_embeddings, image_of_caption
    groups = None if groups is None else groups[: len(image_embeddings)]
    chance = gk.chance_metrics(image_of_caption, len(image_embeddings), groups)
    families = None if families is None else families[: len(image_embeddings)]
    images = slice(len(image_embeddings))
    pairs = {name: given.part(images, encoded) for name, given in (pairs or {}).items()}
    found = make_rankings(EmbeddingScores(*facts[:2]), pairs)
    rankings = {
        name: gk.retrieval_metrics(gk.similarity_ranks(scores, image_of_caption, groups=groups))
        for name, scores in found.items()
    }
    scoring = {name: given.cost() for name, given in pairs.items()}
    full = found.get("full")
    return Evaluation(
        *facts,
        list(rankings.values())[-1],
        chance,
        rankings=rankings if pairs else {},
        scoring=scoring,
        similarity=torch.from_numpy(full.matrix) if isinstance(full, MatrixScores) else None,
        groups=groups,
        siblings=sibling_recalls(found, image_of_caption, families),
    )


class EncodedParts:
    """What a model makes of a split, batch by batch, and its evaluation.

    Every process encodes everything, so that nothing is counted twice.
    """

    def __init__(self) -> None:
        self.images: list[tuple[Tensor, ...]] = []
        self.texts: list[tuple[Tensor, ...]] = []
        self.image_ids: list[Tensor] = []
        self.group_ids: list[Tensor] = []  # none where images have no groups

    def add_texts(self, encoded: tuple[Tensor, ...], batch: TextBatch) -> None:
        """The captions of a batch."""
        self.texts.append(encoded)
        self.image_ids.append(batch.image_ids)
        if batch.group_ids is not None:
            self.group_ids.append(batch.group_ids)

    def evaluate(self, model: VSE, families: NDArray[Any] | None = None) -> Evaluation:
        """Rank what was encoded; embeddings on the CPU, scores where the model is.

        Args: families: as in `evaluate`.
        """
        images, texts = joined(self.images), joined(self.texts)
        embeddings = images[0].float().cpu(), texts[0].float().cpu()
        pairs = model.pair_scores(images, texts)
        owner, groups = torch.cat(self.image_ids).cpu(), None
        if self.group_ids:
            groups = owner.new_zeros(int(owner.max()) + 1)
            groups[owner] = torch.cat(self.group_ids).cpu()
        return evaluate(*embeddings, owner, pairs, groups, families)


def joined(parts: list[tuple[Tensor, ...]]) -> list[Tensor]:
    """The tensors of all batches, token by token padded to the longest."""
    joined = []
    for side in zip(*parts, strict=True):
        longest = max(part.shape[1] for part in side)
        joined.append(torch.cat([lengthened(part, longest) for part in side]))
    return joined


def read_oracle(split: Split) -> dict[str, Any] | None:
    """The ceiling of a split whose truth is known; None where it is not.

    That which is recorded beside the data knows no groups: with them it is computed anew.
    """
    if split.groups is not None:
        if split.truth is None:
            return None
        from goal_kernels.data.goalworld.oracle import oracle_recalls

        return {**oracle_recalls(split.truth, split.image_of_caption, split.groups)}
    path = split.folder / "oracle.json"
    if not path.is_file():
        return None
    return json.loads(path.read_text(encoding="utf-8")).get(split.name)


def families_of(data: Any, stage: str) -> NDArray[Any] | None:
    """`Split.families` of what a data module has for "val" or "test"; None for any other module."""
    name = getattr(data, {"val": "dev_split", "test": "test_split"}[stage], None)
    return None if name is None else data.split(name).families


def by_name(stage: str, evaluation: Evaluation) -> dict[str, float]:
    """What is logged of an evaluation, rsum apart: its metrics, and those of every ranking."""
    found = {stage: evaluation.metrics}
    found |= {f"{stage}_{name}": metrics for name, metrics in evaluation.rankings.items()}
    logged = {
        f"{place}/{direction}_{name}": float(value)
        for place, metrics in found.items()
        for direction in DIRECTIONS
        for name, value in metrics[direction].items()
    }
    siblings = {name: r for name, r in evaluation.siblings.items() if name != "chance"}
    return logged | {
        f"{stage}_{name}/{direction}_{SIBLINGS}": value
        for name, recalls in siblings.items()
        for direction, value in recalls.items()
    }


def describe_scoring(scoring: Mapping[str, Mapping[str, float]]) -> str:
    """`Evaluation.scoring` in words, a line for each."""
    line = "{name}: {pairs:,} pairs scored in {seconds:.1f} s; re-ranked: the first {rerank}"
    return "\n".join(line.format(name=name, **cost) for name, cost in scoring.items())


def worse_reranked(rankings: Mapping[str, dict[str, Any]]) -> str | None:
    """What to say where re-ranking has a lower R@1 than the ranking it started from, else None.

    Args: rankings: `gk.retrieval_metrics` by the names of `make_rankings`.
    """
    full = "full" if "full" in rankings else "dual"
    worse = [
        f"{direction} R@1 {rankings[name][direction]['R@1']:.1f} ({name}) after "
        f"{rankings[base][direction]['R@1']:.1f} ({base})"
        for name, base in (("reranked", "dual"), (MATCHED, full))
        for direction in DIRECTIONS
        if name in rankings and rankings[name][direction]["R@1"] < rankings[base][direction]["R@1"]
    ]
    if not worse:
        return None
    advice = ["train longer or on more data"]
    if "reranked" in rankings:
        advice.append("lower --model.scores.embedding_weight")
    if MATCHED in rankings:
        advice.append("raise --model.fusion.random_share or --model.fusion.weight")
    return (
        f"re-ranking is worse than the ranking it began with: {', '.join(worse)}. What re-ranks "
        f"has learnt less: {', or '.join(advice)}; until then choose another --ranking of `eval`"
    )
