"""A study small enough to be trained whole in a test: made-up data, two objectives, two seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("pytorch_lightning")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def study_file(folder: Path, tmp_path: Path) -> Path:
    """4 steps an epoch, 3 epochs, the first of them warm-up; one cell that is warm-up only."""
    base = {
        "run": {"threads": 1},
        "data": {"folder": str(folder), "batch_size": 12},
        "model": {"embed_dim": 16, "text": {"word_dim": 8}, "lr": 0.01, "warmup_steps": 4},
        "trainer": {"accelerator": "cpu", "max_epochs": 3, "log_every_n_steps": 1},
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    study = {
        "name": "small",
        "title": "A small study",
        "base": str(tmp_path / "base.yaml"),
        "seeds": [0, 1],
        "groups": [
            {"name": "warmed", "objectives": ["hinge/constant", "nca/sigmoid_ms"]},
            {"name": "sum of hinges", "set": {"model": {"warmup_steps": 12}}},
        ],
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(study))
    return path
