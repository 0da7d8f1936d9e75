"""Ranking as literal loops over float64 products, and inputs that are hard to rank.

Inputs are (image [N, D], text [M, D], owner int64 [M]).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from goal_kernels.backends.reference_rank import rank_blocks
from goal_kernels.backends.scores import RankCounts

Inputs = tuple[Tensor, Tensor, Tensor]

NAN, INF = float("nan"), float("inf")


def comparable(score: float) -> float:
    return -INF if math.isnan(score) else min(score, torch.finfo(torch.float32).max)


def ranked_literally(image: Tensor, text: Tensor, owner: Tensor) -> list[list[float]]:
    """`RankCounts` as lists, pair by pair. image [N, D], text [M, D], owner [M]."""
    raw = (image.cpu().double() @ text.cpu().double().T).float().tolist()
    score = [[comparable(s) for s in row] for row in raw]
    owners = owner.tolist()
    texts, images = range(len(text)), range(len(image))
    best = [max([score[i][j] for j in texts if owners[j] == i], default=-INF) for i in images]
    wrong = [[j for j in texts if owners[j] != i] for i in images]
    others = [[i for i in images if i != owners[j]] for j in texts]
    own = [score[owners[j]][j] for j in texts]
    return [
        [raw[owners[j]][j] for j in texts],
        [sum(score[i][j] > best[i] for j in wrong[i]) for i in images],
        [sum(score[i][j] == best[i] for j in wrong[i]) for i in images],
        [sum(score[i][j] > own[j] for i in others[j]) for j in texts],
        [sum(score[i][j] == own[j] for i in others[j]) for j in texts],
    ]


def assert_equal(found: RankCounts, expected: RankCounts) -> None:
    for name, a, b in zip(RankCounts._fields, found, expected, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a.cpu().nan_to_num(7.5), b.cpu().nan_to_num(7.5)), name


def random_owner(images: int, texts: int) -> Tensor:
    generator = torch.Generator().manual_seed(texts)
    return torch.randint(images, (texts,), generator=generator)


def embeddings(images: int, texts: int, width: int, dtype: torch.dtype):
    """Texts near their images, any number per image, none included. Returns image, text, owner."""
    owner = random_owner(images, texts)
    image = torch.randn(images, width)
    return image.to(dtype), (image[owner] + 2 * torch.randn(texts, width)).to(dtype), owner


def one_step_apart(steps: int) -> Inputs:
    """Two neighbouring float32 scores, and what rounds to either; steps: 1 or -1."""
    score = torch.tensor(1.0 / 3.0)
    near = torch.nextafter(score, torch.tensor(float(steps)))
    parts = torch.tensor([[score, 0], [near, 0], [score, score * 2**-26], [score, near - score]])
    return torch.ones(3, 2), parts.repeat(3, 1), torch.arange(12) // 4


def broken_rows(dtype: torch.dtype) -> Inputs:
    """Some rows of NaN and of infinities, positives among them."""
    image, text, owner = embeddings(130, 160, 9, dtype)
    image[3], image[7, 2], image[9] = NAN, INF, -INF
    text[5], text[11, 4], text[150] = NAN, -INF, INF
    owner[20:24] = torch.tensor([3, 7, 9, 9])
    return image, text, owner


def extreme_rows() -> Inputs:
    """Products that overflow or vanish in float32 but not in float64."""
    image, text, owner = embeddings(40, 90, 6, torch.float32)
    image[:10] *= 1e30
    text[owner < 10] *= 1e-30
    text[4:8] *= 1e25
    image[20:] *= 1e-30
    text[30:40] *= 1e-12
    return image, text, owner


def near_ties(distance: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Copies of a few texts, moved by about `distance` of their length."""

    def normal(*shape: int) -> Tensor:
        return F.normalize(torch.randn(*shape, dtype=torch.float64), dim=1)

    image, text = normal(24, 900), normal(4, 900).repeat(30, 1)
    image = (image + text[:24]).to(dtype)
    return image, (text + distance * normal(120, 900)).to(dtype), torch.arange(120) % 24


def hasty(image: Tensor, text: Tensor, owner: Tensor) -> RankCounts:
    """Counts by the product in float32 that its order of summation happens to give."""
    identity = torch.eye(len(text))
    return rank_blocks(image.float() @ text.float().T, identity, owner)


def misordered(found: RankCounts, expected: RankCounts) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(found[1:], expected[1:], strict=True))


def same_numbers_elsewhere(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Texts of the same numbers in other places score the same with a constant image."""
    numbers = (torch.rand(1500) + 0.5).to(dtype)
    text = torch.stack([numbers[torch.randperm(1500)] for _ in range(60)])
    return torch.ones(20, 1500, dtype=dtype), text, torch.arange(60) // 3


def cut(value: float, largest: float, bits: int = 24) -> float:
    """A number cut, towards zero, to the places that `bits` bits of the largest one have."""
    if largest == 0:
        return 0.0
    unit = 2.0 ** (math.frexp(largest)[1] - bits)
    return math.trunc(value / unit) * unit


def cut_sum(products: list[float], step: int) -> float:
    """The worst that a tensor core may make of a sum: `step` products at a time, each cut."""
    total = 0.0
    for start in range(0, len(products), step):
        terms = [total, *products[start : start + step]]
        largest = max(map(abs, terms))
        total = math.fsum(cut(term, largest) for term in terms)
        total = cut(total, abs(total))
    return total
