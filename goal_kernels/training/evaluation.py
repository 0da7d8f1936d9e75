"""Retrieval metrics of encoded images and captions, beside chance and the oracle ceiling."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

import goal_kernels as gk

RECALLS = ("R@1", "R@5", "R@10")  # the ones that rsum adds up


@dataclass(frozen=True)
class Evaluation:
    """A ranked evaluation set.

    Attributes:
        image_embeddings: [N, D], distinct images.
        text_embeddings: [M, D].
        image_of_caption: [M] int64, row of each caption's image.
        metrics: `gk.retrieval_metrics`: "i2t", "t2i" (percent and ranks) and "rsum".
        chance: the same record for a random ranking.
    """

    image_embeddings: Tensor
    text_embeddings: Tensor
    image_of_caption: Tensor
    metrics: dict[str, Any]
    chance: dict[str, Any]

    def logged(self, stage: str) -> dict[str, float]:
        """The metrics of both directions by the names they are logged under."""
        return {
            f"{stage}/{direction}_{name}": float(value)
            for direction in ("i2t", "t2i")
            for name, value in self.metrics[direction].items()
        }


def evaluate(
    image_embeddings: Tensor, text_embeddings: Tensor, image_of_caption: Tensor
) -> Evaluation:
    """Rank all captions for each image and all images for each caption.

    Args: see `Evaluation`. Captions of images that were not encoded, and images without a caption
        at the end, are left out, so that a truncated evaluation (a dry run) is still a sound one.
    """
    encoded = image_of_caption < len(image_embeddings)
    text_embeddings, image_of_caption = text_embeddings[encoded], image_of_caption[encoded]
    image_embeddings = image_embeddings[: int(image_of_caption.max()) + 1]
    ranks = gk.retrieval_ranks(image_embeddings, text_embeddings, image_of_caption)
    return Evaluation(
        image_embeddings,
        text_embeddings,
        image_of_caption,
        metrics=gk.retrieval_metrics(ranks),
        chance=gk.chance_metrics(image_of_caption, len(image_embeddings)),
    )


def read_oracle(folder: Path, split: str) -> dict[str, Any] | None:
    """The ceiling recorded beside a dataset whose truth is known; None where it is not."""
    path = folder / "oracle.json"
    if not path.is_file():
        return None
    return json.loads(path.read_text(encoding="utf-8")).get(split)
