"""Run folders, environment record, history and recipes."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from goal_kernels.recipes import find_recipe, recipe_names, resolve_recipes
from goal_kernels.training.environment import describe_environment
from goal_kernels.training.history import read_history
from goal_kernels.training.run_folder import (
    RunFolder,
    RunInUseError,
    create_run_folder,
    write_json,
)


def make(root: Path, name: str, fill: Callable[[RunFolder], None] = lambda _: None) -> RunFolder:
    with ExitStack() as held:
        return create_run_folder(root, name, fill, held)


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def look(run: RunFolder) -> None:
        assert not (tmp_path / "demo").exists()
        run.config.write_text("x")

    assert make(tmp_path, "demo", look).config.read_text() == "x"

    def fail(_: RunFolder) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, "other", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_of_two_automatic_starts_at_one_moment_one_is_refused(tmp_path: Path) -> None:
    def other(_: RunFolder) -> None:
        make(tmp_path, "demo", lambda run: run.config.write_text("theirs"))

    with ExitStack() as held, pytest.raises(RunInUseError, match="at the same moment"):
        create_run_folder(tmp_path, "demo", other, held, adopt=True)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    assert (tmp_path / "demo" / "config.yaml").read_text() == "theirs"


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match=r"run\.root: expected a place.*--run\.root"):
        make(tmp_path / "file", "demo")


def test_a_new_run_never_takes_an_older_runs_folder(tmp_path: Path) -> None:
    paths = [make(tmp_path / "runs", "demo").path for _ in range(3)]
    assert [path.name for path in paths] == ["demo", "demo-2", "demo-3"]
    assert all(path.is_dir() for path in paths)


@pytest.mark.parametrize("name", ["", "a/b", "..", "."])
def test_bad_run_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"run\.name"):
        make(tmp_path, name)


def test_environment_is_json_with_seed_and_versions(tmp_path: Path) -> None:
    write_json(tmp_path / "environment.json", describe_environment(7, ["fit"]))
    record = json.loads((tmp_path / "environment.json").read_text())
    assert record["seed"] == 7
    assert record["command"] == ["goal-kernels", "fit"]
    assert record["packages"]["torch"].startswith("2.")


def test_json_refuses_numbers_that_are_not_finite(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"rsum": float("nan")})
    assert not list(tmp_path.iterdir())


def test_history_reads_sparse_columns(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,train/loss,val/rsum\n0,9,4.5,\n0,19,,120\n1,39,,130.5\n")
    history = read_history(path)
    assert history.by_step("train/loss") == [(9.0, 4.5)]
    assert history.by_epoch("val/rsum") == [(1.0, 120.0), (2.0, 130.5)]
    assert history.by_step("unknown") == []
    assert read_history(tmp_path / "none.csv").values == {}


def test_recipes_are_found_by_name_and_by_path(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("seed_everything: 1\n")
    assert {"goalworld", "goalworld_tiny"} <= set(recipe_names())
    assert find_recipe("goalworld").is_file()
    assert find_recipe(str(own)) == own
    given = ["--config", "goalworld", f"--config={own}", "--model.lr", "0.1", "-c", "goalworld"]
    packaged = str(find_recipe("goalworld"))
    assert resolve_recipes(given) == [
        *("--config", packaged),
        *("--config", str(own)),
        *("--model.lr", "0.1"),
        *("--config", packaged),
    ]


def test_unknown_recipe_lists_the_packaged_ones() -> None:
    with pytest.raises(
        FileNotFoundError,
        match=r"got 'nope'; there are .*goalworld, goalworld_fusion, goalworld_late",
    ):
        find_recipe("nope")
