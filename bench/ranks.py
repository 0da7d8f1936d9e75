"""Ranks of made-up test sets, five texts an image: the methods, their check, their contest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.cases import LATENT_WIDTH, TEXTS_PER_IMAGE, Effort
from bench.contest import ContestResult, Lane, Tell, contest_among, quiet
from bench.lineup import GEMM, REFERENCE
from bench.methods import Runnable
from goal_kernels.backends.base import Call
from goal_kernels.backends.choice import find_backend, verdicts
from goal_kernels.backends.scores import RankCounts

NAIVE = "naive"
NAIVE_BLOCK = 1000
NAIVE_SLACK = 1e-2
"""Mean counts may be off by this share: float32 products misorder pairs that are nearly equal."""


class RankCase(NamedTuple):
    """N images of width D, 5 N texts."""

    images: int
    width: int
    dtype: str = "float32"
    device: str = "cpu"

    def __str__(self) -> str:
        size = f"ranks-{self.images}x{TEXTS_PER_IMAGE * self.images}x{self.width}"
        return size if self.dtype == "float32" else f"{size}-{self.dtype}"


class RankInputs(NamedTuple):
    """image [N, D], text [M, D], rows of unit length; text_to_image int64 [M]."""

    image: Tensor
    text: Tensor
    text_to_image: Tensor


def make_rank_inputs(case: RankCase) -> RankInputs:
    """Embeddings of a half-trained model, as `bench.cases.make_inputs`."""
    generator = torch.Generator().manual_seed(case.images * 100_003 + case.width)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    owner = torch.arange(TEXTS_PER_IMAGE * case.images) // TEXTS_PER_IMAGE
    latent = F.normalize(normal(case.images, LATENT_WIDTH), dim=1)
    noise = F.normalize(normal(len(owner), LATENT_WIDTH), dim=1)
    basis = normal(LATENT_WIDTH, case.width)
    detail = 0.3 * LATENT_WIDTH**-0.5
    image = latent @ basis + detail * normal(case.images, case.width)
    text = (latent[owner] + noise) @ basis + detail * normal(len(owner), case.width)
    where = {"device": case.device, "dtype": getattr(torch, case.dtype)}
    image, text = (F.normalize(x, dim=1).to(**where) for x in (image, text))
    return RankInputs(image, text, owner.to(case.device))


def naive_counts(image: Tensor, text: Tensor, text_to_image: Tensor) -> tuple[Tensor, Tensor]:
    """Better wrong candidates of images [N] and texts [M] by float32 blocks of `X @ Y.T`."""
    positive = (image[text_to_image] * text).sum(dim=1)
    best = positive.new_full((len(image),), float("-inf"))
    best = best.scatter_reduce(0, text_to_image, positive, "amax")
    of_images, of_texts = [], torch.zeros(len(text), dtype=torch.int64)
    for first in range(0, len(image), NAIVE_BLOCK):
        score = image[first : first + NAIVE_BLOCK] @ text.T
        number = torch.arange(first, first + len(score))
        score[number[:, None] == text_to_image] = float("-inf")
        of_images.append((score > best[number, None]).sum(dim=1))
        of_texts += (score > positive).sum(dim=0)
    return torch.cat(of_images), of_texts


def _product(image: Tensor, text: Tensor, text_to_image: Tensor) -> Tensor:
    return image @ text.T


@dataclass
class Ranker(Runnable):
    """One way to rank, ready to run."""

    inputs: RankInputs
    function: Callable[..., object]

    def run(self) -> object:
        return self.function(*self.inputs)

    def verify(self, expected: RankCounts) -> None:
        """Raise AssertionError unless the counts are those of the reference, or near them."""
        found = self.run()
        if isinstance(found, RankCounts):
            for name, got, wanted in zip(found._fields, found, expected, strict=True):
                assert name == "positive" or torch.equal(got, wanted), f"{name} differ"
        elif isinstance(found, tuple):
            exacts = (expected.image_better, expected.text_better)
            for counts, exact in zip(found, exacts, strict=True):
                mean, right = counts.double().mean().item(), exact.double().mean().item()
                assert abs(mean - right) <= NAIVE_SLACK * right, f"mean count {mean}, not {right}"


def rankers(case: RankCase) -> dict[str, Callable[..., object]]:
    """Methods that can rank here, by name."""
    call = Call(case.device, getattr(torch, case.dtype), "high", case.device == "cpu")
    found: dict[str, Callable[..., object]] = {GEMM: _product}
    found |= {b.name: b.rank for b, able in verdicts(call) if able.ok and b.ranks}
    if case.device == "cpu":
        return {**found, NAIVE: naive_counts}
    del found[REFERENCE]  # written to be read: minutes
    return found


def hold_rank_contest(
    case: RankCase, effort: Effort, tell: Tell = quiet, without: Sequence[str] = ()
) -> ContestResult:
    """All rankers of a case in turns, after their counts were compared with the reference's."""
    inputs = make_rank_inputs(case)
    expected = find_backend(REFERENCE).rank(*inputs)
    functions = rankers(case)

    def make(name: str) -> Lane:
        ranker = Ranker(inputs, functions[name])
        ranker.verify(expected)
        return Lane(name, [ranker])

    names = [name for name in functions if name not in without]
    return contest_among(names, make, effort, case.device, tell)
