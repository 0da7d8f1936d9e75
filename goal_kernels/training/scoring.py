"""Scores of images and captions from all of their regions and words, block by block.

Late interaction matches each word with the region that fits it best, cross attention (SCAN) with
the mean of the regions that it attends to. Neither is a product of two embeddings: every pair is
computed on its own, so scores come in blocks of pairs. Where there are several, a block is computed
without a graph, and once more, with one, when its gradient is wanted: memory holds the products of
one block at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from goal_kernels.training.encoders.base import Rows
from goal_kernels.training.options import ScoreOptions
from goal_kernels.training.pooling import widened

BLOCK_PRODUCTS, GPU_BLOCK_PRODUCTS = 1 << 19, 1 << 26
"""Products of tokens in a block when `block` is null. On a CPU 2 MiB in float32, which stay in its
caches. Late interaction of 128 captions of 19 words with 128 images of 12 regions, T = 64, forward
and backward: 0.10 s, in one piece 0.18 s, of one core of an Intel Xeon that others used too."""

SHORTEST = 1e-12
"""Lengths below count as this, as in F.normalize."""


class TokenSet(NamedTuple):
    """Tokens of B images or captions.

    values: [B, K, T] float32, or float64. weights: [B, K] in the same dtype, what a token counts
    in a weighted sum over all of its sample; 0 for padding, whose values are never looked at.
    """

    values: Tensor
    weights: Tensor

    @property
    def lengths(self) -> list[int]:
        """Places of each sample up to its last token, at least 1; waits for the device."""
        place = torch.arange(1, self.weights.shape[1] + 1, device=self.weights.device)
        return ((self.weights > 0) * place).amax(dim=1).clamp_min(1).tolist()

    def at(self, index: Tensor | slice) -> TokenSet:
        """Some samples, without the padding that none of them needs."""
        part = TokenSet(self.values[index], self.weights[index])
        longest = max(part.lengths)
        return TokenSet(part.values[:, :longest], part.weights[:, :longest])


class TokenHead(nn.Module):
    """Projects what an encoder pools to tokens.

    Args:
        embed_dim: width of the rows.
        options: of the scores.
        side: "words" or "regions".
    """

    def __init__(self, embed_dim: int, options: ScoreOptions, side: str) -> None:
        super().__init__()
        self.linear = nn.Linear(embed_dim, options.width)
        learned = options.pooling == "learned" and options.anchors in (side, "both")
        self.weigh = nn.Linear(embed_dim, 1) if learned else None
        self.pooling, self.normalize = options.pooling, options.normalize

    def forward(self, rows: Rows) -> TokenSet:
        """[B, K, embed_dim] rows to [B, K, T] tokens."""
        values = widened(self.linear(rows.values))
        if self.normalize:
            values = F.normalize(values, dim=2)
        if self.weigh is not None:
            scores = widened(self.weigh(rows.values)).squeeze(2)
            return TokenSet(values, scores.masked_fill(~rows.mask, -torch.inf).softmax(dim=1))
        weights = rows.mask.to(values.dtype)
        if self.pooling == "mean":
            weights = weights / weights.sum(dim=1, keepdim=True)
        return TokenSet(values, weights)


class Scorer:
    """Scores of all pairs of some images and captions, and of single pairs; without parameters.

    Equals, for anchors q_l with weights w_l (words, say) and tokens k_j of the other side:
        x_lj = q_l . k_j / sqrt(T), or q_l . k_j of unit tokens
        late:       m_l = t logsumexp_j(x_lj / t), or max_j x_lj
        attention:  m_l = cos(q_l, sum_j a_lj k_j), a_lj = softmax_j(y_lj / t),
                    y_lj = max(x_lj, 0) / sqrt(sum_l max(x_lj, 0)^2)
        score = sum_l w_l m_l; pooled by "lse": t' logsumexp_l(m_l / t')
    and the mean of both ways round for anchors "both".
    Source: ColBERT (Khattab & Zaharia, SIGIR 2020), FILIP (Yao et al., ICLR 2022) for the maximum;
    SCAN (Lee et al., ECCV 2018), equations 1 to 11, for attention.

    Args:
        options: of the scores.
    """

    def __init__(self, options: ScoreOptions) -> None:
        self.options = options
        self._match: Callable[[TokenSet, TokenSet], Tensor] = (
            self._late if options.kind == "late" else self._attention
        )

    def block(self, images: TokenSet, texts: TokenSet) -> Tensor:
        """[N, M] scores of all pairs of one block."""
        anchors = self.options.anchors
        scores = [self._one_way(texts, images).T] if anchors != "regions" else []
        if anchors != "words":
            scores.append(self._one_way(images, texts))
        return scores[0] if len(scores) == 1 else (scores[0] + scores[1]) / 2

    def matrix(self, images: TokenSet, texts: TokenSet) -> Tensor:
        """[N, M] scores of all pairs, with a graph that holds the products of one block at most."""
        order, parts = self._blocks(images, texts)
        if len(parts) == 1:
            return self.block(images, texts)

        def block(*tensors: Tensor) -> Tensor:
            return self.block(TokenSet(*tensors[:2]), TokenSet(*tensors[2:]))

        # Nothing is drawn at random within a block.
        once_more = partial(checkpoint, block, use_reentrant=False, preserve_rng_state=False)
        blocks = [once_more(*images, *part) for part in parts]
        return torch.cat(blocks, dim=1)[:, order]

    def _blocks(self, images: TokenSet, texts: TokenSet) -> tuple[Tensor, list[TokenSet]]:
        """Captions in blocks of like length, cut to it; and where each of them then stands."""
        lengths = texts.lengths
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        rows = torch.tensor(order, device=texts.values.device)
        ordered = TokenSet(texts.values[rows], texts.weights[rows])
        ends, start = [], 0
        while start < len(order):
            step = self.texts_a_block(images, lengths[order[start]])
            start = min(start + step, len(order))
            ends.append(start)
        parts = zip(*(side.tensor_split(ends[:-1]) for side in ordered), strict=True)
        cut = [
            TokenSet(*(side[:, : lengths[order[end - 1]]] for side in part))
            for part, end in zip(parts, ends, strict=True)
        ]
        return rows.argsort(), cut

    def pairs(self, images: TokenSet, texts: TokenSet) -> Tensor:
        """[P] scores: image p with caption p."""

        def one(*pair: Tensor) -> Tensor:
            image, text = (TokenSet(*side) for side in (pair[:2], pair[2:]))
            sides = (TokenSet(side.values[None], side.weights[None]) for side in (image, text))
            return self.block(*sides)[0, 0]

        return torch.vmap(one)(*images, *texts)

    def alignment(self, images: TokenSet, texts: TokenSet) -> tuple[Tensor, Tensor]:
        """How the words of P captions match the regions of P images, pair by pair.

        Returns: attention [P, L, K] of words among regions, softmax_j(x_lj / t); and matches
            [P, L], t logsumexp_j(x_lj / t), by which late interaction scores.
        """
        temperature = self.options.temperature
        scale = 1.0 if self.options.normalize else texts.values.shape[2] ** -0.5
        products = (texts.values * (scale / temperature)) @ images.values.transpose(1, 2)
        products = products.masked_fill(images.weights[:, None] <= 0, -torch.inf)
        return products.softmax(dim=2), temperature * products.logsumexp(dim=2)

    def texts_a_block(self, images: TokenSet, length: int) -> int:
        """Captions of so many tokens that are scored with all images at a time, at least 1."""
        if self.options.block is not None:
            return max(1, self.options.block // len(images.values))
        products = GPU_BLOCK_PRODUCTS if images.values.is_cuda else BLOCK_PRODUCTS
        return max(1, products // (images.weights.numel() * length))

    def _one_way(self, anchors: TokenSet, others: TokenSet) -> Tensor:
        """[A, C] scores by the tokens of the A anchors."""
        matches = self._match(anchors, others)  # [A, L, C]
        if self.options.pooling != "lse":
            return torch.einsum("alc,al->ac", matches, anchors.weights)
        temperature = self.options.pooling_temperature
        valid = (anchors.weights > 0)[:, :, None]
        return temperature * (matches / temperature).masked_fill(~valid, -torch.inf).logsumexp(1)

    def _products(self, anchors: TokenSet, others: TokenSet, scale: float) -> Tensor:
        """[A, L, C, K] products x of every two tokens, times `scale`."""
        values = anchors.values
        if not self.options.normalize:
            scale /= values.shape[2] ** 0.5
        return torch.einsum("alt,ckt->alck", values * scale, others.values)

    def _late(self, anchors: TokenSet, others: TokenSet) -> Tensor:
        """[A, L, C] best match of each anchor."""
        smooth = self.options.match == "lse"
        temperature = self.options.temperature if smooth else 1.0
        products = self._products(anchors, others, 1 / temperature)
        products = products.masked_fill_(others.weights <= 0, -torch.inf)
        return temperature * products.logsumexp(dim=3) if smooth else products.amax(dim=3)

    def _attention(self, anchors: TokenSet, others: TokenSet) -> Tensor:
        """[A, L, C] cosine of each anchor and the mean of what it attends to."""
        products = self._products(anchors, others, 1.0)
        counted = (anchors.weights > 0)[:, :, None, None]
        positive = products.relu() * counted
        length = positive.square().sum(dim=1, keepdim=True).clamp_min(SHORTEST**2).sqrt()
        padding = ~(others.weights > 0)
        attended = (positive / length / self.options.temperature).masked_fill(padding, -torch.inf)
        attention = attended.softmax(dim=3)
        # With G = K K', |sum_j a_j k_j|^2 = a' G a: no vector of width T for every pair of tokens.
        gram = torch.einsum("ckt,cjt->ckj", others.values, others.values)
        squared = (torch.einsum("alck,ckj->alcj", attention, gram) * attention).sum(dim=3)
        product = (attention * products).sum(dim=3)
        scale = 1.0 if self.options.normalize else anchors.values.shape[2] ** 0.5
        own = anchors.values.square().sum(dim=2)[:, :, None]
        return product * scale / (squared * own).clamp_min(SHORTEST**2).sqrt()


def lengthened(tokens: Tensor, length: int) -> Tensor:
    """[B, K, ...] tokens as [B, length, ...], zeros behind."""
    missing = length - tokens.shape[1]
    return F.pad(tokens, [0, 0] * (tokens.dim() - 2) + [0, missing]) if missing else tokens
