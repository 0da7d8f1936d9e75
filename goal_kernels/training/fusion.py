"""Cross attention of words and regions, and the head that says whether a pair matches.

A fused pair costs far more than a product of two embeddings, so few are: in training each positive
with the negatives that mining found, in evaluation the first k of a cheaper ranking.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from goal_kernels.constants import TAU
from goal_kernels.training.encoders.base import Rows
from goal_kernels.training.options import FusionOptions
from goal_kernels.training.pooling import widened
from goal_kernels.training.scoring import Scorer, TokenSet

FEED_FORWARD = 2  # width of the layers' MLPs, in widths of the layers


class Fusion(nn.Module):
    """From tokens of pairs to logits of their matching.

    Equals, for words w_l and regions r_j, both projected to `width`:
        input of the layers: w_l, or aligned w_l + mlp(w_l, sum_j a_lj r_j, m_l), a and m the
            attention and the match of `Scorer.alignment`
        layers: torch's transformer decoder, words attend to words and then to regions
        logit = sum_l head(w_l), their mean, or that of the first token; aligned + scale * score.
            The head starts with zeros, so that pairs are ranked by their scores at first.
    The matching loss reads scores and alignment, and does not train them.
    Source: layers and head as in ALBEF (Li et al., NeurIPS 2021), whose head reads the first token.

    Args:
        embed_dim: width of the encoders' rows.
        options: of the fusion.
        scorer: of the model, which aligned layers need.
    Raises: ValueError when the layers are to be aligned by scores that the model does not have.
    """

    def __init__(self, embed_dim: int, options: FusionOptions, scorer: Scorer | None) -> None:
        super().__init__()
        if options.aligned and scorer is None:
            raise ValueError(
                "model.fusion.aligned: expected false without scores, got true; add "
                "--model.scores.kind late"
            )
        self.options, width = options, options.width
        self.scorer = scorer if options.aligned else None
        self.regions, self.words = nn.Linear(embed_dim, width), nn.Linear(embed_dim, width)
        self.align = (
            nn.Sequential(nn.Linear(2 * width + 1, width), nn.ReLU(), nn.Linear(width, width))
            if options.aligned
            else None
        )
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                *(width, options.heads, FEED_FORWARD * width, options.dropout),
                batch_first=True,
            )
            for _ in range(options.layers)
        )
        self.head = nn.Linear(width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        if options.aligned:
            self.log_scale = nn.Parameter(torch.tensor(math.log(TAU)))

    def tokens(self, side: str, rows: Rows, scored: tuple[Tensor, ...]) -> TokenSet:
        """What pairs are fused from: rows projected to `width`, and beside them, if aligned, the
        values and weights that are scored.

        Args: side: "regions" or "words". scored: the `TokenSet` of the scores, if there is one.
        """
        values = widened(getattr(self, side)(rows.values))
        if self.scorer is not None:
            tokens, weights = (part.detach() for part in scored)
            values = torch.cat([values, tokens, weights[:, :, None]], dim=2)
        return TokenSet(values, rows.mask.to(values.dtype))

    def pairs(self, images: TokenSet, texts: TokenSet) -> Tensor:
        """[P] logits: image p with caption p."""
        width = self.options.width
        regions, words = images.values[:, :, :width], texts.values[:, :, :width]
        no_region, no_word = images.weights <= 0, texts.weights <= 0
        base: Tensor | float = 0.0
        if self.scorer is not None and self.align is not None:
            scored = [
                TokenSet(side.values[:, :, width:-1], side.values[:, :, -1])
                for side in (images, texts)
            ]
            with torch.autocast(words.device.type, enabled=False):
                attention, match = self.scorer.alignment(*scored)
                base = self.log_scale.exp() * self.scorer.pairs(*scored)
            read = torch.cat([words, attention @ regions, match[:, :, None]], dim=2)
            words = words + self.align(read)
        for layer in self.layers:
            words = layer(
                words, regions, tgt_key_padding_mask=no_word, memory_key_padding_mask=no_region
            )
        return base + self._pooled(words, no_word)

    def _pooled(self, words: Tensor, padding: Tensor) -> Tensor:
        """[P] logits of [P, L, width] words."""
        if self.options.pooling == "first":
            return widened(self.head(words[:, 0])).squeeze(1)
        logits = widened(self.head(words)).squeeze(2).masked_fill(padding, 0.0).sum(dim=1)
        return logits if self.options.pooling == "sum" else logits / (~padding).sum(dim=1)
