"""The command: a study is run, interrupted, resumed, and its page generated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from goal_kernels.cli import main
from goal_kernels.training.study import jobs
from goal_kernels.training.study.page import BEGIN, END
from goal_kernels.training.study.results import read_result

CELLS = 6  # two objectives and the sum of hinges, two seeds


class Killed(BaseException):
    """What stops a process without asking its exception handlers."""


def contents(folder: Path) -> dict[str, str]:
    """What does not depend on time, of every result file."""
    kept = {}
    for path in folder.glob("*.jsonl"):
        *before, result = path.read_text().splitlines()
        record = json.loads(result)
        del record["seconds"], record["cpu_seconds"]
        kept[path.name] = "\n".join(before[1:]) + json.dumps(record)
    return kept


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the cells that were trained, in order."""
    names: list[str] = []
    really = jobs.train_cell

    def recorded(cell, warmup):
        names.append(cell.name)
        return really(cell, warmup)

    monkeypatch.setattr(jobs, "train_cell", recorded)
    return names


@pytest.mark.usefixtures("_no_pictures")
def test_a_killed_study_goes_on_where_it_was(
    finished: Path,
    study_file: Path,
    tmp_path: Path,
    trained: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert len(contents(finished / "results")) == CELLS
    parts = tmp_path / "parts"
    really = jobs.write_result

    def killed(path: Path, *rest) -> None:
        if len(trained) == 3:
            raise Killed
        really(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "write_result", killed)
        with pytest.raises(Killed):
            main(["study", "--config", str(study_file), "--folder", str(parts)])
    assert len(contents(parts / "results")) == 2
    interrupted = trained[2]
    trained.clear()

    assert main(["study", "--config", str(study_file), "--folder", str(parts)]) == 0
    assert len(trained) == CELLS - 2
    assert interrupted in trained
    assert contents(parts / "results") == contents(finished / "results")

    trained.clear()
    shutil.rmtree(parts / "work")
    assert main(["study", "--config", str(study_file), "--folder", str(parts)]) == 0
    assert trained == []
    assert not (parts / "work").exists()  # nothing was left that needs a warm-up


def results_of_seed_0(finished: Path, folder: Path) -> Path:
    """A folder where the command with `--seeds 0` has been."""
    (folder / "results").mkdir(parents=True)
    for path in (finished / "results").glob("*-seed0.jsonl"):
        shutil.copy(path, folder / "results")
    return folder


def test_the_page_is_made_of_the_results(finished: Path, study_file: Path, tmp_path: Path) -> None:
    folder, page = results_of_seed_0(finished, tmp_path / "out"), tmp_path / "docs" / "study.md"
    page.parent.mkdir()
    page.write_text(f"# Mine\n\nBefore.\n{BEGIN}\nstale\n{END}\nAfter.\n")
    command = ["study", "--config", str(study_file), "--folder", str(folder), "--page", str(page)]
    assert main([*command, "--seeds", "0"]) == 0
    text = page.read_text()
    assert text.startswith(f"# Mine\n\nBefore.\n{BEGIN}\n")
    assert text.endswith(f"{END}\nAfter.\n")
    assert "stale" not in text
    assert "**3 of 6 cells are finished.**" in text
    result = read_result(folder / "results" / "nca-sigmoid_ms-seed0.jsonl")
    row = next(line for line in text.splitlines() if line.startswith("| nca/sigmoid_ms |"))
    assert f"| {result.result['metrics']['rsum']:.1f} |" in row
    ridge = next(line for line in text.splitlines() if line.startswith("| ridge |"))
    assert f"| {result.result['ridge']['rsum']:.1f} |" in ridge
    for picture in ("rsum.png", "curves.png", "mining.png"):
        assert f"](../out/{picture})" in text
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")


def test_results_of_another_configuration_are_refused(
    finished: Path,
    study_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    trained: list[str],
) -> None:
    folder = results_of_seed_0(finished, tmp_path / "out")
    command = ["study", "--config", str(study_file), "--folder", str(folder)]
    study = yaml.safe_load(study_file.read_text())
    study["set"]["model"] = {"lr": 0.02}
    study_file.write_text(yaml.safe_dump(study))
    assert main(command) == 2
    assert trained == []
    assert "another value of model.lr; give another --folder" in capsys.readouterr().err


def test_seeds_that_the_study_does_not_have(
    study_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", "--config", str(study_file), "--seeds", "5"]) == 2
    assert "--seeds: expected some of 0 1, got 5" in capsys.readouterr().err


def test_a_failing_cell_is_named_and_the_others_are_kept(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = yaml.safe_load(study_file.read_text())
    study["groups"].insert(1, {"name": "wrong", "objectives": ["hinge/nothing"], "seeds": [0]})
    study_file.write_text(yaml.safe_dump(study))
    command = ["study", "--config", str(study_file), "--seeds", "0", "--folder"]
    assert main([*command, str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert "hinge-nothing-wrong-seed0: ValueError:" in printed
    assert "run the same command again" in printed
    assert len(contents(tmp_path / "out" / "results")) == 2
