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
    skipped_text: list[int]
    skipped_image: list[int]


class Kind(NamedTuple):
    """Which candidates become negatives: see the option `negatives` of goal_loss."""

    name: str = "hardest"
    size: int = 1
    temperature: float = 1.0
    seed: int = 0
    margin: float = math.inf
    ratio: float = math.inf
    exempt: tuple[bool, ...] = ()


def within_limits(
    kind: Kind, scores: dict[int, float], positives: Sequence[float], of_image: bool
) -> tuple[dict[int, float], int]:
    """The candidates of an anchor that are left, and how many are not.

    positives: those of the anchor. of_image: whether the candidates are texts.
    """
    left = {}
    for k, s in scores.items():
        exempt = of_image and bool(kind.exempt) and kind.exempt[k]
        false = s > max(positives) + kind.margin
        if kind.ratio < math.inf:
            false = false or s > max(positives) * kind.ratio
        hard = kind.name == "semi_hard" and s >= min(positives)
        if not ((false and not exempt) or hard):
            left[k] = s
    return left, len(scores) - len(left)


def mixed(word: int) -> int:
    """The finaliser of splitmix64."""
    word = ((word ^ word >> 30) * 0xBF58476D1CE4E5B9) % 2**64
    word = ((word ^ word >> 27) * 0x94D049BB133111EB) % 2**64
    return word ^ word >> 31


def gumbel(kind: Kind, image: int, text: int, anchor: str) -> float:
    """-log(-log(u)) with u a function of the seed, the pair, and the side of the anchor."""
    direction = 1 if anchor == "i" else 0
    word = mixed((2 * image + direction + kind.seed * 0x9E3779B97F4A7C15) % 2**64)
    word = mixed((word + text * 0xD1B54A32D192ED03) % 2**64)
    return -math.log(-math.log(((word >> 12) + 0.5) * 2.0**-52))


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


def along(name: str, x: Matrix, y: Matrix) -> Matrix:
    """What y adds to the gradient of x, without its weight."""
    if name == "dot":
        return y
    if name == "euclidean":
        return y - x
    assert name == "tangent"
    return y - math.fsum(x * y) / math.fsum(x * x) * x


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
    kind: Kind = Kind(),  # noqa: B008
    towards: str = "dot",
) -> Outcome:
    """The whole objective for one batch, square unless `text_to_image` says otherwise.

    Where an anchor has several negatives, `Outcome` names the first. towards: "dot", "euclidean" or
    "tangent".
    """
    owner = range(len(image)) if text_to_image is None else text_to_image
    similarity = [[math.fsum(x * y) for y in text] for x in image]
    pairs = [(i, j) for j, i in enumerate(owner) if i >= 0]
    positives = [similarity[i][j] for i, j in pairs]

    def allowed(i: int, j: int) -> bool:
        same = image_ids is not None and text_ids is not None and image_ids[i] == text_ids[j]
        return owner[j] != i and not same

    of_image = [
        [similarity[i][j] for j in range(len(text)) if owner[j] == i] for i in range(len(image))
    ]

    value, grads = 0.0, {"i": np.zeros_like(image), "t": np.zeros_like(text)}
    found = {"i": [-1] * len(image), "t": [-1] * len(text)}
    lost = {"i": [0] * len(image), "t": [0] * len(text)}
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
            own_positives = of_image[i] if anchor == "i" else [positives[number]]
            scores, skipped = within_limits(kind, scores, own_positives, anchor == "i")
            lost[anchor][own] = skipped
            keys = dict(scores)
            if kind.name == "sampled":
                for k, score in scores.items():
                    pair_of = (i, k) if anchor == "i" else (k, j)
                    keys[k] = score / kind.temperature + gumbel(kind, *pair_of, anchor)
            order = sorted(keys, key=lambda k: (-keys[k], k))
            if kind.name == "skip_hardest":
                for k in order[: kind.size]:
                    del scores[k]
                order = order[kind.size :]
            chosen_ones = order[: kind.size if kind.name == "top_k" else 1]
            found[anchor][own] = chosen_ones[0] if chosen_ones else -1
            if not chosen:
                continue
            share = 1 / max(1, len(chosen_ones))
            for hard in chosen_ones:
                p = positives[number]
                n = similarity[i][hard] if anchor == "i" else similarity[hard][j]
                r_pos = r_neg = 0.0
                if pair.endswith("_ms"):
                    r_pos = relative_positive(pair, number, n, positives, h)
                    r_neg = relative_negative(pair, scores, hard, positives, h)
                weight = share * triplet_weight(triplet, p, n, h)
                plus, minus = pair_weight(pair, p, n, r_pos, r_neg, h)
                true_hinge = (triplet, pair) == ("hinge", "constant")
                value += share * (max(0.0, h.margin + n - p) if true_hinge else n - p)
                x, y, z = rows[anchor][own], others[hard], others[partner]
                grads[anchor][own] += weight * minus * along(towards, x, y)
                grads[anchor][own] -= weight * plus * along(towards, x, z)
                grads[other][hard] += weight * minus * along(towards, y, x)
                grads[other][partner] -= weight * plus * along(towards, z, x)
    return Outcome(value, grads["i"], grads["t"], found["i"], found["t"], lost["i"], lost["t"])
