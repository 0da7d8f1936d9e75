"""From scores to the record of an evaluation: what `metrics.json` holds."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import goal_kernels as gk
from goal_kernels.data.truth_relation import TruthRelation
from goal_kernels.evaluate.inputs import Member
from goal_kernels.evaluate.protocols import Protocol, protocol_notes
from goal_kernels.retrieval import FoldMetrics, RankHistogram, fold_chance
from goal_kernels.retrieval.metrics import DIRECTIONS


@dataclass(frozen=True)
class EvaluationOptions:
    """How to evaluate.

    Attributes:
        protocols: at least one.
        ties: see `gk.retrieval_ranks`.
        backend: of the ranking.
        strict: NaN is an error.
        truth: which captions are true of which images, None where unknown.
        oracle: the ceiling of the set, None where unknown.
    """

    protocols: list[Protocol]
    ties: str = "expected"
    backend: str = "auto"
    strict: bool = False
    truth: TruthRelation | None = None
    oracle: dict[str, Any] | None = None


def evaluate_member(member: Member, options: EvaluationOptions) -> dict[str, Any]:
    """Rank and measure.

    Returns: a record of plain types that JSON can hold; recalls in percent, ranks from 1, seconds.
    Raises: ValueError when `strict` and something is NaN.
    """
    started = time.perf_counter()
    broken = member.scores.broken()
    if broken and options.strict:
        raise ValueError(f"{member.name}: {describe_broken(broken)}; --strict allows none")
    images, texts = member.scores.shape
    index = torch.from_numpy(member.image_of_caption)
    counts = np.bincount(member.image_of_caption, minlength=images)
    notes = [note for p in options.protocols for note in protocol_notes(p, images, texts)]
    if member.groups is not None:
        notes.append(
            f"{images:,} images of {len(np.unique(member.groups)):,} groups: all images and "
            "captions of a query's group are right, the best of them counts"
        )
    record: dict[str, Any] = {
        "input": member.name,
        "images": images,
        "captions": texts,
        "captions_per_image": {"least": int(counts.min()), "most": int(counts.max())},
        "ties": options.ties,
        "broken": broken,
        "notes": [*member.notes, *notes],
        "protocols": {p.name: _run(member, index, p, options) for p in options.protocols},
        "oracle": options.oracle,
        "truth": None,
        "rankings": {},
        "scoring": {},
    }
    if options.truth is not None:
        record["truth"] = gk.relevance_metrics(member.scores, options.truth, index)
    record["seconds"] = round(time.perf_counter() - started, 2)
    return record


def compare_rankings(
    members: Mapping[str, Member], record: dict[str, Any], asked: str, options: EvaluationOptions
) -> dict[str, dict[str, Any]]:
    """Mean metrics of several rankings of one set: by protocol, then by name of the ranking.

    Args: members: by name. record: of the one called `asked`, whose figures are taken from there.
    """
    index = torch.from_numpy(members[asked].image_of_caption)
    return {
        protocol.name: {
            name: record["protocols"][protocol.name]["mean"]
            if name == asked
            else _run(member, index, protocol, options)["mean"]
            for name, member in members.items()
        }
        for protocol in options.protocols
    }


def describe_broken(broken: dict[str, int]) -> str:
    """Counts of what is NaN or infinite, in words."""
    parts = ", ".join(f"{count:,} of the {name}" for name, count in broken.items())
    return f"NaN or infinity in {parts}"


def _run(
    member: Member, index: torch.Tensor, protocol: Protocol, options: EvaluationOptions
) -> dict[str, Any]:
    """One protocol: means, deviations, every fold, chance, ties, NaN and the histogram of ranks."""
    with warnings.catch_warnings():
        # The caller reports NaN once, in the words of this command.
        warnings.filterwarnings("ignore", "retrieval_ranks: ", RuntimeWarning)
        found = gk.fold_metrics(
            member.scores,
            index,
            protocol.folds,
            ties=options.ties,
            backend=options.backend,
            groups=member.groups,
        )
    images = member.scores.shape[0]
    groups = None if member.groups is None else torch.from_numpy(member.groups)
    return {
        "meaning": protocol.meaning,
        "folds": protocol.folds,
        "mean": found.mean,
        "std": found.std if protocol.folds > 1 else None,
        "every_fold": found.folds if protocol.folds > 1 else None,
        "chance": fold_chance(index, images, protocol.folds, groups),
        "tie_fraction": float(np.mean([ranks.tie_fraction for ranks in found.ranks])),
        "nan_queries": sum(ranks.nan_scores for ranks in found.ranks),
        "histogram": {direction: _histogram(found, direction) for direction in DIRECTIONS},
    }


def shares(histogram: dict[str, dict[str, list[int]]]) -> tuple[list[str], dict[str, NDArray]]:
    """Ranks in words, and percent of the queries there by direction, down to the worst rank."""
    found = {
        direction: RankHistogram(**{name: np.array(v) for name, v in histogram[direction].items()})
        for direction in DIRECTIONS
    }
    filled = max(int(part.queries.nonzero()[0].max()) for part in found.values()) + 1
    labels = max((part.labels() for part in found.values()), key=len)[:filled]
    # The direction with fewer candidates has fewer bins.
    padded = {d: np.append(part.share, np.zeros(filled))[:filled] for d, part in found.items()}
    return labels, padded


def _histogram(found: FoldMetrics, direction: str) -> dict[str, list[int]]:
    """Queries of all folds by rank."""
    ranks = [getattr(fold, direction) for fold in found.ranks]
    # Candidates of an image are the texts, and the reverse; the largest fold bounds the last bin.
    candidates = max(len(fold.t2i if direction == "i2t" else fold.i2t) for fold in found.ranks)
    histogram = gk.rank_histogram(torch.cat(ranks), candidates)
    return {name: getattr(histogram, name).tolist() for name in RankHistogram._fields}
