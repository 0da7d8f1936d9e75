"""The published page of the study is what the published result files give."""

from __future__ import annotations

import re
from pathlib import Path

from goal_kernels.training.study.gathered import gather
from goal_kernels.training.study.page import BEGIN, END, page_text
from goal_kernels.training.study.recipe import read_study

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_the_page_is_the_one_that_its_results_give() -> None:
    text = (DOCS / "study.md").read_text(encoding="utf-8")
    published = text.partition(BEGIN + "\n")[2].partition(END)[0]
    pictures = {link: shown for shown, link in re.findall(r"!\[(.*)\]\((.*)\)", published)}
    assert len(pictures) >= 3
    for link in pictures:
        assert (DOCS / link).read_bytes().startswith(b"\x89PNG")
    recipe = read_study("objectives")
    gathered = gather(recipe, recipe.cells(), DOCS / "study" / "results")
    # If this fails after a change of the page: goal-kernels study --config objectives
    # --folder docs/study --page docs/study.md --page-only
    assert page_text(gathered, pictures) == published
