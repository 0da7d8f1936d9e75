"""Statistics against brute force, published tables and another implementation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from goal_kernels.training.compare.statistics import (
    holm,
    mean_and_deviation,
    paired_test,
    sign_flip_p_value,
    student_p_value,
    student_quantile,
)


def flips_by_hand(differences: list[float]) -> float:
    """Every pattern of signs, one after the other; whole numbers, so that sums are exact."""
    observed = abs(sum(differences))
    patterns = list(itertools.product((1, -1), repeat=len(differences)))
    hits = [abs(sum(s * d for s, d in zip(p, differences, strict=True))) for p in patterns]
    return sum(hit >= observed for hit in hits) / len(patterns)


@pytest.mark.parametrize("n", range(1, 11))
def test_sign_flips_equal_brute_force(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(5):
        differences = rng.integers(-6, 9, n).tolist()
        assert sign_flip_p_value(differences) == flips_by_hand(differences)


def test_sign_flip_known_values() -> None:
    assert sign_flip_p_value([3.1, 2.0, 5.5, 0.1, 1.0]) == 0.0625  # the least for five pairs
    assert sign_flip_p_value([0.0, 0.0]) == 1.0
    assert sign_flip_p_value([0.1, 0.2, -0.3]) == 1.0  # a sum of 0 but for rounding
    # Darwin's maize, Fisher (1935), section 21: 863 of the 16,384 patterns with sums as large.
    darwin = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    assert sign_flip_p_value(darwin) == 2 * 863 / 2**15


def test_many_differences_are_drawn_and_agree_with_the_exact_test() -> None:
    rng = np.random.default_rng(0)
    differences = (rng.normal(size=20) + 0.4).tolist()
    # A pair without a difference changes nothing, but makes 21: one too many to be listed.
    drawn, exact = sign_flip_p_value([*differences, 0.0]), sign_flip_p_value(differences)
    assert drawn == sign_flip_p_value([*differences, 0.0])
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact / (1 << 16)))


@pytest.mark.parametrize("wrong", [[], [float("nan")], [1.0, float("inf")]])
def test_sign_flip_refuses(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="differences: expected finite"):
        sign_flip_p_value(wrong)


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    # Fisher & Yates' table at 5 %, two-sided.
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423)],
)
def test_student_quantiles_of_the_tables(degrees: int, quantile: float) -> None:
    assert student_quantile(0.95, degrees) == pytest.approx(quantile, abs=5e-5)
    assert student_p_value(-quantile, degrees) == pytest.approx(0.05, abs=5e-6)


def test_student_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for degrees in (1, 2, 3, 4, 5, 8, 17, 40):
        for t in (0.0, 0.3, 1.0, 2.5, 7.0, 25.0):
            expected = 2 * stats.t.sf(t, degrees)
            assert student_p_value(t, degrees) == pytest.approx(expected, rel=1e-7, abs=1e-13)
        for confidence in (0.5, 0.9, 0.95, 0.999):
            expected = stats.t.ppf((1 + confidence) / 2, degrees)
            assert student_quantile(confidence, degrees) == pytest.approx(expected, rel=1e-9)


def test_paired_test_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    differences = [2.0, 3.5, -1.0, 4.0, 2.5]
    test = paired_test(differences)
    expected = stats.ttest_1samp(differences, 0.0)
    interval = expected.confidence_interval(0.95)
    assert test.p_student == pytest.approx(expected.pvalue, rel=1e-9)
    assert test.interval == pytest.approx((interval.low, interval.high), rel=1e-9)
    exact = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", vectorized=False
    )
    assert test.p_exact == pytest.approx(exact.pvalue)
    assert (test.pairs, test.difference) == (5, 2.2)


def test_paired_test_of_few_or_equal_differences() -> None:
    one = paired_test([2.0])
    assert (one.interval, one.p_student, one.p_exact) == (None, None, 1.0)
    assert paired_test([1.0, 1.0]).p_student == 0.0
    assert paired_test([0.0, 0.0]).p_student == 1.0


def test_holm_known_values() -> None:
    # 4 x 0.005, 3 x 0.01, 2 x 0.03, 1 x 0.04 raised to the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_rejects_as_the_sequential_procedure() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        p_values = (rng.random(6) ** 3).round(3).tolist()
        rejected: set[int] = set()
        for rank, i in enumerate(sorted(range(6), key=lambda i: p_values[i])):
            if p_values[i] * (6 - rank) > 0.05:
                break
            rejected.add(i)
        assert {i for i, p in enumerate(holm(p_values)) if p <= 0.05} == rejected


def test_mean_and_deviation() -> None:
    assert mean_and_deviation([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]) == pytest.approx(
        (5.0, math.sqrt(32 / 7))
    )
    assert mean_and_deviation([3.0]) == (3.0, None)
    with pytest.raises(ValueError, match="values"):
        mean_and_deviation([])
