"""A run with `model.negative_memory`: what its checkpoints hold, and what reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("pytorch_lightning")

from run_cases import fit

from goal_kernels.cli import main
from goal_kernels.training.checkpoints import load_checkpoint
from goal_kernels.training.run_folder import RunFolder

OPTIONS = ("--model.warmup_steps", "4", "--model.negative_memory")


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    root = tmp_path_factory.mktemp("memory")
    assert fit(folder, root, *OPTIONS, "20") == 0
    return RunFolder(root / "run")


def test_resume_points_alone_hold_the_memory(run: RunFolder) -> None:
    memory = load_checkpoint(run.last)["warmup"]["memory"]
    assert {name: list(rows.shape) for name, rows in memory.items()} == {
        "image": [20, 8], "text": [20, 8], "image_ids": [20], "text_ids": [20],
    }  # fmt: skip
    best = load_checkpoint(run.best)
    assert best["warmup"]["memory"] == {}
    assert all(name.startswith("model.") for name in best["state_dict"])


def test_the_memory_trains_other_weights(run: RunFolder, folder: Path, tmp_path: Path) -> None:
    assert fit(folder, tmp_path, *OPTIONS, "0") == 0
    without = load_checkpoint(tmp_path / "run/checkpoints/last.ckpt")["state_dict"]
    weights = load_checkpoint(run.last)["state_dict"]
    assert list(weights) == list(without)
    assert any(not weights[name].equal(without[name]) for name in weights)


def test_evaluation_reads_the_run(
    run: RunFolder, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tested = json.loads(run.metrics.read_text())
    assert main(["eval", str(run.path), "--json", str(tmp_path / "found.json")]) == 0
    assert f"{tested['rsum']:.1f}" in capsys.readouterr().out
    arguments = ["--config", str(run.config), "--ckpt_path", str(run.last)]
    assert main(["validate", *arguments]) == 0


@pytest.mark.parametrize(("checkpoint", "size"), [("last", "0"), ("best", "8")])
def test_weights_fit_runs_with_and_without_a_memory(
    run: RunFolder, folder: Path, tmp_path: Path, checkpoint: str, size: str
) -> None:
    weights = ("--run.weights", str(getattr(run, checkpoint)))
    assert fit(folder, tmp_path, *OPTIONS, size, *weights, "--trainer.max_epochs", "1") == 0
