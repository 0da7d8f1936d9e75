"""Tuned studies: what is tried, the choice on dev alone, going on after a kill, and the page."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from made_results import made

from goal_kernels.cli import main
from goal_kernels.training.study import jobs, page
from goal_kernels.training.study.gathered import choose, gather, read_trials
from goal_kernels.training.study.page import page_text
from goal_kernels.training.study.recipe import Cell, StudyRecipe, read_study
from goal_kernels.training.study.results import read_result
from goal_kernels.training.study.training import Trained

OBJECTIVES = ["hinge/constant", "nca/constant", "constant/constant", "hinge/sigmoid_ms"]
TUNING = {
    "trials": 4,
    "seeds": [10, 11],
    "settings": {"defaults": {}, "tau 1": {"tau": 1.0}},
    "ranges": {"tau": [1, 100, "log"], "margin": [0, 1, "linear"], "lam": [0.1, 0.9, "linear"]},
}


def write(place: Path, tuning: dict, objectives: list[str] = OBJECTIVES) -> str:
    (place / "base.yaml").write_text("data: {folder: data/made}\nmodel: {lr: 1.0}")
    study = {
        "name": "made",
        "base": str(place / "base.yaml"),
        "baseline": "hinge/constant",
        "seeds": [0, 1, 2],
        "groups": [{"name": "tuned", "objectives": objectives}],
        "tuning": tuning,
    }
    path = place / "tuned.yaml"
    path.write_text(yaml.safe_dump(study))
    return str(path)


@pytest.fixture
def recipe(tmp_path: Path) -> StudyRecipe:
    return read_study(write(tmp_path, TUNING))


def test_trials_are_settings_and_a_latin_hypercube(recipe: StudyRecipe) -> None:
    tuning = recipe.tuning
    assert tuning is not None
    assert tuning.of("constant/constant") == [{}]
    hinge, nca = tuning.of("hinge/constant"), tuning.of("nca/constant")
    assert hinge[0] == {}
    assert sorted(trial["margin"] for trial in hinge[1:]) == [0.167, 0.5, 0.833]
    assert nca[:2] == [{}, {"tau": 1.0}]
    assert sorted(trial["tau"] for trial in nca[2:]) == [3.16, 31.6]
    several = tuning.of("hinge/sigmoid_ms")  # alpha, beta and epsilon have no range here
    assert len(several) == len(hinge) == len(nca) == 4
    assert sorted(trial["lam"] for trial in several[1:]) == [0.233, 0.5, 0.767]
    assert [trial["margin"] for trial in several[1:]] == [trial["margin"] for trial in hinge[1:]]


def test_trials_depend_on_the_seed_and_on_no_other_objective(tmp_path: Path) -> None:
    def drawn(tuning: dict, objectives: list[str]) -> dict[str, list]:
        found: dict[str, list] = {}
        for cell in read_study(write(tmp_path, tuning, objectives)).trial_cells():
            model = cell.config["model"]
            parameters = model.get("objective_parameters", {})
            found.setdefault(model["objective"], []).append((cell.seed, dict(parameters)))
        return found

    whole = drawn({**TUNING, "trials": 12}, OBJECTIVES)
    assert drawn({**TUNING, "trials": 12}, OBJECTIVES[::-1]) == whole
    alone = drawn({**TUNING, "trials": 12}, OBJECTIVES[3:])
    assert alone == {OBJECTIVES[3]: whole[OBJECTIVES[3]]}
    assert drawn({**TUNING, "trials": 12, "seed": 1}, OBJECTIVES) != whole


def test_the_packaged_tuned_study() -> None:
    recipe = read_study("tuned")
    assert recipe.tuning is not None
    cells = recipe.trial_cells()
    assert {cell.config["data"]["test_split"] for cell in cells} == {"dev"}
    assert len({cell.name for cell in cells}) == len(cells)
    assert len({cell.warmup_key for cell in cells}) == len(recipe.tuning.seeds)
    for objective in recipe.groups[0].objectives:
        trials = recipe.tuning.of(objective)
        assert len(trials) == (recipe.tuning.trials if recipe.tuning.names(objective) else 1)
    assert {"tau": 1.0} in recipe.tuning.of("nca/constant")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trails": 4}, r"tuning\.trails: expected one of trials, seeds"),
        ({"seeds": [2, 10]}, r"tuning\.seeds: expected none of the study's, got \[2\]"),
        ({"seeds": []}, r"tuning\.seeds: expected a list"),
        ({"trials": 2}, r"tuning\.trials: expected a whole number from 3 on, .* got 2"),
        ({"ranges": {}}, r"tuning\.ranges: expected names with values, got \{\}"),
        ({"ranges": {"tua": [1, 2, "log"]}}, r"tuning\.ranges\.tua: expected one of tau"),
        ({"ranges": {"tau": [0, 1, "log"]}}, r"tuning\.ranges\.tau: expected \[low, high, scale\]"),
        ({"ranges": {"tau": 3}}, r"tuning\.ranges\.tau: .* got 3"),
        (
            {"settings": {"a": {"alpha": 1}}},
            r"tuning\.settings\.a: expected values of some of lam, margin, tau",
        ),
    ],
)
def test_a_bad_tuning_is_explained(tmp_path: Path, change: dict, message: str) -> None:
    tuning = {**TUNING, "settings": {"defaults": {}, "b": {}}, **change}
    with pytest.raises(ValueError, match=message):
        read_study(write(tmp_path, tuning))


def test_a_tuned_study_has_one_group(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="groups: expected one group with objectives"):
        read_study(write(tmp_path, TUNING, []))


@pytest.fixture
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than the test."""
    monkeypatch.setattr(page, "draw_all", lambda *_: {})


class Killed(BaseException):
    """What stops a process without asking its exception handlers."""


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    """The cells "trained", in order: on dev larger values are better, on test smaller ones."""
    cells: list[Cell] = []

    def train(cell: Cell, _warmup: object) -> Trained:
        cells.append(cell)
        split = cell.config["data"].get("test_split", "test")
        given = cell.config["model"].get("objective_parameters", {})
        rsum = 300 + sum(given.values()) * (1 if split == "dev" else -1) + cell.seed % 3
        part = dict.fromkeys(("R@1", "R@5", "R@10"), rsum / 6)
        metrics = {"i2t": part, "t2i": part, "rsum": rsum}
        return made(metrics, metrics, split)

    monkeypatch.setattr(jobs, "train_cell", train)
    return cells


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., int]:
    """The command, with its results in `out`."""
    command = ["study", "--config", write(tmp_path, TUNING), "--folder", str(tmp_path / "out")]
    return lambda *options: main([*command, *options])


@pytest.mark.usefixtures("_no_pictures")
def test_the_best_on_dev_goes_on(
    recipe: StudyRecipe, trained: list[Cell], run: Callable[..., int], tmp_path: Path
) -> None:
    """Where dev and test disagree, the choice is the one of dev."""
    assert run() == 0
    results = tmp_path / "out" / "results"
    trials = read_trials(recipe, results)
    chosen = choose(recipe, trials)
    assert chosen["hinge/constant"] == {"margin": 0.833}
    assert chosen["nca/constant"] == {"tau": 31.6}
    assert chosen["constant/constant"] == {}
    assert choose(recipe, {"nca/constant": [3, 5, 5, 1]}) == {"nca/constant": {"tau": 1.0}}
    tuned = read_result(results / "hinge-constant-seed2.jsonl").header["config"]["model"]
    assert tuned["objective_parameters"] == {"margin": 0.833}
    first = next(i for i, cell in enumerate(trained) if cell.seed < 10)
    assert all(cell.seed >= 10 for cell in trained[:first])
    assert all(cell.seed < 10 for cell in trained[first:])
    names = {cell.name for cell in trained[first:]}
    # Tuned, beside it the defaults unless they are the choice, and tau 1 where there is a tau.
    assert len(names) == len(trained[first:]) == 3 * (4 + 3 + 1)
    assert "constant-constant-defaults-seed0" not in names


@pytest.mark.usefixtures("_no_pictures")
def test_a_killed_tuned_study_goes_on(
    trained: list[Cell],
    run: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    really, kept = jobs.write_result, []
    for stop in (5, 40):  # in the trials, in the finals
        trained.clear()

        def killed(path: Path, *rest: object, stop: int = stop) -> None:
            if len(kept) == stop:
                raise Killed
            really(path, *rest)
            kept.append(path.name)

        with monkeypatch.context() as patch:
            patch.setattr(jobs, "write_result", killed)
            with pytest.raises(Killed):
                run()
    trained.clear()
    assert run() == 0
    files = sorted(path.name for path in (tmp_path / "out" / "results").iterdir())
    assert len(files) == 2 * (4 + 4 + 4 + 1) + 24
    assert sorted([*kept, *(f"{cell.name}.jsonl" for cell in trained)]) == files


def test_the_page_of_a_tuned_study(
    recipe: StudyRecipe, trained: list[Cell], run: Callable[..., int], tmp_path: Path
) -> None:
    assert run() == 0
    out = tmp_path / "out"
    text = (out / "page.md").read_text()
    assert "![trials on dev" in text
    assert (out / "trials.png").read_bytes().startswith(b"\x89PNG")
    assert "| hinge/constant | margin 0.833↑ | 4 | 302.3 | 301.5 | 301.5 |" in text
    # The choice of dev costs 0.833 on this test split, in all seeds alike.
    assert "| hinge/constant | 3 | 300.2 | 301.0 | -0.8 | -0.8 to -0.8 | < 0.001 |" in text
    assert "| | seeds | tau 1 | defaults | Δ | 95 % interval | p |" in text
    assert "| nca/constant | 3 | 300.0 | 301.0 | -1.0 | -1.0 to -1.0 | < 0.001 |" in text
    # An objective that lacks a trial is no part of the finals.
    for path in (out / "results").glob("nca-constant-trial-3-seed11.jsonl"):
        path.unlink()
    shutil.rmtree(out / "work", ignore_errors=True)
    trials = read_trials(recipe, out / "results")
    assert sorted(trials) == sorted(set(OBJECTIVES) - {"nca/constant"})
    finals = recipe.finals(choose(recipe, trials))
    part = page_text(gather(finals, finals.cells(), out / "results", trials), {})
    assert "| nca/constant |" not in part
