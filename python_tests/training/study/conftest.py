"""A study small enough to be trained whole in a test: made-up data, two objectives, two seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("pytorch_lightning")

from goal_kernels.cli import main
from goal_kernels.training.study import page
from goal_kernels.training.study.gathered import Gathered


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def study_file(folder: Path, tmp_path: Path) -> Path:
    """A study file of one's own."""
    return write_study(folder, tmp_path)


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the study as one uninterrupted command leaves it, but for the pictures.

    Tests take copies.
    """
    place = tmp_path_factory.mktemp("finished")
    study = write_study(folder, place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "draw_all", draw_nothing)
        assert main(["study", "--config", str(study), "--folder", str(place / "whole")]) == 0
    return place / "whole"


def draw_nothing(gathered: Gathered, folder: Path) -> dict[str, str]:
    """No pictures, which take a third of a second each."""
    return {}


@pytest.fixture
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "draw_all", draw_nothing)


def write_study(folder: Path, place: Path) -> Path:
    """4 steps an epoch, 2 epochs, the first of them warm-up; one cell that is warm-up only."""
    base = {
        "run": {"threads": 1},
        "data": {"folder": str(folder), "batch_size": 12},
        "model": {"embed_dim": 16, "text": {"word_dim": 8}, "lr": 0.01, "warmup_steps": 4},
        "trainer": {"accelerator": "cpu", "max_epochs": 2, "log_every_n_steps": 1},
    }
    (place / "base.yaml").write_text(yaml.safe_dump(base))
    study = {
        "name": "small",
        "title": "A small study",
        "base": str(place / "base.yaml"),
        "seeds": [0, 1],
        "set": {"run": {"ridge": True}},
        "groups": [
            {"name": "warmed", "objectives": ["hinge/constant", "nca/sigmoid_ms"]},
            {"name": "sum of hinges", "set": {"model": {"warmup_steps": 8}}},
        ],
    }
    path = place / "small.yaml"
    path.write_text(yaml.safe_dump(study))
    return path
