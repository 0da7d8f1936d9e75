"""The published page of the study is what the published result files give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from goal_kernels.training.study.gathered import choose, gather, read_trials
from goal_kernels.training.study.page import BEGIN, END, page_text
from goal_kernels.training.study.recipe import read_study

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.mark.parametrize(
    ("study", "name"),
    [
        ("objectives", "study"),
        ("negatives", "false-negatives"),
        ("tuned", "study-tuned"),
        ("fusion", "goalworld-fusion"),
        ("emoji", "study-emoji"),
    ],
)
def test_the_page_is_the_one_that_its_results_give(study: str, name: str) -> None:
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    published = text.partition(BEGIN + "\n")[2].partition(END)[0]
    pictures = {link: shown for shown, link in re.findall(r"!\[(.*)\]\((.*)\)", published)}
    assert len(pictures) >= 3
    for link in pictures:
        assert (DOCS / link).read_bytes().startswith(b"\x89PNG")
    recipe, results, trials = read_study(study), DOCS / name / "results", None
    if recipe.tuning is not None:
        trials = read_trials(recipe, results)
        recipe = recipe.finals(choose(recipe, trials))
    gathered = gather(recipe, recipe.cells(), results, trials)
    # If this fails after a change of the page: goal-kernels study --config STUDY
    # --folder docs/NAME --page docs/NAME.md --page-only
    assert page_text(gathered, pictures) == published
