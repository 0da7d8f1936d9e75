"""The log of a run: one row a step, and what came after a resume point is dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pytorch_lightning")

from goal_kernels.training.history import History, read_history
from goal_kernels.training.loggers import HistoryLogger
from goal_kernels.training.report.curves import _epoch_table


def write(path: Path) -> HistoryLogger:
    writer = HistoryLogger(path)
    writer.log_metrics({"lr": 0.5}, 0)
    writer.log_metrics({"train/loss": 4.25, "epoch": 0}, 0)
    writer.log_metrics({"train/loss": 3.0, "epoch": 0}, 1)
    return writer


def test_a_row_holds_everything_of_its_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    write(path).save()
    assert path.read_text() == "step,epoch,lr,train/loss\n0,0,0.5,4.25\n1,0,,3.0\n"


def test_a_new_name_becomes_a_column(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    writer = write(path)
    writer.log_metrics({"val/rsum": 120.0}, 1)
    writer.save()
    assert read_history(path).by_step("val/rsum") == [(1.0, 120.0)]
    assert read_history(path).by_step("train/loss") == [(0.0, 4.25), (1.0, 3.0)]


def test_a_resumed_log_equals_one_that_never_stopped(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.csv", tmp_path / "cut.csv"
    state = write(path).state_dict()
    lost = HistoryLogger(path)
    lost.load_state_dict(state)
    lost.log_metrics({"val/rsum": 99.0, "train/loss": 2.0}, 2)
    lost.log_metrics({"train/loss": 1.0}, 3)  # never written: the process was killed
    resumed = HistoryLogger(path)
    resumed.load_state_dict(state)
    assert path.read_text().count("\n") == 3
    assert "val/rsum" not in path.read_text()
    never_stopped = write(whole)
    for writer in (resumed, never_stopped):
        writer.log_metrics({"train/loss": 2.5, "val/rsum": 130.0}, 2)
        writer.save()
    assert path.read_text() == whole.read_text()


def test_a_log_that_was_taken_away_begins_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    writer = write(path)
    state = writer.state_dict()
    path.unlink()
    writer.load_state_dict(state)
    writer.log_metrics({"train/loss": 2.0}, 2)
    writer.save()
    assert read_history(path).by_step("train/loss") == [(2.0, 2.0)]


def test_a_state_before_anything_was_logged_empties_the_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    state = HistoryLogger(path).state_dict()
    write(path).save()
    begun_again = HistoryLogger(path)
    begun_again.load_state_dict(state)
    begun_again.log_metrics({"train/loss": 9.0}, 0)
    begun_again.save()
    assert read_history(path).by_step("train/loss") == [(0.0, 9.0)]


def test_a_row_that_was_cut_short_is_lost_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "metrics.csv"
    state = write(path).state_dict()
    text = path.read_text()
    for cut in (1, 3, 6):  # the end of the line alone; within the last number; a cell is gone
        path.write_text(text[:-cut])
        assert read_history(path).by_step("train/loss") == [(0.0, 4.25)]
        resumed = HistoryLogger(path)
        resumed.load_state_dict(state)
        assert "has 1 of the 2 rows" in capsys.readouterr().out
        assert path.read_text().splitlines() == text.splitlines()[:2]
    path.write_text(text.replace(",3.0", ""))
    with pytest.warns(UserWarning, match="left out 1 of 2 rows"):
        assert read_history(path).by_step("lr") == [(0.0, 0.5)]


def test_a_log_that_lost_a_column_makes_a_table_without_rows() -> None:
    assert "<tbody></tbody>" in _epoch_table(History({"val/rsum": [(3.0, 120.0)]}))
