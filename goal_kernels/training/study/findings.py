"""Sentences about a study that follow from its numbers by rule."""

from __future__ import annotations

from collections.abc import Sequence

from goal_kernels.training.compare.contestants import Comparison, Contestant, compare_with
from goal_kernels.training.compare.statistics import PairedTest, holm, p_text, paired_test
from goal_kernels.training.study.gathered import MARGINAL, Gathered, grid_of, plain_label

LEVEL = 0.05  # of tests, after Holm's correction
NEAR_CHANCE = 3.0  # an rsum below this many times chance is called untrained


def findings(gathered: Gathered) -> list[str]:
    """What separates and what does not, a sentence each."""
    main, baseline = gathered.main, gathered.baseline
    tests = compare_with(baseline, main)
    sentences = [_range(main), *_against(baseline, main, tests)]
    against_best = compare_with(main[0], main)
    equal = [c.label for c in main[1:] if not _separates(against_best[c.label])]
    sentences.append(
        f"Not told apart from the best, `{main[0].label}`, by the t-test: {named(equal)}."
    )
    sentences += _weights(gathered)
    sentences += [_untrained(name, group) for name, group in gathered.others.items()]
    return sentences


def _range(main: Sequence[Contestant]) -> str:
    means = [contestant.summary("rsum")[0] for contestant in main]
    deviations = [d for c in main if (d := c.summary("rsum")[1]) is not None]
    spread = (
        f" The standard deviation over seeds is {sorted(deviations)[len(deviations) // 2]:.1f} "
        f"for the median contestant, {max(deviations):.1f} for the most variable."
        if deviations
        else ""
    )
    return (
        f"Mean rsums reach from {means[-1]:.1f} (`{main[-1].label}`) to {means[0]:.1f} "
        f"(`{main[0].label}`).{spread}"
    )


def _against(
    baseline: Contestant, main: Sequence[Contestant], tests: dict[str, Comparison]
) -> list[str]:
    """Who is better and worse than the baseline, and what the exact test can say."""
    others = [c for c in main if c.label != baseline.label]
    separate = [c for c in others if _separates(tests[c.label])]
    better = [c.label for c in separate if _difference(tests[c.label]) > 0]
    worse = [c.label for c in separate if _difference(tests[c.label]) < 0]
    rest = [c.label for c in others if c not in separate]
    exact = [c.label for c in others if (tests[c.label].holm_exact or 1.0) <= LEVEL]
    return [
        f"Better than `{baseline.label}` (t-test, Holm, {LEVEL}): {named(better)}.",
        f"Worse than `{baseline.label}`: {named(worse)}.",
        f"Not told apart from `{baseline.label}`: {named(rest)}.",
        f"By the exact test after Holm's correction: {named(exact)}. " + _one_sided(others, tests),
    ]


def _one_sided(others: Sequence[Contestant], tests: dict[str, Comparison]) -> str:
    """For how many contestants the exact test found all it can find."""
    known = [test for c in others if (test := tests[c.label].test) is not None]
    most = [test for test in known if test.p_exact <= 2 / 2**test.pairs]
    return (
        f"For {len(most)} of {len(known)} the difference has one sign in all seeds, which is the "
        "most it can see."
    )


def _weights(gathered: Gathered) -> list[str]:
    """Each triplet and pair weight against the baseline's, averaged over the other kind."""
    grid = grid_of(gathered.main)
    triplet, _, pair = gathered.baseline.label.partition("/")
    if grid is None or triplet not in grid.triplets or pair not in grid.pairs:
        return []
    kinds = (
        ("triplet", "pair", triplet, {t: grid.values[t, MARGINAL] for t in grid.triplets}),
        ("pair", "triplet", pair, {p: grid.values[MARGINAL, p] for p in grid.pairs}),
    )
    sentences = []
    for kind, other, base, rsums in kinds:
        names = [name for name in rsums if name != base]
        tests = [
            paired_test([rsums[name][seed] - value for seed, value in rsums[base].items()])
            for name in names
        ]
        corrected = holm([1.0 if t.p_student is None else t.p_student for t in tests])
        parts = [
            f"`{name}` {test.difference:+.1f}" + _interval(test, p)
            for name, test, p in zip(names, tests, corrected, strict=True)
        ]
        sentences.append(
            f"Averaged over {other} weights, against {kind} weight `{base}`: {', '.join(parts)}."
        )
    return sentences


def _interval(test: PairedTest, corrected: float) -> str:
    """What is known of a mean difference, in brackets; "" for one seed."""
    if test.interval is None:
        return ""
    low, high = test.interval
    return f" ({low:+.1f} to {high:+.1f}, p {p_text(corrected)} by t-test and Holm)"


def _separates(comparison: Comparison) -> bool:
    return comparison.holm_student is not None and comparison.holm_student <= LEVEL


def _difference(comparison: Comparison) -> float:
    assert comparison.test is not None  # only tested ones separate
    return comparison.test.difference


def _untrained(name: str, contestants: Sequence[Contestant]) -> str:
    """Which contestants of a group ended near chance."""
    near = []
    for contestant in contestants:
        run = next(iter(contestant.runs.values()))
        if run.chance and contestant.summary("rsum")[0] <= NEAR_CHANCE * run.chance["rsum"]:
            near.append(plain_label(contestant.label, name))
    return (
        f"{name.capitalize()}: {len(near)} of {len(contestants)} end within {NEAR_CHANCE:g} times "
        f"the rsum of chance" + (f": {named(near)}." if len(near) < len(contestants) else ".")
    )


def named(labels: Sequence[str]) -> str:
    """Labels in a sentence."""
    return ", ".join(f"`{label}`" for label in labels) or "none"
