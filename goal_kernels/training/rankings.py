"""Rankings of a model that scores pairs: all of them, or the first of the dual encoder's alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

import goal_kernels as gk
from goal_kernels.backends.scores import LOWEST_SCORE, RankCounts, comparable
from goal_kernels.data.arrays import read_archive
from goal_kernels.data.part_folder import PartFolder
from goal_kernels.data.progress import Progress, no_progress
from goal_kernels.pairs import cut
from goal_kernels.retrieval import EmbeddingScores, MatrixScores, Scores
from goal_kernels.retrieval.scores import Rows, standing_among
from goal_kernels.training.fusion import Fusion
from goal_kernels.training.options import ScoreOptions
from goal_kernels.training.scoring import (
    BLOCK_PRODUCTS,
    GPU_BLOCK_PRODUCTS,
    Scorer,
    TokenSet,
)

MATCHED = "matched"
RANKS_ONLY = ("reranked", MATCHED)
"""Rankings without scores of all pairs, which could be sorted or averaged."""

IMAGE_BLOCK = 512
"""Images scored at a time in evaluation, with as many captions as make a block."""


class PairScores:
    """Scores of an evaluated set, computed when asked for, and what that took.

    Args:
        scorer: of the model, or its fusion, which has no `matrix`.
        images, texts: tokens of N images and M captions, on the device that scores them.
        progress: told of every block.

    Attributes:
        pairs: scores computed so far. seconds: wall time that they took.
        parts: where scores of all pairs are kept while they are computed, and read instead; None:
            nowhere.
    """

    def __init__(
        self,
        scorer: Scorer | Fusion,
        images: TokenSet,
        texts: TokenSet,
        progress: Progress = no_progress,
    ) -> None:
        self.scorer, self.images, self.texts, self.progress = scorer, images, texts, progress
        self.pairs, self.seconds = 0, 0.0
        self.parts: PartFolder | None = None

    def part(self, images: slice, texts: Tensor) -> PairScores:
        """Of some images and captions, the latter by bool [M]."""
        chosen = self.texts.at(texts.to(self.texts.values.device))
        return PairScores(self.scorer, self.images.at(images), chosen, self.progress)

    @torch.no_grad()
    def matrix(self) -> Tensor:
        """[N, M] float32 scores of all pairs, on the CPU. Raises: ValueError for a damaged part."""
        assert isinstance(self.scorer, Scorer)
        started = time.perf_counter()
        count, total = len(self.images.values), len(self.texts.values)
        longest, done = self.texts.values.shape[1], 0
        scores = torch.empty(count, total, dtype=torch.float32, device="cpu")
        for rows in cut(count, IMAGE_BLOCK):
            kept = None if self.parts is None else self.parts.part(rows.start)
            if kept is not None and kept.is_file():
                scores[rows] = _read_part(kept, scores[rows])
                done += scores[rows].numel()
                self.progress("scores", done, count * total)
                continue
            images = self.images.at(rows)
            for columns in cut(total, self.scorer.texts_a_block(images, longest)):
                block = self.scorer.block(images, self.texts.at(columns))
                scores[rows, columns] = block.float().cpu()
                done += block.numel()
                self.pairs += block.numel()
                self.progress("scores", done, count * total)
            if self.parts is not None and kept is not None:
                self.parts.keep(kept, scores=scores[rows].numpy())
        self.seconds += time.perf_counter() - started
        return scores

    @torch.no_grad()
    def of(self, images: Tensor, texts: Tensor) -> Tensor:
        """[P] float32 scores of image and caption number by number, [P] int64 each."""
        started = time.perf_counter()
        width = self.images.values.shape[1] * self.texts.values.shape[1]
        device = self.images.values.device
        # Captions of like length share a slice, which is padded to its longest.
        order = (self.texts.weights > 0).sum(dim=1).cpu()[texts].argsort()
        images, texts = images[order], texts[order]
        parts = []
        products = GPU_BLOCK_PRODUCTS if device.type == "cuda" else BLOCK_PRODUCTS
        for part in cut(len(images), max(1, products // width)):
            sides = self.images.at(images[part].to(device)), self.texts.at(texts[part].to(device))
            parts.append(self.scorer.pairs(*sides).float().cpu())
            self.progress("re-ranked", part.stop, len(images))
        scores = torch.cat(parts)
        self.pairs += len(scores)
        self.seconds += time.perf_counter() - started
        return torch.empty_like(scores).index_copy_(0, order, scores)

    def cost(self, rerank: int | None = None) -> dict[str, float]:
        """What scoring took so far: "pairs", "seconds", and "rerank", the k of `make_rankings`."""
        k = rerank or self.scorer.options.rerank
        return {"pairs": self.pairs, "seconds": round(self.seconds, 2), "rerank": k}


def _read_part(path: Path, like: Tensor) -> Tensor:
    """Scores that were kept. Raises: ValueError."""
    scores = read_archive(path).get("scores")
    if scores is None or scores.shape != like.shape:
        raise ValueError(
            f"{path}: expected scores {list(like.shape)}; delete it and run the command again"
        )
    return torch.from_numpy(scores)


class RerankedScores(Scores):
    """A ranking whose first k a scorer puts into another order.

    For each image its first k captions, for each caption its first k images; what comes after them
    stays as it was. Nothing of size N x M is stored. It has ranks only, no blocks of scores: the
    two directions order the same pair differently.

    Args:
        base: scores of the embeddings, or of all pairs.
        pair_scores: [P] float32 from [P] numbers of images and of captions.
        k: at least 1.
    """

    def __init__(
        self,
        base: EmbeddingScores | MatrixScores,
        pair_scores: Callable[[Tensor, Tensor], Tensor],
        k: int,
    ) -> None:
        self.base, self.pair_scores, self.k = base, pair_scores, k
        self.shape = base.shape

    def block(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Raises: ValueError."""
        raise ValueError(
            "a re-ranked ranking has ranks only, and this needs scores of all pairs: rank all "
            "pairs (--ranking full), or leave --truth and --ties argsort out"
        )

    def select(self, images: slice, texts: Rows) -> RerankedScores:
        rows = torch.arange(self.shape[0])[images]
        columns = torch.arange(self.shape[1])[
            texts if isinstance(texts, slice) else torch.from_numpy(texts)
        ]
        base = self.base.select(images, texts)
        assert isinstance(base, EmbeddingScores | MatrixScores)
        return RerankedScores(base, lambda i, j: self.pair_scores(rows[i], columns[j]), self.k)

    def broken(self) -> dict[str, int]:
        """Rows of either side, or scores, that are NaN or infinite."""
        return self.base.broken()

    def count(self, text_to_image: Tensor, backend: str) -> RankCounts:
        """See `Scores.count`."""
        found = RankCounts(*(part.cpu() for part in self.base.count(text_to_image, backend)))
        owner = text_to_image.cpu()
        images, texts = self.shape
        near, far = self._first()
        of_images = self._scores(torch.arange(images)[:, None].expand_as(near), near)
        of_texts = self._scores(far, torch.arange(texts)[:, None].expand_as(far))
        own = owner[near] == torch.arange(images)[:, None]
        image_better, image_ties = _standing(of_images, own, found.image_better, found.image_ties)
        text_better, text_ties = _standing(
            of_texts, far == owner[:, None], found.text_better, found.text_ties
        )
        # Of an image with captions among its first k only these can be its best.
        positive = found.positive.masked_fill(own.any(dim=1)[owner], -torch.inf)
        positive[near[own]] = of_images[own].to(positive.dtype)
        return RankCounts(positive, image_better, image_ties, text_better, text_ties)

    def count_groups(self, image_groups: Tensor, text_groups: Tensor) -> tuple[Tensor, Tensor]:
        """See `Scores.count_groups`."""
        before = self.base.count_groups(image_groups, text_groups)
        near, far = self._first()
        images, texts = (torch.arange(size)[:, None] for size in self.shape)
        of_images = self._scores(images.expand_as(near), near)
        of_texts = self._scores(far, texts.expand_as(far))
        return (
            _regrouped(of_images, text_groups[near] == image_groups[:, None], before[0]),
            _regrouped(of_texts, image_groups[far] == text_groups[:, None], before[1]),
        )

    def _first(self) -> tuple[Tensor, Tensor]:
        """The first k captions [N, k] of each image, and the first k images [M, k] of each."""
        sizes = [min(self.k, size) for size in reversed(self.shape)]
        if isinstance(self.base, EmbeddingScores):
            sides = self.base.image, self.base.text
            orders = (sides, sides[::-1])
            found = (gk.mine_top_k(*o, k).indices.cpu() for o, k in zip(orders, sizes, strict=True))
        else:
            scores = comparable(torch.from_numpy(self.base.matrix))
            found = (s.topk(k).indices for s, k in zip((scores, scores.T), sizes, strict=True))
        near, far = found
        return near, far

    def _scores(self, images: Tensor, texts: Tensor) -> Tensor:
        """[Q, k] scores of [Q, k] pairs."""
        return self.pair_scores(images.flatten(), texts.flatten()).view_as(texts)


def _standing(scores: Tensor, own: Tensor, better: Tensor, ties: Tensor) -> tuple[Tensor, Tensor]:
    """Candidates better than the best positive, and tied with it, after re-ranking: [Q] each.

    Args:
        scores, own: [Q, k], of the candidates, and which of them are positives.
        better, ties: [Q], before. They stay, behind all k, where no positive is among these.
    """
    compared = comparable(scores)
    best = compared.masked_fill(~own, LOWEST_SCORE).amax(dim=1, keepdim=True)
    among = own.any(dim=1)
    behind = better.clamp_min(scores.shape[1])
    return (
        torch.where(among, ((compared > best) & ~own).sum(dim=1), behind),
        torch.where(
            among, ((compared == best) & ~own).sum(dim=1), (better + ties - behind).clamp_min(0)
        ),
    )


def _regrouped(scores: Tensor, own: Tensor, before: Tensor) -> Tensor:
    """`standing_among` of all candidates, after re-ranking: [4, Q]; arguments as in `_standing`."""
    better, ties = _standing(scores, own, *before[:2])
    among = own.any(dim=1)
    found = torch.where(among, standing_among(scores, own), before)
    return torch.stack([better, ties, *found[2:]])


def asked_of_scores(pairs: Mapping[str, PairScores], ranking: str | None) -> str | None:
    """The ranking that scores are asked for; None without any. Arguments: as of `make_rankings`."""
    scores = pairs.get("scores")
    if scores is None or ranking not in (None, MATCHED):
        return ranking
    assert isinstance(scores.scorer.options, ScoreOptions)
    return scores.scorer.options.ranking


def make_rankings(
    dual: EmbeddingScores,
    pairs: Mapping[str, PairScores],
    ranking: str | None = None,
    rerank: int | None = None,
) -> dict[str, Scores]:
    """The ranking that is asked for, last, and what is cheaper before it, by name.

    "dual"; with scores "reranked", the first k of it, and "full", all pairs; with a matching head
    "matched", the first k of "full", or of "dual" where scores of all pairs are not asked for.

    Args:
        pairs: as `VSE.pair_scores` gives them.
        ranking: the one asked for; by default "matched" or else what the options of the scores say.
        rerank: k; by default those of the options.
    """
    rankings: dict[str, Scores] = {"dual": dual}
    scores, matching = pairs.get("scores"), pairs.get("matching")
    asked = asked_of_scores(pairs, ranking)
    if scores is not None:
        if asked != "dual":
            k = rerank or scores.scorer.options.rerank
            rankings["reranked"] = RerankedScores(dual, scores.of, k)
        if asked == "full":
            rankings["full"] = MatrixScores(scores.matrix())
    if matching is not None and ranking in (None, MATCHED):
        full = rankings.get("full")
        base = full if isinstance(full, MatrixScores) else dual
        k = rerank or matching.scorer.options.rerank
        rankings[MATCHED] = RerankedScores(base, matching.of, k)
    return rankings
