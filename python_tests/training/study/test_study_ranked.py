"""The page of a study of models that score pairs: differences within seeds, of k within runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_results import made

from goal_kernels.training.compare.statistics import holm, p_text, paired_test
from goal_kernels.training.study.gathered import Gathered, gather
from goal_kernels.training.study.page import page_text
from goal_kernels.training.study.recipe import Group, StudyRecipe
from goal_kernels.training.study.results import result_path, write_result

MATCHED = {"recipe": (40.0, 41.0, 42.5), "plain": (30.0, 31.5, 32.0), "other": (40.5, 39.0, 44.0)}
"""t2i R@1 by seed; the head adds 2 everywhere, but takes 1, 2 and 3 from `plain`."""


def side(recall: float) -> dict:
    return dict.fromkeys(("R@1", "R@5", "R@10"), recall)


def record(matched: float, start: float) -> dict:
    """Of an evaluation: i2t is t2i and 10, siblings have twice as much, dual is 5 below `full`."""
    values = {"dual": start - 5, "reranked": start - 1, "full": start, "matched": matched}
    rankings = {name: {"i2t": side(v + 10), "t2i": side(v)} for name, v in values.items()}
    siblings = {name: {"i2t": 2 * v + 20, "t2i": 2 * v} for name, v in values.items()}
    return {"rankings": rankings, "siblings": {**siblings, "chance": {"i2t": 33.25, "t2i": 34.0}}}


@pytest.fixture
def gathered(tmp_path: Path) -> Gathered:
    (tmp_path / "base.yaml").write_text("data: {folder: made, batch_size: 4}\nmodel: {lr: 1}")
    groups = tuple(map(Group, MATCHED))
    base = str(tmp_path / "base.yaml")
    recipe = StudyRecipe("made", base, (0, 1, 2), groups, baseline="recipe")
    cells = recipe.cells()
    for cell in cells:
        matched = MATCHED[cell.label][cell.seed]
        found = record(matched, matched + 1 + cell.seed if cell.label == "plain" else matched - 2)
        if cell.label == "other":  # without late interaction
            for table in found.values():
                del table["full"], table["reranked"]
        metrics = {**found["rankings"]["matched"], "rsum": 6 * matched}
        chance = {"i2t": side(0.1), "t2i": side(0.1), "rsum": 3}
        trained = made(metrics, chance, **found)
        write_result(result_path(tmp_path / "results", cell), "made", cell, trained)
    (tmp_path / "evaluations").mkdir()
    for k, gain in ((2, 0.8), (16, 3.0)):
        for run in range(3):
            found = record(30 + run + gain * (1 + run / 10), 30.0 + run)
            found["rankings"] = {"plain": found["rankings"]}
            found |= {"scoring": {"matching": {"rerank": k}}, "inputs": [f"runs/{run}"]}
            (tmp_path / "evaluations" / f"{k}-{run}.json").write_text(json.dumps(found))
    return gather(recipe, cells, tmp_path / "results")


def rows(text: str, first: str) -> list[list[str]]:
    """Cells of the table lines that begin with a label."""
    lines = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [[cell.strip() for cell in line.strip("|").split("|")][1:] for line in lines]


def test_rankings_stand_side_by_side(gathered: Gathered) -> None:
    text = page_text(gathered, {})
    i2t, t2i = (r for r in rows(text, "plain") if len(r) == 8)
    assert t2i[:4] == ["28.2 ± 2.0", "32.2 ± 2.0", "33.2 ± 2.0", "31.2 ± 1.0"]
    assert t2i[4:] == ["56.3 ± 4.0", "64.3 ± 4.0", "66.3 ± 4.0", "62.3 ± 2.1"]
    assert i2t[3] == "41.2 ± 1.0"
    [other] = [r for r in rows(text, "other") if len(r) == 8][1:]
    assert other[1:3] == ["", ""]
    assert [r for r in rows(text, "chance") if len(r) == 8] == [
        ["0.1"] * 4 + ["33.2"] * 4,
        ["0.1"] * 4 + ["34.0"] * 4,
    ]


def test_parts_are_compared_within_seeds(gathered: Gathered) -> None:
    text = page_text(gathered, {})
    tests = [
        paired_test([a - b for a, b in zip(MATCHED[name], MATCHED["recipe"], strict=True)])
        for name in ("plain", "other")
    ]
    p_values = holm([test.p_student for test in tests])
    [plain] = [r for r in rows(text, "plain") if len(r) == 6]
    interval = "({:+.1f} to {:+.1f})".format(*tests[0].interval)
    assert plain[:2] == [f"-10.0 {interval}", p_text(p_values[0])]
    assert plain[4] == "-2.0 ({:+.1f} to {:+.1f})".format(*paired_test([-1, -2, -3]).interval)
    [other] = [r for r in rows(text, "other") if len(r) == 6]
    assert other[4].startswith("+7.0"), "against dual, where there is no full"
    assert (
        "- t2i R@1 of `matched` against `recipe`: higher (t-test, Holm, 0.05) none; lower `plain`; "
        "not told apart `other`."
    ) in text
    assert (
        "- `matched` against the ranking that the head begins with: higher (t-test, Holm, 0.05) "
        "`recipe`, `other`; lower none; not told apart `plain`."
    ) in text


def test_k_is_compared_within_runs(gathered: Gathered) -> None:
    text = page_text(gathered, {})
    [none], [two], [most] = rows(text, "0"), rows(text, "2"), rows(text, "16")
    assert none[:4] == ["3", "", "41.0 ± 1.0", "31.0 ± 1.0"]
    low, high = paired_test([0.8, 0.88, 0.96]).interval
    assert two[4] == f"+0.9 ({low:+.1f} to {high:+.1f})"
    assert two[8] == f"+1.8 ({2 * low:+.1f} to {2 * high:+.1f})"
    assert most[1] == "30.0 ± 1.0"
    assert most[3] == "34.3 ± 1.3"
    assert most[7] == "68.6 ± 2.6"
    assert "each k against the one before it: higher (t-test, Holm, 0.05) `2`, `16`;" in text


def test_other_studies_have_none_of_it(gathered: Gathered, tmp_path: Path) -> None:
    for result in gathered.results:
        del result.result["rankings"]
    plain = Gathered(gathered.recipe, gathered.cells, gathered.results)
    assert "every ranking" not in page_text(plain, {})
    assert "re-ranked" not in page_text(plain, {})
