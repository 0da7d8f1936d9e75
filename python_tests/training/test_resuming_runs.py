"""Which run is resumed and from where; what is refused, and what is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from goal_kernels.training.checkpoints import load_checkpoint, save_checkpoint
from goal_kernels.training.environment import (
    begin_session,
    config_hash,
    describe_environment,
    end_session,
    git_state,
    read_environment,
)
from goal_kernels.training.resume import (
    RESUME_PARTS,
    ResumeError,
    Resumption,
    RunFinished,
    choose_run,
    find_resume_point,
    find_run,
    prepare_folder,
    resumed_arguments,
)
from goal_kernels.training.run_folder import (
    RunFolder,
    RunInUseError,
    create_run_folder,
    lock_run,
    write_json,
)

PARTS = tuple(RESUME_PARTS.items())
CONFIG: dict[str, Any] = {
    "seed_everything": 0,
    "trainer": {"max_epochs": 4, "max_steps": -1, "devices": 1},
    "model": {"lr": 0.01, "text": {"kind": "bigru"}},
    "run": {"name": "a", "threads": 1},
}


def make_run(root: Path, name: str = "a") -> RunFolder:
    def fill(run: RunFolder) -> None:
        run.config.write_text(yaml.safe_dump(CONFIG))
        write_json(run.environment, describe_environment(0, ["fit"], CONFIG))

    with ExitStack() as held:
        return create_run_folder(root, name, fill, held)


def choose(wanted: RunFolder | None, given: Namespace, config: dict[str, Any]) -> Resumption | None:
    with ExitStack() as held:
        return choose_run(wanted, given, lambda: config, held)


def save_point(run: RunFolder, step: int, **parts: Any) -> None:
    """A resume point that has all parts and names, but nothing in them."""
    empty: dict[str, Any] = {
        part: dict.fromkeys(names) if kind is dict else kind() for part, (kind, names) in PARTS
    }
    empty["optimizer_states"] = [{}]
    save_checkpoint(
        {**empty, "global_step": step, "epoch": step // 4, **parts}, run.last, run.previous
    )


def options(run: RunFolder, resume: str | None = None) -> Namespace:
    return Namespace(resume=resume, root=str(run.path.parent), name=run.path.name)


def test_latest_is_the_run_that_was_written_to_last(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, name) for name in ("a", "b", "c")]
    for age, run in zip((300, 100, 200), runs, strict=True):
        for file in run.path.iterdir():
            os.utime(file, (1e9 - age, 1e9 - age))
    assert find_run("latest", tmp_path) == runs[1]


def test_runs_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match=r"--resume latest: expected runs.*--run\.root"):
        find_run("latest", tmp_path)
    with pytest.raises(ResumeError, match=r"--resume: expected the folder of a run"):
        find_run(str(tmp_path / "none"), tmp_path)
    with pytest.raises(ResumeError, match=r"--resume: expected a folder, got nothing"):
        resumed_arguments("fit", ["--resume", "--model.lr", "1"])


def test_resume_takes_the_configuration_of_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    given = ["--trainer.max_epochs", "9", f"--resume={run.path}"]
    assert resumed_arguments("fit", given) == (
        run,
        ["--config", str(run.config), "--trainer.max_epochs", "9"],
    )
    found, _ = resumed_arguments("fit", ["--resume", "latest", "--run.root", str(tmp_path)])
    assert found == run
    assert resumed_arguments("test", ["--x"]) == (None, ["--x"])


def test_a_changed_configuration_is_refused_by_name(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    changed = {**CONFIG, "model": {"lr": 0.02, "text": {"kind": "bert"}}}
    with pytest.raises(ResumeError) as refused:
        choose(run, options(run), changed)
    assert "model.lr was 0.01 and is now 0.02" in str(refused.value)
    assert "model.text.kind was 'bigru' and is now 'bert'" in str(refused.value)
    margin = {**CONFIG, "model": {**CONFIG["model"], "objective_parameters": {"margin": 0.3}}}
    for parameters in (None, {}, {"margin": 0.3, "tau": 2.0}):
        run.config.write_text(
            yaml.safe_dump(
                {**CONFIG, "model": {**CONFIG["model"], "objective_parameters": parameters}}
            )
        )
        with pytest.raises(ResumeError, match=r"model\.objective_parameters was .* and is now"):
            choose(run, options(run), margin)
    run.config.write_text(yaml.safe_dump(CONFIG))
    allowed = {
        **CONFIG,
        "run": {"name": "b", "threads": 2},
        "trainer": {"max_epochs": 9, "max_steps": -1, "devices": 2},
        "model": {**CONFIG["model"], "new_option": 1},
    }
    chosen = choose(run, options(run), allowed)
    assert chosen is not None
    assert chosen.longer
    assert (chosen.run, chosen.checkpoint, chosen.step) == (run, None, 0)


def test_a_finished_run_says_so_and_can_be_made_longer(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    write_json(run.metrics, {"rsum": 1.0})
    with pytest.raises(RunFinished, match=r"is finished.*--trainer\.max_epochs \(it was 4\)"):
        choose(run, options(run), CONFIG)
    longer = {**CONFIG, "trainer": {**CONFIG["trainer"], "max_epochs": 6}}
    chosen = choose(run, options(run), longer)
    assert chosen is not None
    assert chosen.longer


def test_auto_resumes_what_was_begun_and_else_begins(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    chosen = choose(None, options(run, "auto"), CONFIG)
    assert chosen is not None
    assert chosen.run == run
    assert choose(None, options(RunFolder(tmp_path / "new"), "auto"), CONFIG) is None
    assert choose(None, options(run), CONFIG) is None
    with pytest.raises(ResumeError, match=r"run\.resume: expected `auto` or null, got 'yes'"):
        choose(None, options(run, "yes"), CONFIG)


def test_a_damaged_resume_point_is_put_aside_and_the_one_before_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = make_run(tmp_path)
    for step in (3, 6):
        save_point(run, step)
    run.last.write_bytes(run.last.read_bytes()[:-1])
    (run.checkpoints / ".last.ckpt.x.partial").write_bytes(b"half")
    found = find_resume_point(run)
    assert (found.checkpoint, found.step, found.damaged) == (run.previous, 3, (run.last,))
    prepare_folder(found)
    assert "last.ckpt: is damaged, kept as last.ckpt.damaged" in capsys.readouterr().out
    assert {path.name for path in run.checkpoints.iterdir()} == {
        "previous.ckpt",
        "last.ckpt.damaged",
    }
    save_point(run, 5)
    assert load_checkpoint(run.previous)["global_step"] == 3
    run.last.write_bytes(b"x")
    run.previous.write_bytes(b"x")
    with pytest.raises(ResumeError, match=r"last\.ckpt and .*previous\.ckpt cannot be used"):
        find_resume_point(run)


def test_sessions_are_noted(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    begin_session(run, ["fit"], 0)
    begin_session(run, ["fit", "--resume", "x"], 40)
    end_session(run, 90, "finished")
    first, second = json.loads(run.environment.read_text())["sessions"]
    assert (first["from_step"], first["to_step"], first["ended"]) == (0, None, None)
    assert (second["from_step"], second["to_step"], second["ended"]) == (40, 90, "finished")
    assert second["command"] == ["goal-kernels", "fit", "--resume", "x"]


def test_the_hash_of_a_configuration_leaves_seed_and_name_out() -> None:
    other = {**CONFIG, "seed_everything": 5, "run": {"name": "z"}}
    assert config_hash(CONFIG) == config_hash(other)
    assert config_hash(CONFIG) != config_hash({**CONFIG, "model": {"lr": 0.02}})


def test_the_commit_is_recorded_where_there_is_one(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None


def test_auto_takes_a_folder_that_is_no_run_yet_and_refuses_one_without_configuration(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path)
    run.config.unlink()
    assert choose(None, options(run, "auto"), CONFIG) is None
    with ExitStack() as held:
        adopted = create_run_folder(tmp_path, "a", lambda _: None, held, adopt=True)
    assert adopted == run
    save_point(run, 3)
    with pytest.raises(ResumeError, match=r"holds resume points but no config\.yaml; put it back"):
        choose(None, options(run, "auto"), CONFIG)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "expected options by name"),
        (b"trainer: {", "expected YAML"),
        ("trainer: {a: é}".encode("utf-16"), "expected UTF-8"),
        (b"model: {}", "expected a section `trainer`"),
        (b"trainer: {}\nmodel: {}\ndata:\n  folder: x\n", "expected a section `run`.*cut short"),
        (b"[" * 50_000, "more than 64 levels"),
        (
            b"a: &a [x, x, x, x, x, x, x, x, x]\n"
            + b"".join(
                b"%c: &%c [%s]\n" % (n + 1, n + 1, b", ".join([b"*%c" % n] * 9))
                for n in range(ord("a"), ord("i"))
            ),
            "more than 100,000 values",
        ),
        (b"a: &a [*a]", "more than 100,000 values"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, content: bytes, said: str
) -> None:
    run = make_run(tmp_path)
    save_point(run, 3)
    run.config.write_bytes(content)
    with pytest.raises(ResumeError, match=f"cannot be read.*{said}.*put config.yaml back"):
        resumed_arguments("fit", ["--resume", str(run.path)])


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff", b"{}", b"[" * 100_000])
def test_a_lost_environment_is_said_and_stops_nothing(
    tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture
) -> None:
    run = make_run(tmp_path)
    run.environment.unlink()
    if content is not None:
        run.environment.write_bytes(content)
    begin_session(run, ["fit"], 0)
    assert "environment.json" in capsys.readouterr().out
    end_session(run, 1, "finished")


@pytest.mark.parametrize("sessions", [{"a": 1}, [3], [{"started": "now"}]])
def test_sessions_of_another_kind_lose_the_record_and_stop_nothing(
    tmp_path: Path, sessions: Any, capsys: pytest.CaptureFixture
) -> None:
    run = make_run(tmp_path)
    write_json(run.environment, {**describe_environment(0, ["fit"]), "sessions": sessions})
    assert read_environment(run) == {}
    assert "expected records of sessions" in capsys.readouterr().out


def test_metrics_that_are_not_whole_are_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = make_run(tmp_path)
    run.metrics.write_text('{"rsum": 1')
    assert choose(run, options(run), CONFIG) is not None
    assert "the test is repeated" in capsys.readouterr().out


def test_a_whole_checkpoint_that_is_no_resume_point_is_put_aside(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    save_point(run, 3)
    save_point(run, 6)
    save_checkpoint({"state_dict": {}, "global_step": 9}, run.last)
    found = find_resume_point(run)
    assert (found.checkpoint, found.step, found.damaged) == (run.previous, 3, (run.last,))


@pytest.mark.parametrize(
    "wrong",
    [
        {"global_step": "six"},
        {"loops": {}},
        {"resume": {}},
        {"resume": None},
        {"optimizer_states": []},
        {"optimizer_states": "adam"},
        {"state_dict": [1]},
        {"record": "words"},
    ],
)
def test_a_resume_point_with_a_part_of_another_kind_is_passed_over(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    run = make_run(tmp_path)
    save_point(run, 3)
    save_point(run, 6, **wrong)
    assert find_resume_point(run).step == 3
    save_point(run, 6, **wrong)  # the older one is now of that kind too
    with pytest.raises(ResumeError, match="torn, or no resume point"):
        find_resume_point(run)


def test_latest_is_no_folder_that_a_killed_start_left_behind(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    hidden = tmp_path / ".a.x1.partial"
    hidden.mkdir()
    (hidden / "config.yaml").write_text(run.config.read_text())
    os.utime(hidden / "config.yaml", (2e9, 2e9))
    assert find_run("latest", tmp_path) == run


def test_a_folder_that_cannot_be_locked_is_refused_in_a_sentence(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.lock.unlink()
    run.lock.mkdir()
    with pytest.raises(ResumeError, match=r"can be written and locked.*\(Is a directory: lock\)"):
        choose(run, options(run), CONFIG)


def test_fewer_epochs_than_were_trained_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    save_point(run, 12)
    shorter = {**CONFIG, "trainer": {**CONFIG["trainer"], "max_epochs": 2}}
    with pytest.raises(ResumeError, match=r"trainer\.max_epochs: expected at least 3.*got 2"):
        choose(run, options(run), shorter)


HOLD = """
import sys
from contextlib import ExitStack
from pathlib import Path
from goal_kernels.training.run_folder import RunFolder, lock_run
with ExitStack() as held:
    lock_run(RunFolder(Path(sys.argv[1])), held)
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_folder_belongs_to_one_process_until_that_ends(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    command = [sys.executable, "-c", HOLD, str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(
            RunInUseError, match=rf"being trained by process {other.pid} on .*since"
        ):
            choose(run, options(run), CONFIG)
        other.kill()
    with ExitStack() as held:
        lock_run(run, held)
