"""The command line: help that teaches, errors that say what to do."""

from __future__ import annotations

import errno
import gc
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from goal_kernels import __version__, cli, extras, list_elements
from goal_kernels.backends.choice import backend_names
from goal_kernels.registry import KINDS


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


@pytest.mark.parametrize("command", ["fit", "validate", "test", "memory"])
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
    for kind in KINDS:
        for element in list_elements(kind):
            assert element.name in out
            assert element.equation in out


def test_backends_says_what_can_run(capsys: pytest.CaptureFixture) -> None:
    status, out, _ = run(capsys, "backends")
    assert status == 0
    for name in backend_names():
        assert name in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "goal-kernels: error: the following arguments are required: COMMAND;"),
        (["data"], "goal-kernels data: error: the following arguments are required: KIND;"),
        (["--verison"], "unrecognized arguments: --verison (did you mean --version?);"),
        (["data", "--hlep"], "unrecognized arguments: --hlep (did you mean --help?);"),
        (["comapre", "runs"], "(did you mean compare?); `goal-kernels --help` lists all"),
        (["data", "inspct"], "(did you mean inspect?); `goal-kernels data --help` lists all"),
        (["eval", "--protocl", "all"], "(did you mean --protocol?); `goal-kernels eval --help`"),
        (["eval", "--tie=argsort", "--strickt"], "(did you mean --strict?)"),
        (["mine", "a.npy", "--outptu", "b.npz"], "--outptu b.npz (did you mean --output?)"),
        (["study", "--confg=tuned"], "(did you mean --config?)"),
        (["import-checkpoint", "a", "b", "--tokeniser=bert"], "(did you mean --tokenizer?)"),
        (["eval", "--protocol", "cocok"], "expected one of plain, f30k, coco-1k, coco-5k, all"),
        (["objectives", "--what"], "unrecognized arguments: --what; `goal-kernels objectives"),
        (["--", "objectives"], "`goal-kernels --help` lists all"),
    ],
)
def test_mistyped_words_are_one_line_with_the_nearest(
    capsys: pytest.CaptureFixture, arguments: list[str], words: str
) -> None:
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


LIGHT = [
    ["--version"],
    ["--help"],
    ["objectives"],
    ["recipes"],
    ["data", "--help"],
    ["data", "synth", "--help"],
    ["eval", "--help"],
    ["compare", "--help"],
    ["fit", "--help"],
]


def test_what_only_prints_does_not_load_torch() -> None:
    """One process for all: what none of them loaded, no single one did."""
    program = f"""
import contextlib, io, sys
from goal_kernels.cli import main
for arguments in {LIGHT}:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        assert main(arguments) == 0, arguments
    assert out.getvalue(), arguments
    loaded = {{"torch", "pytorch_lightning", "rich", "matplotlib", "PIL"}} & set(sys.modules)
    assert not loaded, (arguments, loaded)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "error", [ValueError("of\nthe interior"), MemoryError(), RecursionError("too deep")]
)
def test_an_error_nobody_foresaw_is_one_sentence_and_a_record(
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    error: Exception,
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(cli, "run_objectives", fail)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    status, out, err = run(capsys, "objectives")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(
        f"goal-kernels: error: `goal-kernels objectives` failed, {type(error).__name__}: "
    )
    [record] = tmp_path.iterdir()
    assert str(record) in err
    for text in (err, record.read_text()):
        assert (str(error).split() or [""])[-1] in text
    assert "Traceback (most recent call last)" in record.read_text()
    assert f"torch {torch.__version__}" in record.read_text()
    monkeypatch.setenv("GOAL_KERNELS_TRACEBACK", "1")
    status, _, err = run(capsys, "objectives")
    assert status == 1
    assert "Traceback (most recent call last)" in err
    assert len(list(tmp_path.iterdir())) == 1


def test_an_interrupt_is_quiet(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_objectives", interrupt)
    assert run(capsys, "objectives") == (130, "", "")


def test_a_file_that_cannot_be_used_is_named(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    sims = tmp_path / "sims.npy"
    np.save(sims, np.eye(4, dtype=np.float32))
    status, _, err = run(capsys, "eval", str(sims), "--json", str(sims / "below" / "x.json"))
    assert (status, err.count("\n")) == (2, 1)
    assert str(sims) in err


def test_a_full_disk_is_no_fault_of_ours(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cli, "run_objectives", fail)
    status, _, err = run(capsys, "objectives")
    assert status == 2
    assert "No space left on device: a file could not be written; make room" in err


def test_unknown_recipe_names_the_known_ones(capsys: pytest.CaptureFixture) -> None:
    status, _, err = run(capsys, "fit", "--config", "coco")
    assert status == 2
    assert "'coco'" in err
    assert "goalworld, goalworld_fusion, goalworld_late, goalworld_tiny" in err


def test_a_missing_extra_names_the_remedy(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "rich" else name)
    status, _, err = run(capsys, "fit", "--config", "goalworld")
    assert status == 2
    root = Path(extras.__file__).parent.parent
    assert err == f"goal-kernels: error: fit needs rich: pip install -e '{root}[train]'\n"


def test_importing_collects_no_garbage_and_leaves_the_collector_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(gc, "disable", lambda: calls.append("off"))
    monkeypatch.setattr(gc, "enable", lambda: calls.append("on"))
    with pytest.raises(ModuleNotFoundError), extras.importing():
        import_module("no_such_package")
    assert calls == ["off", "on"]
    monkeypatch.setattr(gc, "isenabled", lambda: False)
    with extras.importing():
        assert calls[2:] == ["off"]
    assert calls[3:] == []


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        ({"url": "file://HERE", "dir_info": {}}, "pip install 'HERE[train]'"),
        (
            {"url": "https://a.b/c.git", "vcs_info": {"vcs": "git", "commit_id": "12ab"}},
            "pip install 'goal-kernels[train] @ git+https://a.b/c.git@12ab'",
        ),
        (
            {"url": "file:///w/goal_kernels-1.whl", "archive_info": {}},
            "pip install 'goal-kernels[train] @ file:///w/goal_kernels-1.whl'",
        ),
        ({"url": "file://HERE/gone", "dir_info": {}}, "pip install '.[train]' in the folder of"),
        ({}, "pip install '.[train]' in the folder of"),
    ],
)
def test_an_installed_copy_names_where_it_came_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, origin: dict, command: str
) -> None:
    here = tmp_path / "with space"
    here.mkdir()
    given = {k: v.replace("HERE", str(here)) if k == "url" else v for k, v in origin.items()}
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "site" / "goal_kernels" / "extras.py"))
    monkeypatch.setattr(extras, "_origin", lambda: given)
    assert extras.install("train").startswith(command.replace("HERE", str(here)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data.folder", "missing"], "goal-kernels data synth"),
        (["--run.name", "a/b", "--data.folder", "DATA"], "run.name"),
        (["--model.objective", "nca/squared", "--data.folder", "DATA"], "squared"),
        (["--model.warmup_steps", "-3", "--data.folder", "DATA"], "warmup_steps"),
        (["--run.threads", "0", "--data.folder", "DATA"], "run.threads"),
        (["--trainer.devices", "3", "--data.folder", "DATA"], "data.batch_size"),
        (["--model.lr=-1", "--data.folder", "DATA"], "model.lr: expected a finite number >= 0"),
        (["--model.weight_decay=-0.1", "--data.folder", "DATA"], "model.weight_decay: expected"),
        (
            ["--run.save_every_steps", "0", "--data.folder", "DATA"],
            "run.save_every_steps: expected",
        ),
        (["--seed_everything=-5", "--data.folder", "DATA"], "seed_everything: expected"),
        (
            ["--trainer.check_val_every_n_epoch", "0", "--data.folder", "DATA"],
            "trainer.check_val_every_n_epoch: expected at least 1",
        ),
        (
            ["--trainer.limit_train_batches", "0", "--data.folder", "DATA"],
            "trainer.limit_train_batches: expected more than 0",
        ),
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
