"""The report of a dataset with neither pictures nor truth, and with hostile captions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("pytorch_lightning")

from goal_kernels import Objective
from goal_kernels.data import TruthRelation, load_split, write_split
from goal_kernels.training.environment import (
    begin_session,
    describe_environment,
    end_session,
)
from goal_kernels.training.evaluation import evaluate
from goal_kernels.training.history import History
from goal_kernels.training.outcome import CheckpointResult, Outcome
from goal_kernels.training.report.curves import _rate_chart
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


def test_a_caption_of_megabytes_is_cut(tmp_path: Path) -> None:
    outcome = make_outcome(tmp_path)
    outcome.split.captions[0] = "z" * 10**6
    page = report_page(outcome, make_run(tmp_path))
    assert "z" * 1000 + "…" in page
    assert len(page) < 100_000


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


def test_recalls_among_siblings_have_rows_and_blanks_where_unknown(tmp_path: Path) -> None:
    outcome = make_outcome(tmp_path)
    siblings = {"dual": {"i2t": 41.5, "t2i": 34.5}, "chance": {"i2t": 33.5, "t2i": 33.0}}
    known = replace(outcome.evaluation, siblings=siblings)
    ridge = outcome.evaluation.metrics
    page = report_page(replace(outcome, evaluation=known, ridge=ridge), make_run(tmp_path))
    row = "text → image, R@1 among siblings</th><td>34.5</td><td>33.0</td><td></td>"
    assert row in page
    assert "among siblings<" not in report_page(outcome, make_run(tmp_path))


def test_sessions_and_both_checkpoints_are_shown(tmp_path: Path) -> None:
    outcome, run = make_outcome(tmp_path), make_run(tmp_path)
    assert "Sessions" not in report_page(outcome, run)
    begin_session(run, ["fit"], 0)
    assert "Sessions" not in report_page(outcome, run)
    begin_session(run, ["fit", "--resume", "latest"], 1200)
    end_session(run, 3400, "finished")
    last = {**outcome.evaluation.metrics, "rsum": 123.4}
    results = {
        "best": CheckpointResult(2, 1000, 222.2, outcome.evaluation.metrics),
        "last": CheckpointResult(3, 3400, None, last),
    }
    page = report_page(replace(outcome, checkpoints=results, selected="best"), run)
    assert "<td>0</td><td>unknown</td><td>killed</td>" in page
    assert "<td>1,200</td><td>3,400</td><td>finished</td>" in page
    assert '<th scope="col">best</th><th scope="col">last</th>' in page
    assert "<td>123.4</td>" in page
    assert "epoch 2, step 1,000, dev rsum 222.2. Last: the end of the training, epoch 3" in page


def test_learning_rates_of_groups_that_share_one_share_a_line() -> None:
    history = History(
        {
            "lr-AdamW/pg1": [(0.0, 1e-3), (1.0, 1e-4)],
            "lr-AdamW/pg2": [(0.0, 1e-3), (1.0, 1e-4)],
            "lr-AdamW/pg3": [(0.0, 1e-5), (1.0, 1e-6)],
        }
    )
    assert [line.name for line in _rate_chart(history).series] == ["AdamW/pg1", "AdamW/pg3"]
