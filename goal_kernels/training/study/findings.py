"""Sentences about a study that follow from its numbers by rule."""

from __future__ import annotations

from collections.abc import Sequence

from goal_kernels.training.compare.contestants import Contestant, compare_with
from goal_kernels.training.compare.statistics import Comparison, compare_values, p_text
from goal_kernels.training.study.gathered import MARGINAL, Gathered, grid_of, plain_label

LEVEL = 0.05  # of tests, after Holm's correction
NEAR_CHANCE = 3.0  # an rsum below this many times chance is called untrained


def findings(gathered: Gathered) -> list[str]:
    """What separates and what does not, a sentence each."""
    main, baseline = gathered.main, gathered.baseline
    tests = compare_with(baseline, main)
    sentences = [_range(main), *_against(baseline, main, tests)]
    against_best = compare_with(main[0], main)
    equal = [c.label for c in main[1:] if not separates(against_best.get(c.label))]
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
    separate = [c.label for c in others if separates(tests.get(c.label))]
    better = [label for label in separate if tests[label].test.difference > 0]
    worse = [label for label in separate if tests[label].test.difference < 0]
    rest = [c.label for c in others if c.label not in separate]
    exact = [label for label, test in tests.items() if (test.holm_exact or 1.0) <= LEVEL]
    most = [c for c in tests.values() if c.test.p_exact <= 2 / 2**c.test.pairs]
    return [
        f"Better than `{baseline.label}` (t-test, Holm, {LEVEL}): {named(better)}.",
        f"Worse than `{baseline.label}`: {named(worse)}.",
        f"Not told apart from `{baseline.label}`: {named(rest)}.",
        f"By the exact test after Holm's correction: {named(exact)}. For {len(most)} of "
        f"{len(tests)} the difference has one sign in all seeds, which is the most it can see.",
    ]


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
        pairs = {name: (values, rsums[base]) for name, values in rsums.items() if name != base}
        parts = [
            f"`{name}` {found.test.difference:+.1f}{_interval(found)}"
            for name, found in compare_values(pairs).items()
        ]
        sentences.append(
            f"Averaged over {other} weights, against {kind} weight `{base}`: {', '.join(parts)}."
        )
    return sentences


def _interval(found: Comparison) -> str:
    """What is known of a mean difference, in brackets; "" for one seed."""
    if found.test.interval is None:
        return ""
    return f" ({found.test.interval_text}, p {p_text(found.holm_student)} by t-test and Holm)"


def separates(found: Comparison | None) -> bool:
    """Whether the t-test tells two apart after Holm's correction."""
    return found is not None and found.holm_student is not None and found.holm_student <= LEVEL


def _untrained(name: str, contestants: Sequence[Contestant]) -> str:
    """Which contestants of a group ended near chance."""
    near = []
    for contestant in contestants:
        chance = next(iter(contestant.runs.values())).references.get("chance")
        if chance and contestant.summary("rsum")[0] <= NEAR_CHANCE * chance["rsum"]:
            near.append(plain_label(contestant.label, name))
    return (
        f"{name.capitalize()}: {len(near)} of {len(contestants)} end within {NEAR_CHANCE:g} times "
        f"the rsum of chance" + (f": {named(near)}." if len(near) < len(contestants) else ".")
    )


def named(labels: Sequence[str]) -> str:
    """Labels in a sentence."""
    return ", ".join(f"`{label}`" for label in labels) or "none"
