"""The tables of kinds of negatives: small parts anew, a planted fault, and what is published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bench import negatives

PUBLISHED = sorted((Path(negatives.__file__).parent / "results").glob("*/negatives.json"))


@pytest.mark.parametrize("form", negatives.BATCHES)
@pytest.mark.parametrize("kind", ["hardest", "sampled", "all at once"])
def test_no_index_differs_from_the_loops(kind: str, form: str) -> None:
    found = negatives.parity(kind, form, torch.float32, ["cpu", "chunked"], [(3, 2), (9, 4)])
    for each in found.values():
        assert each.indices > 50
        assert each.wrong == 0
        assert 0 < each.error < 1e-5


@pytest.mark.parametrize("kind", ["top", "skip"])
def test_a_wrong_index_and_gradient_are_seen(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hardest alone in the place of the three hardest, and of the third hardest."""
    planted = {kind: (negatives.ALL_KINDS[kind][0], {"negatives": "hardest"})}
    monkeypatch.setattr(negatives, "ALL_KINDS", planted)
    found = negatives.parity(kind, "captions", torch.float64, ["reference"], [(9, 4)])
    assert (found["reference"].wrong > 20) is (kind == "skip")
    assert found["reference"].error > 0.01


def test_a_run_keeps_its_figures_and_writes_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negatives, "ALL_KINDS", {"top": negatives.ALL_KINDS["top"]})
    monkeypatch.setattr(negatives, "SHAPES", ((3, 2),))
    monkeypatch.setattr(negatives, "STEPS", negatives.STEPS[:1])
    here = lambda case, threads: {**case, **negatives.measure(**case)}  # noqa: E731
    monkeypatch.setattr(negatives, "measure_apart", here)
    page, output = tmp_path / "page.md", tmp_path / "negatives.json"
    page.write_text("before\n<!-- negatives:begin -->\n<!-- negatives:end -->\nafter\n")
    options = ["--images", "300", "--output", str(output), "--page", str(page)]
    assert negatives.main([*options, "--threads", str(torch.get_num_threads())]) == 0
    record = json.loads(output.read_text())
    assert [row["batch"] for row in record["parity"]] == list(negatives.BATCHES)
    assert record["memory"][0]["extra_mib"] < 50
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| top | captions, ids | 0 of " in text
    assert "| hinge/constant | hardest |" in text


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda file: file.parent.name)
def test_the_published_page_is_that_of_a_result_file(file: Path) -> None:
    record = json.loads(file.read_text())
    assert {row["kind"] for row in record["parity"]} == set(negatives.ALL_KINDS)
    assert negatives.tables(record) in negatives.PAGE.read_text(encoding="utf-8")
