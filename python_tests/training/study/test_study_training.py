"""A cell of a study is a run of `fit`: from the shared warm-up, from scratch, by the command."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from goal_kernels.cli import main
from goal_kernels.recipes import overlaid
from goal_kernels.training.study.jobs import plan
from goal_kernels.training.study.recipe import Cell, read_study
from goal_kernels.training.study.training import (
    Warmup,
    can_branch,
    steps_per_epoch,
    train_cell,
    train_warmup,
    weights_digest,
)


@pytest.fixture
def cell(study_file: Path) -> Cell:
    """nca/sigmoid_ms, seed 1."""
    return next(c for c in read_study(str(study_file)).cells() if c.name == "nca-sigmoid_ms-seed1")


@pytest.fixture
def warmup(tmp_path: Path) -> Warmup:
    return Warmup(tmp_path / "warm.ckpt", tmp_path / "warm.json")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"trainer": {"val_check_interval": 2}, "model": {"warmup_margin": 0.3}},
        {"trainer": {"limit_train_batches": 2, "max_epochs": 4}},
    ],
    ids=["epochs", "validation inside them, another margin", "short epochs"],
)
def test_a_branch_from_the_warmup_of_another_objective_equals_training_from_scratch(
    cell: Cell, warmup: Warmup, options: dict
) -> None:
    cell = Cell("", "", cell.seed, overlaid(cell.config, options))
    assert can_branch(cell)
    assert cell.warmup_steps % steps_per_epoch(cell) == 0
    changed: dict = {
        "objective": "hinge/linear",
        "negatives": "skip:2",
        "false_negative_margin": 0.1,
    }
    if "model" in options:
        changed["objective_parameters"] = {"margin": 0.6}
    other = Cell("", "", cell.seed, overlaid(cell.config, {"model": changed}))
    assert other.warmup_key == cell.warmup_key
    train_warmup(other, warmup)
    assert warmup.complete
    branched, whole = train_cell(cell, warmup), train_cell(cell, None)
    for name in ("weights_sha256", "metrics", "steps"):
        assert branched.result[name] == whole.result[name]
    assert whole.result["steps"] == 8
    assert whole.history["train/loss"][0] == list(range(8))
    # Which anchors are active is a matter of the objective, so the shared warm-up cannot know.
    for name in ("active_fraction", "mean_absolute_gap", "mean_hardest_negative"):
        logged = [trained.history.pop(f"mining/{name}")[0] for trained in (branched, whole)]
        assert logged == [list(range(4, 8)), list(range(8))]
    assert branched.history == whole.history


def test_the_command_fit_gives_the_same_weights(
    cell: Cell, warmup: Warmup, study_file: Path, tmp_path: Path
) -> None:
    train_warmup(cell, warmup)
    trained = train_cell(cell, warmup)
    arguments = [
        *("fit", "--config", str(study_file.parent / "base.yaml")),
        *("--model.objective", "nca/sigmoid_ms", "--seed_everything", "1"),
        *("--run.root", str(tmp_path / "runs"), "--run.name", "same"),
    ]
    assert main(arguments) == 0
    last = torch.load(tmp_path / "runs/same/checkpoints/last.ckpt", weights_only=True)
    state = {
        name.removeprefix("model."): weight
        for name, weight in last["state_dict"].items()
        if name.startswith("model.")
    }
    assert weights_digest(state) == trained.result["weights_sha256"]


def test_the_digest_of_weights_sees_one_bit() -> None:
    state = {"a": torch.zeros(3), "b": torch.ones(2)}
    changed = {"a": torch.tensor([0.0, 0.0, -0.0]), "b": torch.ones(2)}
    assert weights_digest(state) == weights_digest(dict(reversed(state.items())))
    assert weights_digest(state) != weights_digest(changed)


def test_a_warmup_that_ends_inside_an_epoch_cannot_be_shared(cell: Cell, warmup: Warmup) -> None:
    assert steps_per_epoch(cell) == 4
    inside = Cell("", "", 0, overlaid(cell.config, {"model": {"warmup_steps": 6}}))
    with pytest.raises(ValueError, match=r"model\.warmup_steps: expected .* got 6"):
        train_warmup(inside, warmup)
    assert not warmup.complete
    assert not list(warmup.checkpoint.parent.glob("*.partial"))


def test_jobs_can_go_to_other_processes(study_file: Path, tmp_path: Path) -> None:
    stages = plan("small", read_study(str(study_file)).cells(), tmp_path / "r", tmp_path / "w")
    assert [len(stage) for stage in stages] == [2, 6]
    assert pickle.loads(pickle.dumps(stages)) == stages


def test_a_budget_of_steps_is_never_resumed_since_that_would_lose_some(
    cell: Cell, warmup: Warmup, tmp_path: Path
) -> None:
    limited = Cell("", "limited", 1, overlaid(cell.config, {"trainer": {"max_steps": 6}}))
    assert not can_branch(limited)
    assert plan("", [limited, limited], tmp_path, tmp_path)[0] == []
    assert train_cell(limited, None).result["steps"] == 6
    train_warmup(limited, warmup)
    with pytest.raises(RuntimeError, match="expected to train 6 steps, trained"):
        train_cell(limited, warmup)


@pytest.mark.parametrize("section", ["data", "model"])
def test_unknown_options_are_named(cell: Cell, section: str) -> None:
    wrong = Cell("", "", 0, overlaid(cell.config, {section: {"wdth": 3}}))
    with pytest.raises(ValueError, match=rf"{section}\.wdth: expected one of"):
        train_cell(wrong, None)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"objective": "circle/linear"}, True),
        ({"objective_parameters": {"tau": 5.0}}, True),
        ({"negatives": "semi_hard", "false_negative_ratio": 1.5}, True),
        ({"negatives": "semi_hard", "hold_on_collapse": True}, False),
        ({"mask_same_image": False}, False),
        ({"objective_parameters": {"margin": 0.1}}, False),
        ({"lr": 0.02}, False),
        ({"warmup_steps": 8}, False),
    ],
)
def test_which_cells_share_a_warmup(cell: Cell, changes: dict, same: bool) -> None:
    other = Cell("", "", cell.seed, overlaid(cell.config, {"model": changes}))
    assert (other.warmup_key == cell.warmup_key) is same
    assert Cell("", "", 0, cell.config).warmup_key != cell.warmup_key
