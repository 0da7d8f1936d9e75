"""The losses over all negatives as loops over anchors, differentiated by torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Anchor(NamedTuple):
    """Similarities of one anchor: to one of its positives, to all, to its negatives [n]."""

    positive: Tensor
    positives: Tensor
    negatives: Tensor


class Truth(NamedTuple):
    """Which texts are whose: owner [M] numbers of images or -1, ids of images and texts or None."""

    owner: list[int]
    image_ids: list[int] | None = None
    text_ids: list[int] | None = None
    margin: float = math.inf
    exempt: list[bool] | None = None

    def own(self, i: int, j: int) -> bool:
        return self.owner[j] == i

    def alike(self, i: int, j: int) -> bool:
        return self.image_ids is not None and self.image_ids[i] == self.text_ids[j]


def anchors(score: Tensor, truth: Truth, direction: str) -> list[list[Anchor]]:
    """Of every image and every text that has a positive, one entry a pair (none: by ids alone)."""
    images, texts = range(score.shape[0]), range(score.shape[1])
    found = []
    sides = [("i2t", images, texts), ("t2i", texts, images)]
    for name, own_side, others in sides:
        if direction not in ("both", name):
            continue
        for a in own_side:

            def at(other: int, a: int = a, name: str = name) -> tuple[int, int]:
                return (a, other) if name == "i2t" else (other, a)

            pairs = [score[at(k)] for k in others if truth.own(*at(k))]
            alike = [score[at(k)] for k in others if truth.own(*at(k)) or truth.alike(*at(k))]
            limit = max((p.item() for p in pairs), default=math.inf) + truth.margin
            left = [
                score[at(k)]
                for k in others
                if not (truth.own(*at(k)) or truth.alike(*at(k)))
                and (score[at(k)] <= limit or (name == "i2t" and truth.exempt and truth.exempt[k]))
            ]
            negatives = torch.stack(left) if left else score.new_zeros(0)
            if alike:
                found.append([Anchor(p, torch.stack(alike), negatives) for p in pairs or [None]])
    return found


def of_pairs(term: Callable[[Anchor], Tensor]) -> Callable[..., Tensor]:
    """The sum of a term over both anchors of every pair."""

    def loss(score: Tensor, truth: Truth, direction: str = "both") -> Tensor:
        terms = [
            term(anchor)
            for same in anchors(score, truth, direction)
            for anchor in same
            if anchor.positive is not None
        ]
        return torch.stack(terms).sum()

    return loss


def of_sets(term: Callable[[Anchor], Tensor]) -> Callable[..., Tensor]:
    """The sum of a term over every image and text, whatever the number of its positives."""

    def loss(score: Tensor, truth: Truth, direction: str = "both") -> Tensor:
        return torch.stack([term(same[0]) for same in anchors(score, truth, direction)]).sum()

    return loss


def softplus(z: Tensor) -> Tensor:
    return torch.logaddexp(z, torch.zeros_like(z))


def info_nce(scale: Tensor, smoothing: float = 0.0, hardness: float = 0.0):
    def term(a: Anchor) -> Tensor:
        logits = scale * torch.cat([a.positive[None], a.negatives])
        weights = hardness * torch.cat([torch.zeros(1).to(logits), a.negatives.detach()])
        target = (1 - smoothing) * logits[0] + smoothing * logits.mean()
        return (logits + weights).logsumexp(dim=0) - target

    return of_pairs(term)


def siglip(scale: Tensor, bias: Tensor) -> Callable[..., Tensor]:
    def loss(score: Tensor, truth: Truth, direction: str = "both") -> Tensor:
        terms = []
        for i in range(score.shape[0]):
            for j in range(score.shape[1]):
                sign = 1 if truth.own(i, j) or truth.alike(i, j) else -1
                terms.append(softplus(-sign * (scale * score[i, j] + bias)))
        return torch.stack(terms).sum()

    return loss


def multi_similarity(alpha: float, beta: float, lam: float) -> Callable[..., Tensor]:
    return of_sets(
        lambda a: (
            torch.log1p(torch.exp(alpha * (lam - a.positives)).sum()) / alpha
            + torch.log1p(torch.exp(beta * (a.negatives - lam)).sum()) / beta
        )
    )


def circle(gamma: float, m: float) -> Callable[..., Tensor]:
    def term(a: Anchor) -> Tensor:
        n, p = a.negatives, a.positives
        over = torch.exp(gamma * (n.detach() + m).relu() * (n - m)).sum()
        under = torch.exp(-gamma * (1 + m - p.detach()).relu() * (p - 1 + m)).sum()
        return torch.log1p(over * under)

    return of_sets(term)


def hinges(margin: float) -> Callable[..., Tensor]:
    return of_pairs(lambda a: (margin + a.negatives - a.positive).relu().sum())


def soft_margin(tau: float) -> Callable[..., Tensor]:
    return of_pairs(lambda a: softplus(tau * (a.negatives - a.positive)).sum() / tau)
