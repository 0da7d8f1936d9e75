"""The report of a dataset with neither pictures nor truth, and with hostile captions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("pytorch_lightning")

from goal_kernels import Objective
from goal_kernels.data import TruthRelation, load_split, write_split
from goal_kernels.training.environment import describe_environment
from goal_kernels.training.evaluation import evaluate
from goal_kernels.training.outcome import Outcome
from goal_kernels.training.report.gallery import MARKS, SHOWN, Gallery
from goal_kernels.training.report.page import report_page
from goal_kernels.training.run_folder import RunFolder, write_json

IMAGES = 6


def make_outcome(folder: Path, truth: TruthRelation | None = None) -> Outcome:
    """Six images, one caption each; the caption of image i ranks image i + 1 first."""
    captions = [f"caption {i} <script>alert(1)</script>" for i in range(IMAGES)]
    features = torch.rand(IMAGES, 2, 3).numpy()
    write_split(folder, "test", features, captions, truth=truth)
    wrong = torch.arange(1, IMAGES + 1) % IMAGES
    return Outcome(
        evaluation=evaluate(torch.eye(IMAGES), torch.eye(IMAGES)[wrong], torch.arange(IMAGES)),
        split=load_split(folder, "test"),
        oracle=None,
        objective=Objective("nca", "constant"),
        seed=0,
        epochs=0,
        seconds=75.0,
        warmup_steps=0,
    )


def make_run(folder: Path) -> RunFolder:
    run = RunFolder(folder)
    run.config.write_text("model:\n  note: </pre><script>\n")
    write_json(run.environment, describe_environment(0, ["test", "--x", "<i>"]))
    return run


def test_page_without_truth_pictures_history_or_oracle(tmp_path: Path) -> None:
    page = report_page(make_outcome(tmp_path), make_run(tmp_path))
    assert "other image" in page
    assert "✗ wrong" not in page
    assert 'class="card">image 1: caption 1' in page
    assert "<img" not in page
    assert "<svg" not in page
    assert "1 min 15 s" in page
    assert "No oracle is recorded" in page


def test_everything_from_outside_is_escaped(tmp_path: Path) -> None:
    page = report_page(make_outcome(tmp_path), make_run(tmp_path))
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;i&gt;" in page


def test_marks_follow_the_truth(tmp_path: Path) -> None:
    also_true = [torch.tensor([i, i + 1] if i == 2 else [i]).numpy() for i in range(IMAGES)]
    gallery = Gallery(make_outcome(tmp_path, TruthRelation.from_rows(also_true, IMAGES)))
    shown = gallery.text_queries()
    marks = {mark: shown.count(f">{mark}<") for mark in MARKS.values()}
    assert marks["≈ also true"] == 1
    assert marks["✓ match"] + marks["✗ wrong"] + marks["≈ also true"] == IMAGES * SHOWN
    assert marks["✓ match"] + marks["its image"] == IMAGES
    query = shown[shown.index("“caption 2") :]
    assert query.index("≈ also true") < query.index("✗ wrong")
    assert "Its image is at place 2 of 6" in query
