"""The oracle: every formula of docs/derivation.md as a literal loop over Python floats.

Shares no code with the package. Slow, and meant to be checked by eye against the equations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


class Hyper(NamedTuple):
    tau: float = 10.0
    alpha: float = 2.0
    beta: float = 10.0
    lam: float = 0.5
    epsilon: float = 0.1
    margin: float = 0.2


class Outcome(NamedTuple):
    value: float
    grad_image: Matrix
    grad_text: Matrix
    hardest_text: list[int]
    hardest_image: list[int]


def triplet_weight(name: str, p: float, n: float, h: Hyper) -> float:
    if name == "constant":
        return 1.0
    if name == "nca":
        return 1 / (1 + math.exp(h.tau * (p - n)))
    if name == "circle":
        return 1 / (1 + math.exp(h.tau * (p * (2 - p) - n**2 - 0.5)))
    assert name == "hinge"
    return 1.0 if h.margin + n - p > 0 else 0.0


def pair_weight(
    name: str, p: float, n: float, r_pos: float, r_neg: float, h: Hyper
) -> tuple[float, float]:
    if name == "constant":
        return 1.0, 1.0
    if name == "linear":
        return 1 - p, n
    if name == "sigmoid":
        return 1 / (1 + math.exp(h.alpha * (p - h.lam))), 1 / (1 + math.exp(-h.beta * (n - h.lam)))
    if name == "linear_ms":
        return (1 - r_pos) * (1 - p), (1 + r_neg) * n
    assert name == "sigmoid_ms"
    return (
        1 / (math.exp(h.alpha * (p - h.lam)) + r_pos),
        1 / (math.exp(-h.beta * (n - h.lam)) + r_neg),
    )


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def relative_positive(pair: str, i: int, n: float, positives: Sequence[float], h: Hyper) -> float:
    close = [q for k, q in enumerate(positives) if k != i and q <= n + h.epsilon]
    if pair == "linear_ms":
        return _mean([positives[i] - q for q in close if positives[i] - q != 0])
    return _mean([math.exp(h.alpha * (positives[i] - q)) for q in close])


def relative_negative(
    pair: str, scores: dict[int, float], j: int, positives: Sequence[float], h: Hyper
) -> float:
    """scores: the allowed negatives of one anchor; j: the hardest of them."""
    threshold = min(positives) - h.epsilon
    close = [s for k, s in scores.items() if k != j and s >= threshold]
    n = scores[j]
    if pair == "linear_ms":
        return _mean([n - s for s in close if n - s != 0])
    return _mean([math.exp(-h.beta * (n - s)) for s in close])


def hardest(scores: dict[int, float]) -> int:
    """Key of the largest score, the lowest key on ties; -1 if there is none."""
    best = -1
    for k in sorted(scores):
        if best < 0 or scores[k] > scores[best]:
            best = k
    return best


def run(
    image: Matrix,
    text: Matrix,
    triplet: str,
    pair: str,
    h: Hyper = Hyper(),  # noqa: B008
    image_ids: Sequence[int] | None = None,
    text_ids: Sequence[int] | None = None,
    direction: str = "both",
    text_to_image: Sequence[int] | None = None,
) -> Outcome:
    """The whole objective for one batch, square unless `text_to_image` says otherwise."""
    owner = range(len(image)) if text_to_image is None else text_to_image
    similarity = [[math.fsum(x * y) for y in text] for x in image]
    pairs = [(i, j) for j, i in enumerate(owner) if i >= 0]
    positives = [similarity[i][j] for i, j in pairs]

    def allowed(i: int, j: int) -> bool:
        same = image_ids is not None and text_ids is not None and image_ids[i] == text_ids[j]
        return owner[j] != i and not same

    value, grads = 0.0, {"i": np.zeros_like(image), "t": np.zeros_like(text)}
    found = {"i": [-1] * len(image), "t": [-1] * len(text)}
    for others, anchor, other, chosen in (
        (text, "i", "t", direction != "t2i"),
        (image, "t", "i", direction != "i2t"),
    ):
        rows = {"i": image, "t": text}
        for number, (i, j) in enumerate(pairs):
            own, partner = (i, j) if anchor == "i" else (j, i)
            scores = {
                k: similarity[i][k] if anchor == "i" else similarity[k][j]
                for k in range(len(others))
                if (allowed(i, k) if anchor == "i" else allowed(k, j))
            }
            hard = hardest(scores)
            found[anchor][own] = hard
            if hard < 0 or not chosen:
                continue
            p, n = positives[number], scores[hard]
            r_pos = r_neg = 0.0
            if pair.endswith("_ms"):
                r_pos = relative_positive(pair, number, n, positives, h)
                r_neg = relative_negative(pair, scores, hard, positives, h)
            weight = triplet_weight(triplet, p, n, h)
            plus, minus = pair_weight(pair, p, n, r_pos, r_neg, h)
            true_hinge = (triplet, pair) == ("hinge", "constant")
            value += max(0.0, h.margin + n - p) if true_hinge else n - p
            grads[anchor][own] += weight * (minus * others[hard] - plus * others[partner])
            grads[other][hard] += weight * minus * rows[anchor][own]
            grads[other][partner] -= weight * plus * rows[anchor][own]
    return Outcome(value, grads["i"], grads["t"], found["i"], found["t"])
