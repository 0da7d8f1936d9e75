"""Rankings of a model that scores pairs: all of them, re-ranked, and its dual encoder's."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from goal_kernels.constants import ARGSORT
from goal_kernels.data.files import replacing
from goal_kernels.data.progress import no_progress, progress_line
from goal_kernels.retrieval import EmbeddingScores, MatrixScores, Scores
from goal_kernels.training.rankings import PairScores, make_rankings

if TYPE_CHECKING:
    from goal_kernels.evaluate.checkpoints import Encoded

OPTIONS = ("ranking", "rerank", "save_scores")


@dataclass(frozen=True)
class PairRankings:
    """What was asked of one model.

    Attributes:
        scores: by name, "dual", "reranked" and "full"; the last is the one that was asked for.
        pairs: of the set, and what they have cost so far.
        k: how many are re-ranked.
    """

    scores: dict[str, Scores]
    pairs: PairScores
    k: int

    @property
    def asked(self) -> str:
        """Name of the ranking that was asked for."""
        return list(self.scores)[-1]


def rank_pairs(name: str, found: Encoded, args: argparse.Namespace) -> PairRankings | None:
    """The rankings of an encoded split; None for a model that has embeddings alone.

    Full scores are computed here, with progress; they are written where `args.save_scores` says.

    Raises: ValueError when an option asks for scores that the model does not have.
    """
    if found.pairs is None:
        given = [option for option in OPTIONS if getattr(args, option) is not None]
        if given:
            raise ValueError(
                f"--{given[0].replace('_', '-')}: expected a model that scores pairs "
                f"(model.scores.kind), and {name} has embeddings alone; leave it out"
            )
        return None
    asked = {option: getattr(args, option) for option in OPTIONS[:2]}
    given_options = {option: value for option, value in asked.items() if value is not None}
    options = replace(found.pairs.scorer.options, **given_options)
    if args.save_scores is not None and options.ranking != "full":
        raise ValueError(f"--save-scores: expected --ranking full, got {options.ranking}")
    dual = EmbeddingScores(found.image_embeddings, found.text_embeddings)
    with progress_line() as progress:
        found.pairs.progress = progress
        scores = make_rankings(dual, found.pairs, options)
        found.pairs.progress = no_progress
    if args.ties == ARGSORT and options.ranking == "full":
        del scores["reranked"]  # ranks without scores that could be sorted
    full = scores.get("full")
    if args.save_scores is not None and isinstance(full, MatrixScores):
        with replacing(args.save_scores) as temporary, temporary.open("wb") as stream:
            np.save(stream, full.matrix)
    return PairRankings(scores, found.pairs, options.rerank)
