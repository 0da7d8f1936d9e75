"""The contest of top-k searches on a size that takes seconds, and its judge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bench import top_k


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_k, "EFFORT", top_k.Effort(0.01, 2, 2))


def test_a_run_checks_times_and_keeps(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("faiss")
    file = tmp_path / "top_k.json"
    threads = str(torch.get_num_threads())
    size = ["--rows", "600", "--width", "32", "--threads", threads, "-k", "3"]
    assert top_k.main([*size, "--output", str(file)]) == 0
    (case,) = json.loads(file.read_text())["cases"]
    assert set(case["methods"]) == set(top_k.METHODS)
    assert case["methods"]["faiss"]["to_faiss"] == 1.0
    assert case["failures"] == {}
    assert "to faiss" in capsys.readouterr().out


def test_wrong_candidates_report_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(queries: torch.Tensor, corpus: torch.Tensor, k: int) -> object:
        found = top_k.mine_top_k(queries, corpus, k + 1).indices
        return lambda: torch.cat([found[:, : k - 1], found[:, k:]], dim=1)

    def twice(queries: torch.Tensor, corpus: torch.Tensor, k: int) -> object:
        found = top_k.mine_top_k(queries, corpus, k).indices
        return lambda: found[:, :1].expand(-1, k)

    methods = {**top_k.METHODS, "wrong": wrong, "twice": twice}
    monkeypatch.setattr(top_k, "METHODS", methods)
    case, names = top_k.TopKCase(400, 32, 3), ("torch", "cpu", "wrong", "twice")
    result = top_k.hold_top_k_contest(case, top_k.Effort(0.01, 2, 2), names)
    assert set(result.lanes) == {"torch", "cpu"}
    assert "from the float64 truth" in result.failures["wrong"]
    assert "found twice" in result.failures["twice"]
