"""An encoded split, and the rankings that its model makes of it and of captions that are typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from goal_kernels.evaluate.checkpoints import OpenRun, encode_split
from goal_kernels.training.data import collate_texts
from goal_kernels.training.rankings import PairScores
from goal_kernels.training.scoring import TokenSet
from goal_kernels.training.tokenizers import WordTokenizer


class Ranking(NamedTuple):
    """All candidates, best first. order: [N] int64. scores: [N] float32, in this order."""

    order: Tensor
    scores: Tensor

    def place(self, candidates: Tensor) -> int:
        """Place of the best of some candidates [R], counted from 1."""
        return 1 + int(torch.isin(self.order, candidates).nonzero()[0])

    def first(self, count: int, without: Tensor | None = None) -> list[tuple[int, float]]:
        """(candidate, score) of the best; without: candidates [R] that do not count."""
        order, scores = self
        if without is not None:
            kept = ~torch.isin(order, without)
            order, scores = order[kept], scores[kept]
        return list(zip(order[:count].tolist(), scores[:count].tolist(), strict=True))


class Reading(NamedTuple):
    """How a typed caption is read. words: how many. cut: what the model reads of them. unknown:
    those it has never seen."""

    words: int
    cut: int
    unknown: list[str]


class Collection:
    """The test split of a run, encoded, with its model.

    A model that scores pairs ranks as it was trained to: by all scores, by the first `rerank` of
    the dual encoder re-ranked, or by the dual encoder alone.

    Args: run: opened; its model encodes everything once.
    Raises: FileNotFoundError, ValueError when the data cannot be read.
    """

    def __init__(self, run: OpenRun) -> None:
        self.run, self.encoded = run, encode_split(run)
        self.split = self.encoded.split
        self.images, self.captions = map(
            len, (self.encoded.image_embeddings, self.encoded.text_embeddings)
        )

    def read(self, caption: str) -> Reading:
        """What the tokenizer makes of a caption."""
        tokenizer = self.run.data.tokenizer
        words = tokenizer.count_words(caption)
        unknown = []
        if isinstance(tokenizer, WordTokenizer):
            vocabulary = tokenizer.vocabulary
            found = dict.fromkeys(vocabulary.split(caption, tokenizer.max_words))
            unknown = [word for word in found if word not in vocabulary]
        return Reading(words, min(words, tokenizer.max_words), unknown)

    @torch.no_grad()
    def images_for(self, caption: str) -> Ranking:
        """Images ranked for a caption that is typed."""
        tokens = self.run.data.tokenizer.encode(caption)
        module, batch = self.run.module, collate_texts([(tokens, -1)])
        batch = module.transfer_batch_to_device(batch, module.device, 0)
        text, *text_tokens = module.model.text_side(batch)
        dual = self.encoded.image_embeddings @ text[0].float().cpu()

        typed = {
            name: PairScores(pairs.scorer, pairs.images, TokenSet(*text_tokens[at : at + 2]))
            for at, (name, pairs) in zip((0, 2), self.encoded.pairs.items(), strict=False)
        }
        return self._ranked(
            dual, lambda name, images: typed[name].of(images, torch.zeros_like(images))
        )

    def images_of(self, caption: int) -> Ranking:
        """Images ranked for a caption of the split."""
        dual = self.encoded.image_embeddings @ self.encoded.text_embeddings[caption]
        return self._ranked(
            dual,
            lambda name, images: self._scores(name, images, torch.tensor(caption, device="cpu")),
        )

    def captions_of(self, image: int) -> Ranking:
        """Captions of the split ranked for an image."""
        dual = self.encoded.text_embeddings @ self.encoded.image_embeddings[image]
        return self._ranked(
            dual,
            lambda name, captions: self._scores(name, torch.tensor(image, device="cpu"), captions),
        )

    def own(self, image: int) -> Tensor:
        """Captions of an image, [R] int64."""
        return torch.from_numpy(np.flatnonzero(self.split.image_of_caption == image))

    def related(self, image: int) -> tuple[Tensor, Tensor]:
        """Images of an image's group and their captions, none of which is a negative of the others:
        two of [any] int64. Without groups the image and its captions."""
        groups = self.split.groups
        if groups is None:
            return torch.tensor([image], dtype=torch.int64, device="cpu"), self.own(image)
        same = groups == groups[image]
        rows = np.flatnonzero(same), np.flatnonzero(same[self.split.image_of_caption])
        return torch.from_numpy(rows[0]), torch.from_numpy(rows[1])

    def _scores(self, name: str, images: Tensor, captions: Tensor) -> Tensor:
        images, captions = torch.broadcast_tensors(images, captions)
        return self.encoded.pairs[name].of(images, captions)

    def _ranked(self, dual: Tensor, pair_scores: Callable[[str, Tensor], Tensor]) -> Ranking:
        """By similarities [N], the first of which the scores of their pairs put in their order."""
        scores, order = dual.sort(descending=True, stable=True)
        for name, pairs in self.encoded.pairs.items():
            options = pairs.scorer.options
            ranking = getattr(options, "ranking", "reranked")  # a matching head re-ranks
            k = {"dual": 0, "reranked": options.rerank, "full": len(order)}[ranking]
            if k:
                better, place = pair_scores(name, order[:k]).sort(descending=True, stable=True)
                order = torch.cat([order[:k][place], order[k:]])
                scores = torch.cat([better, scores[k:]])
        return Ranking(order, scores)
