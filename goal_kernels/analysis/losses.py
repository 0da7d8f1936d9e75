"""The losses of the catalogue: values, and in closed form what they do to the gradients.

Every loss is one of an anchor with its positives and negatives: `p` [N, K] and `n` [N, M] are the
similarities of N anchors to them, p[:, 0] that of the anchor's own pair. A positive that is not
there is +inf, a negative -inf, and weighs nothing. A value is [N]; the weights (pull [N, K],
push [N, M]) are -d value / d p and d value / d n. Rows and sources are in `catalogue.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from goal_kernels.elements import softplus

Weights = tuple[Tensor, Tensor]
NONE_LEFT = -torch.inf


def _own(pull: Tensor, p: Tensor) -> Tensor:
    """The pull [N] on the own positive, nothing on the others. [N, K]"""
    return torch.cat([pull[:, None], torch.zeros_like(p[:, 1:])], dim=1)


def _on(index: Tensor, weight: Tensor, like: Tensor) -> Tensor:
    """weight [N] in the column `index` of each row, 0 elsewhere."""
    return torch.zeros_like(like).scatter(1, index[:, None], weight[:, None])


def max_violation(p: Tensor, n: Tensor, margin: float) -> Tensor:
    return (margin + n.max(dim=1).values - p[:, 0]).relu()


def max_violation_weights(p: Tensor, n: Tensor, margin: float) -> Weights:
    hardest, index = n.max(dim=1)
    weight = (margin + hardest - p[:, 0] > 0).to(p.dtype)
    return _own(weight, p), _on(index, weight, n)


def sum_of_hinges(p: Tensor, n: Tensor, margin: float) -> Tensor:
    return (margin + n - p[:, :1]).relu().sum(dim=1)


def sum_of_hinges_weights(p: Tensor, n: Tensor, margin: float) -> Weights:
    push = (margin + n - p[:, :1] > 0).to(p.dtype)
    return _own(push.sum(dim=1), p), push


def triplet_nca(p: Tensor, n: Tensor, tau: float) -> Tensor:
    return softplus(tau * (n.max(dim=1).values - p[:, 0])) / tau


def triplet_nca_weights(p: Tensor, n: Tensor, tau: float) -> Weights:
    hardest, index = n.max(dim=1)
    weight = (tau * (hardest - p[:, 0])).sigmoid()
    return _own(weight, p), _on(index, weight, n)


def _hardness(p: Tensor, n: Tensor, tau: float, alpha: float, relative: bool) -> Tensor:
    """Logits of the negatives, with alpha times their hardness, whose gradient is stopped."""
    hardness = n - p[:, :1] if relative else n
    return tau * n + alpha * hardness.where(n.isfinite(), 0.0).detach()


def info_nce(
    p: Tensor, n: Tensor, tau: float, alpha: float = 0.0, *, relative: bool = False
) -> Tensor:
    """Also of `llave` (alpha > 0) and `ega` (and relative hardness)."""
    own = tau * p[:, :1]
    logits = _hardness(p, n, tau, alpha, relative)
    return torch.cat([own, logits], dim=1).logsumexp(dim=1) - own[:, 0]


def info_nce_weights(
    p: Tensor, n: Tensor, tau: float, alpha: float = 0.0, *, relative: bool = False
) -> Weights:
    logits = torch.cat([tau * p[:, :1], _hardness(p, n, tau, alpha, relative)], dim=1)
    push = tau * logits.softmax(dim=1)[:, 1:]
    return _own(push.sum(dim=1), p), push


def ega(p: Tensor, n: Tensor, tau: float, alpha: float) -> Tensor:
    return info_nce(p, n, tau, alpha, relative=True)


def ega_weights(p: Tensor, n: Tensor, tau: float, alpha: float) -> Weights:
    return info_nce_weights(p, n, tau, alpha, relative=True)


def sup_con(p: Tensor, n: Tensor, tau: float) -> Tensor:
    there = p.isfinite()
    everything = torch.cat([tau * p.where(there, NONE_LEFT), tau * n], dim=1).logsumexp(dim=1)
    return everything - tau * p.where(there, 0.0).sum(dim=1) / there.sum(dim=1)


def sup_con_weights(p: Tensor, n: Tensor, tau: float) -> Weights:
    there = p.isfinite()
    share = torch.cat([tau * p.where(there, NONE_LEFT), tau * n], dim=1).softmax(dim=1)
    wanted = there.to(p.dtype) / there.sum(dim=1, keepdim=True)
    return tau * (wanted - share[:, : p.shape[1]]), tau * share[:, p.shape[1] :]


def _circle_logits(p: Tensor, n: Tensor, gamma: float, margin: float) -> tuple[Tensor, ...]:
    """Weighted logits of both sides, and the weights, whose gradients are stopped."""
    pull, push = (1 + margin - p).relu().detach(), (n + margin).relu().detach()
    of_p = (-gamma * pull * (p - 1 + margin)).where(p.isfinite(), NONE_LEFT)
    of_n = (gamma * push * (n - margin)).where(n.isfinite(), NONE_LEFT)
    return of_p, of_n, gamma * pull, gamma * push


def circle(p: Tensor, n: Tensor, gamma: float, margin: float) -> Tensor:
    of_p, of_n, _, _ = _circle_logits(p, n, gamma, margin)
    return softplus(of_p.logsumexp(dim=1) + of_n.logsumexp(dim=1))


def circle_weights(p: Tensor, n: Tensor, gamma: float, margin: float) -> Weights:
    of_p, of_n, pull, push = _circle_logits(p, n, gamma, margin)
    both = (of_p.logsumexp(dim=1) + of_n.logsumexp(dim=1)).sigmoid()[:, None]
    return both * of_p.softmax(dim=1) * pull, both * of_n.softmax(dim=1) * push


def _similar_terms(
    p: Tensor, n: Tensor, alpha: float, beta: float, lam: float, epsilon: float
) -> tuple[Tensor, Tensor]:
    """exp of both sides, of the pairs that mining keeps."""
    harder = n > p.amin(dim=1, keepdim=True) - epsilon
    worse = p < n.amax(dim=1, keepdim=True) + epsilon
    of_p, of_n = (-alpha * (p - lam)).exp(), (beta * (n - lam)).exp()
    return torch.where(worse, of_p, 0.0), torch.where(harder, of_n, 0.0)


def multi_similarity(
    p: Tensor, n: Tensor, alpha: float, beta: float, lam: float, epsilon: float
) -> Tensor:
    of_p, of_n = _similar_terms(p, n, alpha, beta, lam, epsilon)
    return of_p.sum(dim=1).log1p() / alpha + of_n.sum(dim=1).log1p() / beta


def multi_similarity_weights(
    p: Tensor, n: Tensor, alpha: float, beta: float, lam: float, epsilon: float
) -> Weights:
    sides = _similar_terms(p, n, alpha, beta, lam, epsilon)
    pull, push = (side / (1 + side.sum(dim=1, keepdim=True)) for side in sides)
    return pull, push


def distance(similarity: Tensor) -> Tensor:
    """Of two unit rows: sqrt(2 - 2 s), 0 without a gradient for s >= 1."""
    apart = similarity < 1
    return torch.where(apart, (2 - 2 * similarity.where(apart, 0.0)).sqrt(), 0.0)


def _inverse(length: Tensor) -> Tensor:
    """1 / length; 0 for 0, as `distance` has no gradient there."""
    return torch.where(length > 0, 1 / length, 0.0)


def contrastive(p: Tensor, n: Tensor, margin: float) -> Tensor:
    near, far = distance(p), (margin - distance(n)).relu()
    return (near.square().sum(dim=1) + far.square().sum(dim=1)) / 2


def contrastive_weights(p: Tensor, n: Tensor, margin: float) -> Weights:
    length = distance(n)
    return (p < 1).to(p.dtype), (margin - length).relu() * _inverse(length)


def _lifted_logits(p: Tensor, n: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    return distance(p).where(p.isfinite(), NONE_LEFT), margin - distance(n)


def lifted_structure(p: Tensor, n: Tensor, margin: float) -> Tensor:
    of_p, of_n = _lifted_logits(p, n, margin)
    return (of_p.logsumexp(dim=1) + of_n.logsumexp(dim=1)).relu()


def lifted_structure_weights(p: Tensor, n: Tensor, margin: float) -> Weights:
    of_p, of_n = _lifted_logits(p, n, margin)
    on = (of_p.logsumexp(dim=1) + of_n.logsumexp(dim=1) > 0).to(p.dtype)[:, None]
    pull, push = on * of_p.softmax(dim=1), on * of_n.softmax(dim=1)
    return pull * _inverse(distance(p)), push * _inverse(distance(n))


def proxy_nca(p: Tensor, n: Tensor) -> Tensor:
    return (2 * n).logsumexp(dim=1) - 2 * p[:, 0]


def proxy_nca_weights(p: Tensor, n: Tensor) -> Weights:
    return _own(torch.full_like(p[:, 0], 2.0), p), 2 * (2 * n).softmax(dim=1)


def siglip(p: Tensor, n: Tensor, scale: float, bias: float) -> Tensor:
    return softplus(-scale * p - bias).sum(dim=1) + softplus(scale * n + bias).sum(dim=1)


def siglip_weights(p: Tensor, n: Tensor, scale: float, bias: float) -> Weights:
    return scale * (-scale * p - bias).sigmoid(), scale * (scale * n + bias).sigmoid()


def _easy_and_semi_hard(p: Tensor, n: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The easiest positive and the hardest negative below it, -inf where there is none: values
    and columns, [N] each."""
    easiest, at = p.where(p.isfinite(), NONE_LEFT).max(dim=1)
    semi, index = n.where(n < easiest[:, None], NONE_LEFT).max(dim=1)
    return easiest, semi, at, index


def epshn(p: Tensor, n: Tensor, tau: float) -> Tensor:
    easiest, semi, _, _ = _easy_and_semi_hard(p, n)
    return softplus(tau * (semi - easiest))


def epshn_weights(p: Tensor, n: Tensor, tau: float) -> Weights:
    easiest, semi, at, index = _easy_and_semi_hard(p, n)
    weight = tau * (tau * (semi - easiest)).sigmoid()
    return _on(at, weight, p), _on(index, weight, n)
