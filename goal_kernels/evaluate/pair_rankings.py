"""Rankings of a model that scores pairs: all of them, re-ranked, and its dual encoder's."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from goal_kernels.constants import ARGSORT
from goal_kernels.data.files import replacing
from goal_kernels.data.part_folder import PartFolder
from goal_kernels.data.progress import no_progress, progress_line
from goal_kernels.evaluate.arguments import ranking_options
from goal_kernels.evaluate.checkpoints import Encoded, find_checkpoint
from goal_kernels.retrieval import EmbeddingScores, MatrixScores, Scores
from goal_kernels.training.rankings import (
    IMAGE_BLOCK,
    MATCHED,
    RANKS_ONLY,
    PairScores,
    asked_of_scores,
    make_rankings,
)


@dataclass(frozen=True)
class PairRankings:
    """What was asked of one model.

    Attributes:
        scores: by name, as `make_rankings` gives them; the last is the one that was asked for.
        pairs: what ranks the pairs, and what that has cost so far.
        rerank: how many are re-ranked; None: as the model says.
    """

    scores: dict[str, Scores]
    pairs: Mapping[str, PairScores]
    rerank: int | None

    @property
    def asked(self) -> str:
        """Name of the ranking that was asked for."""
        return list(self.scores)[-1]

    @property
    def costs(self) -> dict[str, dict[str, float]]:
        """`PairScores.cost` by name, of what these rankings were made with."""
        used = {"scores": "reranked" in self.scores, "matching": MATCHED in self.scores}
        return {name: pairs.cost(self.rerank) for name, pairs in self.pairs.items() if used[name]}


def rank_pairs(name: str, found: Encoded, args: argparse.Namespace) -> PairRankings | None:
    """The rankings of an encoded split; None for a model that has embeddings alone.

    Full scores are computed here, with progress; they are written where `args.save_scores` says,
    and beside it while they are computed, so that the same call goes on where it was stopped.

    Raises: ValueError when an option asks for scores that the model does not have, or parts are
        those of another evaluation.
    """
    given = ranking_options(args)
    if not found.pairs:
        if given:
            raise ValueError(
                f"{given[0]}: expected a model that scores pairs "
                f"(model.scores.kind), and {name} has embeddings alone; leave it out"
            )
        return None
    _check_ranking(name, found.pairs, args)
    dual = EmbeddingScores(found.image_embeddings, found.text_embeddings)
    rerank = None if args.rerank is None else min(args.rerank, max(dual.shape))
    parts = None
    if args.save_scores is not None:
        parts = PartFolder(args.save_scores.with_name(f"{args.save_scores.name}.parts"))
        parts.begin(_manifest(name, found, args))
        found.pairs["scores"].parts = parts
    with progress_line() as progress:
        for pairs in found.pairs.values():
            pairs.progress = progress
        scores = make_rankings(dual, found.pairs, args.ranking, rerank)
        for pairs in found.pairs.values():
            pairs.progress = no_progress
    if args.ties == ARGSORT and "full" in scores:  # of ranks alone nothing can be sorted
        scores = {name: own for name, own in scores.items() if name not in RANKS_ONLY}
    full = scores.get("full")
    if parts is not None and isinstance(full, MatrixScores):
        with replacing(args.save_scores) as temporary, temporary.open("wb") as stream:
            np.save(stream, full.matrix)
        parts.remove()
    return PairRankings(scores, found.pairs, rerank)


def _check_ranking(name: str, pairs: Mapping[str, PairScores], args: argparse.Namespace) -> None:
    """Refuse what the model cannot rank by, before hours of scoring. Raises: ValueError."""
    of_scores = ("reranked", "full") if "scores" in pairs else ()
    known = ["dual", *of_scores, *([MATCHED] if "matching" in pairs else [])]
    if args.ranking not in (None, *known):
        raise ValueError(
            f"--ranking: expected one of {', '.join(known)}, which {name} has, got {args.ranking}"
        )
    asked = asked_of_scores(pairs, args.ranking)
    if args.save_scores is not None and not of_scores:
        raise ValueError(
            "--save-scores: expected a model that scores all pairs (model.scores.kind), and "
            f"{name} matches pairs alone; leave it out"
        )
    if args.save_scores is not None and asked != "full":
        raise ValueError(f"--save-scores: expected --ranking full, got {asked}")
    last = MATCHED if MATCHED in known and args.ranking is None else args.ranking or asked
    several = len(args.inputs) + len(args.embeddings) > 1
    if several and last in RANKS_ONLY:
        others = " or ".join(ranking for ranking in known if ranking not in RANKS_ONLY)
        raise ValueError(
            f"{name}: ranked by {last}, which has ranks alone, and scores of several inputs are "
            f"averaged; choose --ranking {others}"
        )


def _manifest(name: str, found: Encoded, args: argparse.Namespace) -> dict[str, Any]:
    """What scores depend on: weights and data.

    Files may have changed in the same folder; the embeddings, made anew, tell.
    """

    def digest(content: bytes) -> str:
        return hashlib.sha256(content).hexdigest()

    return {
        "weights": digest(find_checkpoint(Path(name)).read_bytes()),
        "data": {"folder": args.folder, "options": args.data},
        "split": found.split.name,
        "shape": [len(found.image_embeddings), len(found.text_embeddings)],
        "images": digest(found.image_embeddings.numpy().tobytes()),
        "captions": digest(found.text_embeddings.numpy().tobytes()),
        "block": IMAGE_BLOCK,
    }
