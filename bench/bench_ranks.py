"""Retrieval ranks of a test set, five texts an image: the backends and what users write.

Run with `python -m bench`, which keeps its times in the raw JSON only, or alone with a table:

    python -m pytest -c bench/pytest.ini bench/bench_ranks.py -o addopts= --suite full
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.cases import Effort
from bench.contest import Samples, take_turns
from bench.rank_inputs import RankCase, RankInputs, make_rank_inputs
from bench.replay import ReplayClock
from goal_kernels.backends import find_backend, verdicts
from goal_kernels.backends.scores import RankCounts

CLOCK = ReplayClock()
NAIVE = "naive"
EFFORT = Effort(6.0, 3, 15)
"""The reference takes tens of seconds for the largest case."""

NAIVE_BLOCK = 1000
NAIVE_SLACK = 1e-2
"""Mean counts may be off by this share: float32 products misorder pairs that are nearly equal."""


CASES = {
    "smoke": (RankCase(64, 32),),
    # The 1k and 5k test splits of the field.
    "quick": (RankCase(1000, 1024),),
    "full": (RankCase(1000, 1024), RankCase(5000, 1024)),
}


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


@dataclass
class Ranker:
    """One way to rank, ready to run."""

    inputs: RankInputs
    function: Callable[..., object]

    def reset(self) -> None:
        """It leaves nothing behind."""

    def run(self) -> object:
        return self.function(*self.inputs)

    def verify(self, expected: RankCounts) -> None:
        """Raise AssertionError unless the counts are those of the reference, or near them."""
        found = self.run()
        if isinstance(found, RankCounts):
            assert all(torch.equal(a, b) for a, b in zip(found[1:], expected[1:], strict=True))
            return
        assert isinstance(found, tuple)
        for counts, exact in zip(found, (expected.image_better, expected.text_better), strict=True):
            means = counts.double().mean().item(), exact.double().mean().item()
            assert means[0] == pytest.approx(means[1], rel=NAIVE_SLACK)


def rankers() -> list[str]:
    """Who can rank here."""
    ranking = (b.name for b, able in verdicts() if able.ok and b.ranks)
    return [*ranking, NAIVE]


def make_ranker(name: str, inputs: RankInputs) -> Ranker:
    """The ranker of that name."""
    return Ranker(inputs, naive_counts if name == NAIVE else find_backend(name).rank)


@lru_cache(maxsize=1)
def hold_rank_contest(case: RankCase) -> dict[str, Samples]:
    """All rankers of a case in turns, after their results were compared with the reference's."""
    inputs = make_rank_inputs(case)
    contestants = {name: make_ranker(name, inputs) for name in rankers()}
    expected = find_backend("reference").rank(*inputs)
    for contestant in contestants.values():
        contestant.verify(expected)
    return take_turns(contestants, EFFORT, "cpu")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per case and ranker, on the CPU only."""
    cases = CASES[metafunc.config.getoption("suite")]
    if metafunc.config.getoption("device") != "cpu":
        cases = ()
    metafunc.parametrize("rank_case", cases, ids=str)
    metafunc.parametrize("ranker", rankers())


@pytest.mark.benchmark(timer=CLOCK)
def bench_ranks(rank_case: RankCase, ranker: str, benchmark: Any) -> None:
    """Fails, and reports no time, when a ranker's counts are wrong."""
    samples = hold_rank_contest(rank_case)[ranker]
    benchmark.group = str(rank_case)
    CLOCK.replay(benchmark, samples.wall)
