"""Which candidates become an anchor's negatives: what the option `negatives` takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from goal_kernels.backends.candidates import (
    HARDEST,
    PLAIN,
    SAMPLED,
    SEMI_HARD,
    SKIP_HARDEST,
    TOP_K,
    Selection,
)

WORDS = (HARDEST, SEMI_HARD)

ALL = "all"
"""Every candidate, averaged: `goal_loss` alone takes it, and mines nothing then."""


@dataclass(frozen=True)
class SkipHardest:
    """The hardest but `count` others: for noisy pairs, whose hardest negatives are often positives.

    count: how many of the hardest candidates are passed over, >= 1. An anchor with no more than
    these contributes nothing.
    """

    count: int

    def __post_init__(self) -> None:
        _check_count("SkipHardest", self.count)


@dataclass(frozen=True)
class TopK:
    """The `count` hardest, whose terms are averaged; an anchor with fewer has fewer. count: >= 1"""

    count: int

    def __post_init__(self) -> None:
        _check_count("TopK", self.count)


@dataclass(frozen=True)
class Sampled:
    """One candidate drawn with probability proportional to exp(S / temperature).

    The draw is a function of seed and pair of rows, whatever the backend, tiling and number of
    processes; give a new seed each step.

    temperature: > 0, a similarity; towards 0 the hardest, towards infinity any. seed: an integer.
    Source: matching heads of ALBEF (Li et al., NeurIPS 2021) draw negatives so.
    """

    temperature: float
    seed: int = 0

    def __post_init__(self) -> None:
        number = isinstance(self.temperature, int | float)
        if not number or not 0 < self.temperature < math.inf:
            raise ValueError(
                f"Sampled.temperature: expected a number in (0, inf), got {self.temperature!r}."
            )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise TypeError(f"Sampled.seed: expected an integer, got {self.seed!r}.")


Negatives: TypeAlias = "str | SkipHardest | TopK | Sampled"
"""What `negatives` takes: "hardest", "semi_hard", "all", or one of the classes above."""


NAMED = "hardest, semi_hard, skip:N, top:N or sampled:TEMPERATURE"


def named_negatives(name: str, option: str = "negatives") -> Negatives:
    """What configuration files write as "hardest", "semi_hard", "skip:2", "top:4", "sampled:0.05".

    Args: option: that was given the name.
    Raises: ValueError when it is none of them, or the number behind it is no good.
    """
    word, _, number = name.partition(":")
    if name in WORDS:
        return name
    try:
        match word:
            case "skip":
                return SkipHardest(int(number))
            case "top":
                return TopK(int(number))
            case "sampled":
                return Sampled(float(number))
    except ValueError as error:
        raise ValueError(f"{option}: expected {NAMED}, got {name!r} ({error})") from error
    raise ValueError(f"{option}: expected {NAMED}, got {name!r}")


def as_selection(
    negatives: Negatives, false_negative_margin: float | None, false_negative_ratio: float | None
) -> Selection:
    """The options as the backends take them. Raises: TypeError, ValueError naming the argument."""
    if negatives == HARDEST and false_negative_margin is None and false_negative_ratio is None:
        return PLAIN
    limits = [
        _limit("false_negative_margin", false_negative_margin),
        _limit("false_negative_ratio", false_negative_ratio),
    ]
    plan = Selection(margin=limits[0], ratio=limits[1])
    match negatives:
        case SkipHardest(count):
            return plan._replace(kind=SKIP_HARDEST, size=count)
        case TopK(count):
            return plan._replace(kind=TOP_K, size=count)
        case Sampled(temperature, seed):
            seed = (seed + (1 << 63)) % (1 << 64) - (1 << 63)
            return plan._replace(kind=SAMPLED, temperature=float(temperature), seed=seed)
        case str() if negatives in WORDS:
            return plan._replace(kind=negatives)
    raise ValueError(
        "negatives: expected 'hardest', 'semi_hard', gk.SkipHardest(r), gk.TopK(k) or "
        f"gk.Sampled(temperature, seed), got {negatives!r}."
    )


def _limit(name: str, value: float | None) -> float:
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected a number or None, got {value!r}.")
    if not 0 <= value < math.inf:
        raise ValueError(f"{name}: expected a number in [0, inf) or None, got {value!r}.")
    return float(value)


def _check_count(name: str, count: object) -> None:
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{name}: expected a number of negatives, got {count!r}.")
    if count < 1:
        raise ValueError(f"{name}: expected at least 1, got {count}.")
