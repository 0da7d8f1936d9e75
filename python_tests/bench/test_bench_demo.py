"""The README's demo table comes from the run folder, every figure of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import bench.demo as demo
from bench.report import DEMO_PART, markers

ROOT = Path(__file__).resolve().parents[2]


def metrics(base: float) -> dict:
    side = {"R@1": base, "R@5": base + 1, "R@10": base + 2, "median_rank": 3, "mean_rank": 4.5}
    return {"i2t": side, "t2i": side, "rsum": 6 * base + 6}


def run_folder(root: Path, name: str = "goalworld", base: float = 20.04, seed: int = 5) -> Path:
    path = root / name
    path.mkdir()
    record = {"split": "test", **metrics(base), "oracle": metrics(80), "chance": metrics(0.1)}
    record |= {"objective": {"name": "nca/linear"}, "epochs": 7, "seconds": 90.0, "seed": seed}
    (path / "metrics.json").write_text(json.dumps(record))
    environment = {"started": "2026-05-21T10:00:00", "processors": 2, "python": "3.11.7"}
    environment["packages"] = dict.fromkeys(demo.PACKAGES, "1.2.3")
    (path / "environment.json").write_text(json.dumps(environment))
    return path


def test_table_states_figures_and_what_gave_them(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(demo, "RESULTS", tmp_path / "results")
    readme = tmp_path / "README.md"
    readme.write_text("before\n{}\nold\n{}\nafter\n".format(*markers(DEMO_PART)))
    assert demo.main([str(run_folder(tmp_path)), "--update-readme", str(readme)]) == 0
    text = readme.read_text()
    assert "| this run (`nca/linear`) | 20.0 | 21.0 | 22.0 | 20.0 | 21.0 | 22.0 | 126.2 |" in text
    assert "| oracle | 80.0 |" in text
    assert "seed 5, 7 epochs, 1.5 minutes" in text
    assert "2026-05-21" in text
    assert "old" not in text
    [kept] = json.loads((demo.RESULTS / "goalworld.json").read_text())["runs"]
    assert kept["epochs"] == 7


def test_a_model_that_scores_pairs_has_a_row_for_each_ranking(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(demo, "RESULTS", tmp_path)
    folder = run_folder(tmp_path)
    record = json.loads((folder / "metrics.json").read_text())
    record["rankings"] = {"dual": metrics(11), "reranked": metrics(30)}
    (folder / "metrics.json").write_text(json.dumps(record))
    page = tmp_path / "page.md"
    page.write_text("{}\n{}\n".format(*markers(DEMO_PART)))
    options = ["--command", "fit it", "--note", "2 of them computing"]
    assert demo.main([str(folder), "--update-readme", str(page), *options]) == 0
    text = page.read_text()
    assert "| dual | 11.0 |" in text
    assert "| reranked | 30.0 |" in text
    assert "this run" not in text
    assert "1.5 minutes of training and evaluation (2 of them computing): `fit it`" in text


def test_several_runs_have_means_and_deviations(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(demo, "RESULTS", tmp_path)
    runs = [run_folder(tmp_path, f"run{n}", 20.0 + 2 * n, n) for n in range(2)]
    page = tmp_path / "page.md"
    page.write_text("{}\n{}\n".format(*markers(DEMO_PART)))
    assert demo.main([*map(str, runs), "--update-readme", str(page)]) == 0
    text = page.read_text()
    assert "| this run (`nca/linear`) | 21.0 ± 1.4 | 22.0 ± 1.4 |" in text
    assert "| 132.0 ± 8.5 |" in text
    assert "| oracle | 80.0 | 81.0 |" in text
    assert "Mean ± standard deviation of 2 runs, seeds 0, 1; each 7 epochs, 1.5 minutes" in text
    assert len(json.loads((tmp_path / "run0.json").read_text())["runs"]) == 2


@pytest.mark.parametrize(
    ("name", "page"), [("goalworld", "demo"), ("goalworld_fusion", "goalworld")]
)
def test_the_published_tables_come_from_their_results(name: str, page: str) -> None:
    result = json.loads((ROOT / "bench/results" / f"{name}.json").read_text())
    assert demo.render(result) in (ROOT / "docs" / f"{page}.md").read_text()


def test_a_missing_run_is_an_error_message(tmp_path, capsys) -> None:
    assert demo.main([str(tmp_path)]) == 2
    assert "metrics.json" in capsys.readouterr().err
