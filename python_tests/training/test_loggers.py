"""`run.loggers`: what is logged goes where it should, and nowhere else."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("pytorch_lightning")

from run_cases import fit, resume, rows

from goal_kernels.training import loggers
from goal_kernels.training.run_folder import RunFolder, write_json


def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """A module `trackio` that keeps the calls of the functions that are used."""
    calls: list[tuple] = []
    module = ModuleType("trackio")
    module.__spec__ = ModuleSpec("trackio", None)
    module.init = lambda **given: calls.append(("init", given))
    module.log = lambda metrics, step: calls.append(("log", step, metrics))
    module.finish = lambda: calls.append(("finish",))
    monkeypatch.setitem(sys.modules, "trackio", module)
    return calls


def test_trackio_gets_what_metrics_csv_has_and_goes_on_when_resumed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = stand_in(monkeypatch)
    once = ("--trainer.max_epochs", "1", "--run.loggers", "trackio")
    assert fit(folder, tmp_path, *once) == 0
    run = RunFolder(tmp_path / "run")
    assert not (run.path / "logs").exists(), "TensorBoard was not asked for"
    begun = calls[0][1]
    assert begun["project"] == "goal-kernels"
    assert begun["config"]["embed_dim"] == 8
    assert begun["resume"] == "allow"
    losses = [(c[1], c[2]["train/loss"]) for c in calls if c[0] == "log" and "train/loss" in c[2]]
    logged = [(int(r["step"]), float(r["train/loss"])) for r in rows(run) if r["train/loss"]]
    assert losses == [(step, pytest.approx(loss)) for step, loss in logged]
    assert any("val/rsum" in call[2] for call in calls if call[0] == "log")
    assert calls[-1] == ("finish",)
    calls.clear()
    assert resume(run, "--trainer.max_epochs", "2") == 0
    assert calls[0][1]["name"] == begun["name"], "the same run"
    assert min(call[1] for call in calls if call[0] == "log") >= 4


def test_what_is_not_known_or_not_installed_is_said_before_anything_is_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert fit(folder, tmp_path / "a", "--run.loggers", "[trackio, mlflow]") == 2
    said = capsys.readouterr().err
    missing = "trackio" not in sys.modules and "trackio needs a package" in said
    assert missing or "expected some of tensorboard, wandb, trackio, got 'mlflow'" in said
    with pytest.raises(ValueError, match="pip install wandb"):
        raise_missing("wandb")
    assert not (tmp_path / "a").exists()


def raise_missing(name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loggers, "find_spec", lambda _: None)
        loggers.check_loggers([name])


def test_weights_and_biases_through_lightning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(loggers, "WandbLogger", lambda **given: made.append(given))
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    for started in ("2026-01-01", "2026-01-01", "2026-01-02"):
        write_json(tmp_path / "environment.json", {"started": started, "sessions": [len(made)]})
        loggers.make_loggers(RunFolder(tmp_path), ["wandb"], None)
    assert made[0] == made[1], "a resumed run goes on in the same one"
    assert made[0]["id"] != made[2]["id"]
    assert (made[0]["project"], made[0]["resume"]) == ("mine", "allow")
    assert made[0]["save_dir"] == tmp_path
