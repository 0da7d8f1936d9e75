"""Mining and applying as literal loops over Python floats; shares no code with the package."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Side(NamedTuple):
    """Result for the anchors of one direction."""

    value: list[float]
    index: list[int]
    total: list[float]
    count: list[int]


class Question(NamedTuple):
    """What is mined besides the maxima, and who may be a negative of whom."""

    kind: str = "none"
    threshold: float = 0.0
    beta: float = 10.0
    target: Sequence[int] | None = None
    image_ids: Sequence[int] | None = None
    text_ids: Sequence[int] | None = None

    def allows(self, i: int, j: int) -> bool:
        positive = i if self.target is None else self.target[i]
        if self.image_ids is not None and self.text_ids is not None:
            return j != positive and self.image_ids[i] != self.text_ids[j]
        return j != positive


def _mine_one(scores: dict[int, float], question: Question) -> tuple[float, int, float, int]:
    """Largest score with its lowest key, NaN above all; sum and number of the relative ones."""
    best = -1
    for k, s in scores.items():
        if best >= 0 and math.isnan(scores[best]):
            break
        if best < 0 or s > scores[best] or math.isnan(s):
            best = k
    if best < 0:
        return -math.inf, -1, 0.0, 0
    n = scores[best]
    if question.kind == "none":
        return n, best, 0.0, 0
    close = [s for k, s in scores.items() if k != best and s >= question.threshold]
    if question.kind == "linear":
        terms = [n - s for s in close if n - s > 0]
    else:
        terms = [math.exp(-question.beta * (n - s)) for s in close]
    # fsum refuses infinities and NaN, which some cases ask for.
    finite = all(map(math.isfinite, terms))
    return n, best, math.fsum(terms) if finite else sum(terms), len(terms)


def similarity(image: Tensor, text: Tensor) -> list[list[float]]:
    """[N, M] float64 dot products of the given numbers."""
    return (image.double() @ text.double().T).tolist()


def mine(scores: list[list[float]], question: Question) -> tuple[Side, Side]:
    """Rows and columns of a similarity matrix [N, M]."""
    rows, columns = len(scores), len(scores[0])
    by_row = [
        _mine_one({j: scores[i][j] for j in range(columns) if question.allows(i, j)}, question)
        for i in range(rows)
    ]
    by_column = [
        _mine_one({i: scores[i][j] for i in range(rows) if question.allows(i, j)}, question)
        for j in range(columns)
    ]
    return Side(*map(list, zip(*by_row, strict=True))), Side(
        *map(list, zip(*by_column, strict=True))
    )


class Terms(NamedTuple):
    """Indices and weights of a gradient, as lists; -1: no term."""

    hardest_text: list[int]
    hardest_image: list[int]
    target: list[int]
    positive: list[float]
    row: list[float]
    column: list[float]


def apply(scale: float, image: Tensor, text: Tensor, terms: Terms) -> tuple[Tensor, Tensor]:
    """Both gradients in float64, [N, D] and [M, D]."""
    image, text = image.double(), text.double()
    grad_image, grad_text = torch.zeros_like(image), torch.zeros_like(text)
    for i, j in enumerate(terms.hardest_text):
        if j >= 0:
            grad_image[i] += terms.row[i] * text[j]
            grad_text[j] += terms.row[i] * image[i]
    for i, j in enumerate(terms.target):
        if 0 <= j < len(text):
            grad_image[i] -= terms.positive[i] * text[j]
            grad_text[j] -= terms.positive[i] * image[i]
    for j, i in enumerate(terms.hardest_image):
        if i >= 0:
            grad_text[j] += terms.column[j] * image[i]
            grad_image[i] += terms.column[j] * text[j]
    return scale * grad_image, scale * grad_text
