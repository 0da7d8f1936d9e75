"""Mining and gradients as literal loops over Python floats, and the cases the tests run over.

Shares no code with the package.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

Anchor = tuple[float, int, float, int]
"""value, index, relative sum, relative count"""


class Case(NamedTuple):
    """Rows, columns, width, and what the shape exercises."""

    rows: int
    columns: int
    width: int
    why: str

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}x{self.width}"


CASES = (
    Case(1, 1, 1, "one pair: no negative exists, every size is 1"),
    Case(2, 1, 7, "a row without a column"),
    Case(1, 3, 1, "a column without a row"),
    Case(63, 64, 7, "one row below a tile"),
    Case(65, 127, 65, "one row above, one column below, two slices of the width"),
    Case(64, 129, 16, "one column above the wide tile"),
    Case(130, 33, 33, "more rows than columns, columns above the narrow tile"),
)


def mined_anchor(scores: dict[int, float], kind: str, threshold: float, beta: float) -> Anchor:
    """What mining must return for one anchor, given its allowed negatives by ascending position."""
    if not scores:
        return -math.inf, -1, 0.0, 0
    unordered = (k for k, score in scores.items() if score != score)
    best = next(unordered, None)  # the first NaN, else the first of the largest
    if best is None:
        best = max(scores, key=scores.__getitem__)
    top = scores[best]
    close = [s for k, s in scores.items() if k != best and s >= threshold]
    if kind == "linear":
        gaps = [top - s for s in close if top - s > 0]
        return top, best, math.fsum(gaps), len(gaps)
    if kind == "exponential":
        return top, best, math.fsum(math.exp(-beta * (top - s)) for s in close), len(close)
    return top, best, 0.0, 0


def mined_literally(
    image: Tensor,
    text: Tensor,
    pairing: tuple[Tensor | None, Tensor | None, Tensor | None],
    relative: tuple[str, float, float],
) -> tuple[list[Anchor], list[Anchor]]:
    """Rows and columns of what `mine` must return; image [N, D], text [M, D]."""
    return scores_literally(image.cpu().double() @ text.cpu().double().T, pairing, relative)


def scores_literally(
    scores: Tensor,
    pairing: tuple[Tensor | None, Tensor | None, Tensor | None],
    relative: tuple[str, float, float],
) -> tuple[list[Anchor], list[Anchor]]:
    """`mined_literally` of similarities float64 [N, M]."""
    target, image_ids, text_ids = (None if t is None else t.tolist() for t in pairing)
    rows: list[dict[int, float]] = [{} for _ in range(scores.shape[0])]
    columns: list[dict[int, float]] = [{} for _ in range(scores.shape[1])]
    for i, line in enumerate(scores.tolist()):
        own = i if target is None else target[i]
        for j, score in enumerate(line):
            if j == own or (image_ids is not None and image_ids[i] == text_ids[j]):
                continue
            rows[i][j] = score
            columns[j][i] = score
    return [mined_anchor(r, *relative) for r in rows], [mined_anchor(c, *relative) for c in columns]


def gradients_literally(
    grad_loss: float,
    image: Tensor,
    text: Tensor,
    indices: tuple[Tensor, Tensor, Tensor | None],
    weights: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Both gradients in float64. indices: hardest_text, hardest_image, target (None: own row)."""
    x, y = image.cpu().double(), text.cpu().double()
    hardest_text, hardest_image = indices[0].tolist(), indices[1].tolist()
    target = list(range(len(x))) if indices[2] is None else indices[2].tolist()
    positive, row, column = (w.tolist() for w in weights)
    grad_image, grad_text = torch.zeros_like(x), torch.zeros_like(y)
    for i in range(len(x)):
        for j, weight in ((hardest_text[i], row[i]), (target[i], -positive[i])):
            if 0 <= j < len(y):
                grad_image[i] += grad_loss * weight * y[j]
                grad_text[j] += grad_loss * weight * x[i]
    for k, i in enumerate(hardest_image):
        if 0 <= i < len(x):
            grad_image[i] += grad_loss * column[k] * y[k]
            grad_text[k] += grad_loss * column[k] * x[i]
    return grad_image, grad_text


def whole_numbers(rows: int, width: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Integers from -2 to 2, [rows, width]: every similarity is exact, and ties abound."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-2, 3, (rows, width), generator=generator).to(dtype)


def full_pairing(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """A target with holes and repeats, out of range on both sides, and overlapping ids."""
    generator = torch.Generator().manual_seed(case.rows)
    target = torch.randint(-1, case.columns + 2, (case.rows,), generator=generator)
    ids = max(2, case.columns // 2)
    image_ids = torch.randint(0, ids, (case.rows,), generator=generator)
    text_ids = torch.randint(0, ids, (case.columns,), generator=generator)
    return target, image_ids, text_ids
