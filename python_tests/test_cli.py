"""The command line: help that teaches, errors that say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from goal_kernels import __version__, cli, list_elements
from goal_kernels.backends import backend_names


def run(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and error of one call."""
    try:
        status = cli.main(arguments)
    except SystemExit as stop:
        status = stop.code
    return (status, *capsys.readouterr())


def test_help_lists_every_command(capsys: pytest.CaptureFixture) -> None:
    status, out, _ = run(capsys, "--help")
    assert status == 0
    for word in ("fit", "validate", "test", "data", "objectives", "backends", "goalworld"):
        assert word in out


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_training_help_teaches_recipes_and_overrides(
    capsys: pytest.CaptureFixture, command: str
) -> None:
    status, out, _ = run(capsys, command, "--help")
    assert status == 0
    assert f"goal-kernels {command} --config goalworld" in out
    for word in ("goalworld_tiny", "--model.objective", "--trainer.max_epochs", "--help-all"):
        assert word in out


def test_data_synth_help(capsys: pytest.CaptureFixture) -> None:
    status, out, _ = run(capsys, "data", "synth", "--help")
    assert status == 0
    assert "tiny" in out


def test_version(capsys: pytest.CaptureFixture) -> None:
    assert run(capsys, "--version")[:2] == (0, f"goal-kernels {__version__}\n")


def test_objectives_lists_every_registered_element(capsys: pytest.CaptureFixture) -> None:
    status, out, _ = run(capsys, "objectives")
    assert status == 0
    for kind in ("triplet", "pair"):
        for element in list_elements(kind):
            assert element.name in out
            assert element.equation in out


def test_backends_says_what_can_run(capsys: pytest.CaptureFixture) -> None:
    status, out, _ = run(capsys, "backends")
    assert status == 0
    for name in backend_names():
        assert name in out


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["data"], ["objectives", "--what"]])
def test_wrong_usage_exits_with_two(capsys: pytest.CaptureFixture, arguments: list[str]) -> None:
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert "usage" in err


def test_unknown_recipe_names_the_known_ones(capsys: pytest.CaptureFixture) -> None:
    status, _, err = run(capsys, "fit", "--config", "coco")
    assert status == 2
    assert "'coco'" in err
    assert "goalworld, goalworld_tiny" in err


def test_a_missing_extra_names_the_remedy(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name == "rich" else name)
    status, _, err = run(capsys, "fit", "--config", "goalworld")
    assert status == 2
    assert err == "goal-kernels: error: fit needs rich: pip install 'goal-kernels[train]'\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data.folder", "missing"], "goal-kernels data synth"),
        (["--run.name", "a/b", "--data.folder", "DATA"], "run.name"),
        (["--model.objective", "nca/squared", "--data.folder", "DATA"], "squared"),
        (["--model.warmup_steps", "-3", "--data.folder", "DATA"], "warmup_steps"),
        (["--run.threads", "0", "--data.folder", "DATA"], "run.threads"),
        (["--trainer.devices", "3", "--data.folder", "DATA"], "data.batch_size"),
    ],
)
def test_bad_configurations_are_one_line(
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    words: str,
) -> None:
    pytest.importorskip("pytorch_lightning")
    from goal_kernels.data import Vocabulary, write_split

    monkeypatch.chdir(tmp_path)
    write_split(tmp_path / "data", "train", [[[1.0, 2.0]]] * 4, ["a b"] * 4)
    Vocabulary(["a", "b"]).save(tmp_path / "data" / "vocab.json")
    given = [a.replace("DATA", str(tmp_path / "data")) for a in arguments]
    status, _, err = run(capsys, "fit", "--config", "goalworld_tiny", *given)
    assert status == 2
    assert err.splitlines()[-1].startswith("goal-kernels: error: ")
    assert words in err.splitlines()[-1]
    assert not list(tmp_path.glob("runs/*"))


def test_evaluating_without_a_checkpoint_is_refused(capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("pytorch_lightning")
    status, _, err = run(capsys, "test", "--config", "goalworld_tiny", "--data.folder", "missing")
    assert status == 2
    assert "--ckpt_path" in err
