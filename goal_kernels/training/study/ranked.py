"""What the page of a study of models that score pairs shows: every ranking, siblings, and k."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from goal_kernels.retrieval.metrics import DIRECTIONS
from goal_kernels.terminal import markdown_table
from goal_kernels.training.compare.statistics import (
    Comparison,
    compare_values,
    p_text,
    spread_text,
)
from goal_kernels.training.rankings import MATCHED
from goal_kernels.training.study.findings import LEVEL, named, separates
from goal_kernels.training.study.gathered import Gathered

RANKINGS = ("dual", "reranked", "full", MATCHED)
Values = dict[str, dict[Any, float]]
"""R@1 in percent by label, and by seed or run."""


def ranked_sections(gathered: Gathered) -> Iterator[str]:
    """The parts of the page that only such a study has."""
    if any("rankings" in result.result for result in gathered.results):
        yield "### R@1 of every ranking\n\n" + "\n".join(
            _rankings(gathered, direction) for direction in DIRECTIONS
        )
        if matched := recalls_at_1(gathered, MATCHED, "t2i", False):
            yield "### What each part brings\n\n" + _parts(gathered, matched)
    if gathered.evaluations:
        yield "### How many are re-ranked\n\n" + _reranked(gathered.evaluations)


def recalls_at_1(gathered: Gathered, ranking: str, direction: str, siblings: bool) -> Values:
    """Of all candidates, or of siblings; without the contestants that lack the ranking."""
    found: Values = {}
    for result in gathered.results:
        table = result.result.get("siblings" if siblings else "rankings", {}).get(ranking)
        if table is not None:
            value = table[direction] if siblings else table[direction]["R@1"]
            found.setdefault(result.header["label"], {})[result.header["seed"]] = value
    return found


def _rankings(gathered: Gathered, direction: str) -> str:
    """A row a contestant, rankings side by side."""
    columns = [
        recalls_at_1(gathered, ranking, direction, siblings)
        for siblings in (False, True)
        for ranking in RANKINGS
    ]
    heads = [*RANKINGS, *(f"{ranking}, siblings" for ranking in RANKINGS)]
    rows = [
        [label, *(spread_text(column.get(label, {}).values()) for column in columns)]
        for label in (contestant.label for contestant in gathered.main)
    ]
    first = gathered.results[0].result
    chance = [first["chance"][direction]["R@1"]]
    if "siblings" in first:
        chance.append(first["siblings"]["chance"][direction])
    rows.append(["chance", *(f"{value:.1f}" for value in chance for _ in RANKINGS)])
    return markdown_table([f"{direction} R@1", *heads], rows) + "\n"


def _parts(gathered: Gathered, matched: Values) -> str:
    """Differences within seeds, a row a contestant, and what they say."""
    base = gathered.baseline.label
    labels = [contestant.label for contestant in gathered.main if contestant.label in matched]
    siblings = recalls_at_1(gathered, MATCHED, "t2i", True)
    dual, full = (recalls_at_1(gathered, ranking, "t2i", False) for ranking in ("dual", "full"))
    changed, confused = (
        compare_values({n: (of.get(n, {}), of.get(base, {})) for n in labels if n != base})
        for of in (matched, siblings)
    )
    head = compare_values(
        {label: (matched[label], full.get(label, dual[label])) for label in labels}
    )
    rows = [
        [label, *(x for tests in (changed, confused, head) for x in _cells(tests.get(label)))]
        for label in labels
    ]
    lines = [
        "Differences of t2i R@1 within seeds, with the 95 % interval and p of the t-test, which is "
        f"corrected by Holm in each column: of `{MATCHED}` against `{base}`, among all and among "
        f"siblings, and of `{MATCHED}` against the ranking that the head begins with.\n",
        markdown_table(["", "Δ", "p", "Δ among siblings", "p", "Δ by the head", "p"], rows),
        "",
    ]
    for tests, what in (
        (changed, f"t2i R@1 of `{MATCHED}` against `{base}`"),
        (confused, "the same among siblings"),
        (head, f"`{MATCHED}` against the ranking that the head begins with"),
    ):
        lines.append(f"- {what}: {_verdict(tests)}")
    return "\n".join(lines) + "\n"


def _verdict(tests: Mapping[str, Comparison]) -> str:
    """Who is above, who below, and who is not told apart."""
    sure = {label: c.test.difference for label, c in tests.items() if separates(c)}
    rest = [label for label in tests if label not in sure]
    return (
        f"higher (t-test, Holm, {LEVEL}) {named([n for n, d in sure.items() if d > 0])}; lower "
        f"{named([n for n, d in sure.items() if d < 0])}; not told apart {named(rest)}."
    )


def _reranked(records: Sequence[Mapping[str, Any]]) -> str:
    """What k does: a row a k, of the runs that were evaluated with it."""
    by_k: dict[int, dict[str, Mapping[str, Any]]] = {}
    for record in records:
        by_k.setdefault(record["scoring"]["matching"]["rerank"], {})[record["inputs"][0]] = record
    heads = ["k", "runs", "`reranked`, t2i"]
    heads += [
        name for part in ("", ", siblings") for name in (f"i2t{part}", f"t2i{part}", "Δ", "p")
    ]
    text = (
        f"R@1 of `{MATCHED}`, the first k of `full` in the order of the head, and of `reranked`, "
        "the first k of `dual` in the order of the scores; of runs with all of the recipe's steps, "
        "evaluated by `eval RUN --rerank K --json FILE`. k 0: `full` itself. Δ: t2i "
        "against the row above within runs, with the 95 % interval and p of the t-test, which is "
        "corrected by Holm.\n"
    )
    rows: dict[int, tuple[str, Mapping[str, Mapping[str, Any]]]] = {
        0: ("full", by_k[max(by_k)]),
        **{k: (MATCHED, by_k[k]) for k in sorted(by_k)},
    }
    steps = list(zip(list(rows)[1:], rows, strict=False))
    tests = {}
    for siblings in (False, True):
        found = {k: _recalls(runs, name, "t2i", siblings) for k, (name, runs) in rows.items()}
        tests[siblings] = compare_values({str(k): (found[k], found[before]) for k, before in steps})
    table = []
    for k, (name, runs) in rows.items():
        cells = [str(k), str(len(runs))]
        cells.append(spread_text(_recalls(runs, "reranked", "t2i").values()) if k else "")
        for siblings, tested in tests.items():
            cells += [spread_text(_recalls(runs, name, d, siblings).values()) for d in DIRECTIONS]
            cells += _cells(tested.get(str(k)))
        table.append(cells)
    lines = [
        text,
        markdown_table(heads, table, 0),
        "",
        f"- t2i R@1 with each k against the one before it: {_verdict(tests[False])}",
        f"- the same among siblings: {_verdict(tests[True])}",
    ]
    return "\n".join(lines) + "\n"


def _recalls(
    runs: Mapping[str, Mapping[str, Any]], ranking: str, direction: str, siblings: bool = False
) -> dict[str, float]:
    """R@1 of a ranking by run, of `goal-kernels eval`'s records."""
    if siblings:
        return {run: record["siblings"][ranking][direction] for run, record in runs.items()}
    return {
        run: next(iter(record["rankings"].values()))[ranking][direction]["R@1"]
        for run, record in runs.items()
    }


def _cells(found: Comparison | None) -> list[str]:
    """A difference with its interval, and its p."""
    return ["", ""] if found is None else [found.test.text, p_text(found.holm_student)]
