"""The statistics of small paired samples: exact permutation test, t interval, Holm's correction.

Sources: Fisher, The Design of Experiments (1935), section 21, for the sign-flip permutation test;
Abramowitz & Stegun (1964), 26.7.3 and 26.7.4, for Student's distribution; Holm, A Simple
Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6 (1979).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_EXACT = 20  # differences: 2^20 sign patterns take a tenth of a second, in 8 MB
DRAWN_FLIPS = 1 << 16  # sign patterns drawn when there are too many to list
CONFIDENCE = 0.95  # of intervals
ROUNDING = 1e-9  # relative; sums that differ by less are equal, since they are sums in float64


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and sample standard deviation (n - 1), which one value does not have.

    Raises: ValueError when there are no values.
    """
    if not values:
        raise ValueError("values: expected at least one, got none")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def sign_flip_p_value(differences: Sequence[float]) -> float:
    """Two-sided paired permutation test of "the differences are symmetric about 0".

    Equals: the share of the 2^n ways to choose the signs of the differences whose sum is at least
    as far from 0 as the one observed. So no p-value is below 2 / 2^n: 0.0625 for 5 differences.
    Beyond 20 differences the signs are drawn, with a fixed seed, and p is (hits + 1) / (draws + 1).

    Args:
        differences: n >= 1 finite numbers, one a pair.
    Returns: p in (0, 1].
    """
    given = np.abs(np.asarray(differences, dtype=np.float64))
    if given.ndim != 1 or not len(given) or not np.isfinite(given).all():
        raise ValueError(f"differences: expected finite numbers, at least one, got {differences!r}")
    observed = abs(math.fsum(differences)) - ROUNDING * float(given.sum())
    if len(given) > MOST_EXACT:
        generator = np.random.default_rng(0)
        hits = 0
        for _ in range(16):  # in parts, so that memory stays small
            signs = 1 - 2 * generator.integers(0, 2, (DRAWN_FLIPS // 16, len(given)))
            hits += int((np.abs(signs @ given) >= observed).sum())
        return (hits + 1) / (DRAWN_FLIPS + 1)
    sums = np.zeros(1)
    for difference in given:
        sums = np.concatenate([sums + difference, sums - difference])
    return float((np.abs(sums) >= observed).mean())


def student_central(t: float, degrees: int) -> float:
    """P(|T| <= t) for Student's T with `degrees` degrees of freedom, t >= 0: a finite sum."""
    theta = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(theta), math.cos(theta)
    if degrees % 2:
        term, total = cosine, 0.0
        for k in range(1, degrees - 1, 2):  # cos + 2/3 cos^3 + 2·4/(3·5) cos^5 + ...
            total += term
            term *= cosine * cosine * (k + 1) / (k + 2)
        return 2 / math.pi * (theta + sine * total)
    term, total = 1.0, 0.0
    for k in range(0, degrees - 1, 2):  # 1 + 1/2 cos^2 + 1·3/(2·4) cos^4 + ...
        total += term
        term *= cosine * cosine * (k + 1) / (k + 2)
    return sine * total


def student_p_value(t: float, degrees: int) -> float:
    """Two-sided p-value of a t statistic, in [0, 1]."""
    return max(0.0, 1.0 - student_central(abs(t), degrees))


def student_quantile(confidence: float, degrees: int) -> float:
    """The t with P(|T| <= t) = `confidence`, in (0, 1); `degrees` of freedom, >= 1."""
    low, high = 0.0, 1.0
    while student_central(high, degrees) < confidence:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if student_central(middle, degrees) < confidence:
            low = middle
        else:
            high = middle
    return high


@dataclass(frozen=True)
class PairedTest:
    """A contestant against the baseline, over the seeds that both have.

    Attributes:
        pairs: number of seeds n.
        difference: mean of contestant - baseline.
        interval: the 95 % one of that mean by Student's t, which takes the differences for normal;
            None for one pair.
        p_exact: of `sign_flip_p_value`, which takes them for symmetric only.
        p_student: of the paired t-test; None for one pair.
    """

    pairs: int
    difference: float
    interval: tuple[float, float] | None
    p_exact: float
    p_student: float | None

    @property
    def interval_text(self) -> str:
        """The interval for people; nothing where there is none."""
        return "" if self.interval is None else "{:+.1f} to {:+.1f}".format(*self.interval)

    @property
    def text(self) -> str:
        """The difference for people, with the interval in brackets."""
        return f"{self.difference:+.1f}" + (f" ({self.interval_text})" if self.interval else "")


def paired_test(differences: Sequence[float]) -> PairedTest:
    """Both paired tests and the interval of n >= 1 differences."""
    n = len(differences)
    mean, deviation = mean_and_deviation(differences)
    exact = sign_flip_p_value(differences)
    if deviation is None:
        return PairedTest(n, mean, None, exact, None)
    error = deviation / math.sqrt(n)  # standard error of the mean
    reach = student_quantile(CONFIDENCE, n - 1) * error
    if error == 0:
        p_student = 1.0 if mean == 0 else 0.0
    else:
        p_student = student_p_value(mean / error, n - 1)
    return PairedTest(n, mean, (mean - reach, mean + reach), exact, p_student)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given.

    Rejecting those <= alpha keeps the probability of any false rejection among the family at alpha
    or below, whatever the dependence between the tests.

    Equals: for the i-th smallest of m (from 0) the largest (m - j) p_(j) over j <= i, at most 1.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


@dataclass(frozen=True)
class Comparison:
    """One test of a family.

    Attributes:
        test: uncorrected.
        holm_exact, holm_student: p-values after Holm's correction over the family; None where the
            test has none.
    """

    test: PairedTest
    holm_exact: float | None
    holm_student: float | None


def compare_values(
    pairs: Mapping[str, tuple[Mapping[Any, float], Mapping[Any, float]]],
) -> dict[str, Comparison]:
    """A family of paired tests, by name: of what is subtracted from what.

    Args:
        pairs: two series of values by seed or run; a pair that has none in common is not tested.
    """
    differences = {
        name: [value - its[seed] for seed, value in own.items() if seed in its]
        for name, (own, its) in pairs.items()
    }
    tests = {name: paired_test(found) for name, found in differences.items() if found}
    exact = _corrected({name: test.p_exact for name, test in tests.items()})
    student = _corrected({name: test.p_student for name, test in tests.items()})
    return {
        name: Comparison(test, exact.get(name), student.get(name)) for name, test in tests.items()
    }


def _corrected(p_values: Mapping[str, float | None]) -> dict[str, float]:
    """Holm's correction over those that are known."""
    known = {name: p for name, p in p_values.items() if p is not None}
    return dict(zip(known, holm(list(known.values())), strict=True))


def spread_text(values: Collection[float]) -> str:
    """Mean ± standard deviation with one digit; the mean of one value, nothing of none."""
    if not values:
        return ""
    mean, deviation = mean_and_deviation([*values])
    return f"{mean:.1f}" + ("" if deviation is None else f" ± {deviation:.1f}")


def p_text(value: float | None) -> str:
    """A p value for people; nothing for None."""
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
