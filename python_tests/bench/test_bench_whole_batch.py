"""The contest of losses over all negatives on a size that takes seconds, and its judge."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from bench import machine, whole_batch


def test_a_run_checks_times_and_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(whole_batch, "EFFORT", whole_batch.Effort(0.01, 2, 2))
    monkeypatch.setattr(whole_batch, "peak_mib", lambda name, case: 1.5)
    file = tmp_path / "whole_batch.json"
    size = ["--batch", "300", "--width", "32", "--threads", str(torch.get_num_threads())]
    methods = ["--methods", "gemm", "eager", "goal_kernels"]
    assert whole_batch.main([*size, *methods, "--output", str(file)]) == 0
    cases = json.loads(file.read_text())["cases"]
    whole = len(whole_batch.LOSSES) * len(whole_batch.DTYPES)
    assert len(cases) == whole + len(whole_batch.ACTIVE)
    for case in cases:
        assert set(case["methods"]) == {"gemm", "eager", "goal_kernels"}
        assert case["methods"]["gemm"]["to_gemm"] == 1.0
        assert case["failures"] == {}
    assert "to eager" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["compiled", "goal_kernels"])
def test_a_wrong_answer_has_no_time_and_the_run_is_kept(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager, _ = whole_batch.LOSSES["siglip"]

    def half(image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return eager(image, text) / 2

    ours = half if wrong == "goal_kernels" else eager
    monkeypatch.setattr(whole_batch, "LOSSES", {"siglip": (eager, ours)})
    monkeypatch.setattr(whole_batch, "ACTIVE", {})
    monkeypatch.setattr(torch, "compile", lambda loss: half if wrong == "compiled" else loss)
    monkeypatch.setattr(whole_batch, "BATCHES", (64,))
    monkeypatch.setattr(whole_batch, "WIDTHS", (16,))
    monkeypatch.setattr(whole_batch, "EFFORT", whole_batch.Effort(0.01, 2, 2))
    monkeypatch.setattr(whole_batch, "peak_mib", lambda name, case: 1.5)
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    threads = ["--threads", str(torch.get_num_threads())]
    assert whole_batch.main(threads) == int(wrong == "goal_kernels")
    (file,) = tmp_path.glob("*/whole_batch.json")
    for case in json.loads(file.read_text())["cases"]:
        assert wrong not in case["methods"]
        assert "from float64" in case["failures"][wrong]


@pytest.mark.parametrize("name", whole_batch.ACTIVE)
def test_the_margin_leaves_a_weight_to_the_share_of_pairs_in_the_name(name: str) -> None:
    case = whole_batch.WholeBatchCase(name, 600, 256, "float32")
    step = whole_batch.make_step("eager", case)
    assert isinstance(step.loss, partial)
    similarity = step.image @ step.text.T
    assert torch.equal(similarity.double(), step.image.double() @ step.text.double().T)
    positive = similarity.diagonal()
    hinge = step.loss.keywords["margin"] + similarity - positive[:, None].minimum(positive)
    active = (hinge.fill_diagonal_(0) > 0).double().mean()
    assert active == pytest.approx(whole_batch.ACTIVE[name], rel=0.2)


def test_parts_become_one_run(tmp_path: Path) -> None:
    """Of one commit and machine, each case once."""
    cases = [whole_batch.WholeBatchCase(x, 64, 16, "float32")._asdict() for x in ("a", "b")]

    def part(name: str, case: dict, **other: object) -> Path:
        kept = {"command": name, "date": "d", "commit": "c", "threads": 2, "cases": [case], **other}
        (tmp_path / name).write_text(json.dumps(kept))
        return tmp_path / name

    first, second, output = part("1", cases[0]), part("2", cases[1]), tmp_path / "all"
    assert whole_batch.main(["--merge", str(first), str(second), "--output", str(output)]) == 0
    found = json.loads(output.read_text())
    assert (found["command"], found["cases"], found["threads"]) == ("1; 2", cases, 2)
    with pytest.raises(ValueError, match=r"expected other cases than before, got .'a', 64"):
        whole_batch.merge([first, first], output)
    with pytest.raises(ValueError, match=r"expected threads 2 as in .*1, got 4"):
        whole_batch.merge([first, part("3", cases[1], threads=4)], output)


def test_a_wrong_loss_reports_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    eager, ours = whole_batch.LOSSES["siglip"]
    monkeypatch.setitem(whole_batch.LOSSES, "siglip", (eager, lambda x, y: 1.01 * ours(x, y)))
    case = whole_batch.WholeBatchCase("siglip", 64, 16, "float32")
    names = [whole_batch.OURS, whole_batch.GEMM]
    result = whole_batch.hold_contest(case, whole_batch.Effort(0.01, 2, 2), names)
    assert "value: 0.01 from float64" in result.failures[whole_batch.OURS]
    assert set(result.lanes) == {whole_batch.GEMM}
