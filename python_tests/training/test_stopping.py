"""Runs that are killed or told to stop, in processes of their own and in this one."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch

pytest.importorskip("pytorch_lightning")

from run_cases import assert_same_run, before_training_step, fit, resume

from goal_kernels.training.checkpoints import checksum_matches
from goal_kernels.training.run_folder import RunFolder


def fit_killed_while_saving(saves: int, folder: Path, root: Path) -> None:
    """Train in this process, and kill it when half of so many a checkpoint is written."""
    save, left = torch.save, saves

    def half_a_save(state, file) -> None:
        nonlocal left
        left -= 1
        if left:
            save(state, file)
            return
        file.write(b"half of a checkpoint")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    torch.save = half_a_save
    fit(folder, root)


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that never stopped."""
    root = tmp_path_factory.mktemp("whole")
    assert fit(folder, root) == 0
    return RunFolder(root / "run")


def test_killed_and_resumed_equals_uninterrupted(
    whole: RunFolder, folder: Path, tmp_path: Path
) -> None:
    after = 5  # saves, of resume points and of the best weights
    # A fork has imported everything; after a use of CUDA it could not train.
    context = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "fork")
    child = context.Process(target=fit_killed_while_saving, args=(after, folder, tmp_path))
    child.start()
    child.join(120)
    run = RunFolder(tmp_path / "run")
    assert child.exitcode == -signal.SIGKILL
    assert not run.metrics.exists()
    assert checksum_matches(run.last)
    assert resume(run) == 0
    assert_same_run(whole, run)
    assert not list(run.path.rglob("*.partial"))
    sessions = json.loads(run.environment.read_text())["sessions"]
    assert [session["ended"] for session in sessions] == [None, "finished"]
    assert 0 < sessions[1]["from_step"] < 8
    assert sessions[1]["to_step"] == 8


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_step_and_says_how_to_go_on(
    whole: RunFolder,
    folder: Path,
    tmp_path: Path,
    number: signal.Signals,
    status: int,
    capsys: pytest.CaptureFixture,
) -> None:
    handler = signal.getsignal(number)
    steps = []

    def stop_in_the_sixth(module) -> None:
        steps.append(module.global_step)
        if len(steps) == 6:
            signal.raise_signal(number)

    with before_training_step(stop_in_the_sixth):
        assert fit(folder, tmp_path, "--run.save_every_steps", "100") == status
    run = RunFolder(tmp_path / "run")
    assert steps == [0, 1, 2, 3, 4, 5]  # the step that it came in is finished
    printed = capsys.readouterr()
    assert f"goal-kernels fit --resume {run.path}" in printed.err
    assert "from step 6" in printed.err
    assert signal.getsignal(number) is handler
    assert resume(run, "--run.save_every_steps", "3") == 0
    assert_same_run(whole, run)


def test_a_second_signal_stops_at_once(folder: Path, tmp_path: Path) -> None:
    steps = []

    def stop_twice_in_the_sixth(module) -> None:
        steps.append(module.global_step)
        if len(steps) == 6:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            steps.append("went on")

    with before_training_step(stop_twice_in_the_sixth):
        assert fit(folder, tmp_path) == 130
    assert steps == [0, 1, 2, 3, 4, 5]
    session = json.loads((tmp_path / "run" / "environment.json").read_text())["sessions"][0]
    assert session["to_step"] == 4  # the end of the first epoch, which was saved
    assert session["ended"] == "stopped by SIGINT"
