"""The page: its numbers are those of the result files, its sentences follow from them by rule."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_results import made

from goal_kernels.training.compare.statistics import p_text, paired_test
from goal_kernels.training.study.findings import findings
from goal_kernels.training.study.gathered import MARGINAL, Gathered, gather, grid_of
from goal_kernels.training.study.page import page_text
from goal_kernels.training.study.plots import curve, draw_all
from goal_kernels.training.study.recipe import Group, StudyRecipe
from goal_kernels.training.study.results import (
    is_finished,
    read_result,
    result_path,
    write_result,
)

TRIPLETS, PAIRS = ("nca", "hinge"), ("constant", "linear")
OBJECTIVES = tuple(f"{t}/{p}" for t in TRIPLETS for p in PAIRS)
EFFECT = {"nca/constant": 0, "nca/linear": 30, "hinge/constant": 1, "hinge/linear": -40}


def metrics(rsum: float) -> dict:
    part = dict.fromkeys(("R@1", "R@5", "R@10"), rsum / 6)
    return {"i2t": part, "t2i": part, "rsum": rsum}


@pytest.fixture
def recipe(tmp_path: Path) -> StudyRecipe:
    (tmp_path / "base.yaml").write_text("data: {folder: data/made, batch_size: 4}\nmodel: {lr: 1}")
    return StudyRecipe(
        name="made",
        title="A made study",
        base=str(tmp_path / "base.yaml"),
        baseline="hinge/constant",
        seeds=(0, 1, 2),
        groups=(
            Group("warmed", OBJECTIVES, set={"model": {"warmup_steps": 4}}),
            Group("cold", OBJECTIVES[:2], seeds=(1,)),
        ),
    )


@pytest.fixture
def gathered(recipe: StudyRecipe, tmp_path: Path) -> Gathered:
    """rsum = 300 + the objective's effect + 2 seed + noise; cold nca/constant is at chance."""
    cells = recipe.cells()
    for cell in cells:
        objective = cell.config["model"]["objective"]
        noise = np.random.default_rng([cell.seed, len(cell.name)]).normal()
        rsum = 300 + EFFECT[objective] + 2 * cell.seed + noise
        if cell.group == "cold" and objective == "nca/constant":
            rsum = 4.0
        history = {
            "val/rsum": [[3, 7], [100.0 + cell.seed, 200.0]],
            "mining/mean_positive": [[0, 4], [0.1, 0.625]],
            "mining/mean_hardest_negative": [[0, 4], [0.2, 0.375]],
        }
        trained = made(metrics(rsum), metrics(3), history=history, oracle=metrics(570))
        write_result(result_path(tmp_path / "results", cell), "made", cell, trained)
    return gather(recipe, cells, tmp_path / "results")


def test_mined_negatives_are_compared_within_seeds(recipe: StudyRecipe, tmp_path: Path) -> None:
    """Shares of 4, 5 and 6 % against 2, 4 and 3: differences of 2, 1 and 3."""
    groups = (Group("hardest"), Group("margin 0.1"))
    recipe = replace(recipe, groups=groups, baseline="hardest")
    cells = recipe.cells()
    shares = {"hardest": (0.02, 0.04, 0.03), "margin 0.1": (0.04, 0.05, 0.06)}
    for cell in cells:
        mined = {
            "pairs": 2048,
            "true_candidates": 0.01,
            "false_negatives": shares[cell.label][cell.seed],
            "false_negatives_i2t": 0.5,
            "false_negatives_t2i": 0.25,
            "without": 0.125,
            "skipped": 0.0,
        }
        trained = made(metrics(300), metrics(3), mined=mined)
        write_result(result_path(tmp_path / "results", cell), "made", cell, trained)
    gathered = gather(recipe, cells, tmp_path / "results")
    text = page_text(gathered, {})
    assert "on 2,048 training pairs" in text
    assert "Of all other pairs of a batch 1.00 % are true" in text
    interval = paired_test([2.0, 1.0, 3.0]).interval
    assert interval is not None
    assert "| hardest | 3.0 ± 1.0 | 50.0 ± 0.0 | 25.0 ± 0.0 | | 12.5 ± 0.0 | 0.0 ± 0.0 |" in text
    assert (
        "| margin 0.1 | 5.0 ± 1.0 | 50.0 ± 0.0 | 25.0 ± 0.0 "
        "| +2.0 ({:+.1f} to {:+.1f}) | 12.5 ± 0.0 | 0.0 ± 0.0 |".format(*interval)
    ) in text
    for file in draw_all(gathered, tmp_path):
        assert (tmp_path / file).stat().st_size > 1000


def test_result_files_hold_what_was_trained(gathered: Gathered) -> None:
    cell, result = gathered.cells[0], gathered.results[0]
    assert result.header["config"] == cell.config
    assert (result.header["label"], result.header["seed"]) == (cell.label, cell.seed)
    assert result.history.by_step("val/rsum") == [(3, 100.0), (7, 200.0)]
    assert result.result["steps"] == 8
    assert result.header["environment"]["packages"]["torch"]


def test_damaged_result_files_are_refused(gathered: Gathered) -> None:
    path = gathered.results[0].path
    whole = path.read_text()
    for damaged in ("", whole[:-30], whole.replace('"format": 1', '"format": 0')):
        path.write_text(damaged)
        with pytest.raises(ValueError, match="move it elsewhere, and if a study"):
            read_result(path)
    with pytest.raises(ValueError, match=r"Is a directory.*; move it elsewhere"):
        read_result(path.parent)


def test_a_result_of_another_configuration_is_not_this_cells(gathered: Gathered) -> None:
    cell, folder = gathered.cells[0], gathered.results[0].path.parent
    assert is_finished(folder, cell)
    other = replace(cell, config={**cell.config, "trainer": {"max_epochs": 3}})
    with pytest.raises(ValueError, match=r"another value of trainer\.max_epochs"):
        is_finished(folder, other)


def test_the_grid_averages_within_seeds(gathered: Gathered) -> None:
    grid = grid_of(gathered.main)
    assert (grid.triplets, grid.pairs) == (["nca", "hinge"], ["constant", "linear"])
    rsums = {c.label: np.array(list(c.values("rsum").values())) for c in gathered.main}
    nca = (rsums["nca/constant"] + rsums["nca/linear"]) / 2
    assert list(grid.values["nca", MARGINAL].values()) == pytest.approx(nca)
    every = sum(rsums.values()) / 4
    assert list(grid.values[MARGINAL, MARGINAL].values()) == pytest.approx(every)
    assert list(grid.values["hinge", "linear"].values()) == pytest.approx(rsums["hinge/linear"])
    row = next(s for s in page_text(gathered, {}).splitlines() if s.startswith("| nca | "))
    assert row.endswith(f" | {nca.mean():.1f} ± {nca.std(ddof=1):.1f} |")
    assert grid_of(gathered.main[:3]) is None


def test_weights_are_compared_within_seeds_and_averaged_over_the_others(gathered: Gathered) -> None:
    rsums = {c.label: np.array(list(c.values("rsum").values())) for c in gathered.main}
    nca = (rsums["nca/constant"] + rsums["nca/linear"]) / 2
    hinge = (rsums["hinge/constant"] + rsums["hinge/linear"]) / 2
    test = paired_test((nca - hinge).tolist())
    low, high = test.interval
    expected = (
        f"Averaged over pair weights, against triplet weight `hinge`: "
        f"`nca` {test.difference:+.1f} ({low:+.1f} to {high:+.1f}, p {p_text(test.p_student)} "
    )
    assert any(sentence.startswith(expected) for sentence in findings(gathered))


def test_sentences_follow_from_the_numbers(gathered: Gathered) -> None:
    text = "\n".join(findings(gathered))
    assert "Better than `hinge/constant` (t-test, Holm, 0.05): `nca/linear`." in text
    assert "Worse than `hinge/constant`: `hinge/linear`." in text
    assert "Not told apart from `hinge/constant`: `nca/constant`." in text
    assert "By the exact test after Holm's correction: none." in text
    assert "Cold: 1 of 2 end within 3 times the rsum of chance: `nca/constant`." in text


def test_the_page_shows_the_numbers(gathered: Gathered) -> None:
    text = page_text(gathered, {"rsum.png": "all"})
    assert "finished" not in text
    for contestant in gathered.main:
        mean, deviation = contestant.summary("rsum")
        row = next(line for line in text.splitlines() if line.startswith(f"| {contestant.label} |"))
        assert f"| {mean:.1f} ± {deviation:.1f} |" in row
    cold = next(line for line in text.splitlines() if line.startswith("| nca/constant | 1 |"))
    beside = next(c for c in gathered.main if c.label == "nca/constant").values("rsum")[1]
    assert cold == f"| nca/constant | 1 | 4.0 | {beside:.1f} | 0.62 | 0.38 |"
    assert "`goal-kernels study --config made`" in text
    assert "exact test cannot give less than 0.25" in text
    assert "![all](rsum.png)" in text


def test_curves_keep_to_steps_that_all_seeds_logged(gathered: Gathered) -> None:
    contestant = gathered.main[0]
    steps, values = curve(contestant, "val/rsum")
    assert steps.tolist() == [3, 7]
    assert values[:, 0].tolist() == [100.0, 101.0, 102.0]
    assert curve(contestant, "never/logged") is None


def test_no_results_no_page(recipe: StudyRecipe, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run the study first"):
        gather(recipe, recipe.cells(), tmp_path / "nothing")


def test_result_lines_are_plain_json(gathered: Gathered) -> None:
    kinds = [json.loads(line)["kind"] for line in gathered.results[0].path.read_text().splitlines()]
    assert kinds == ["cell", "history", "history", "history", "result"]
