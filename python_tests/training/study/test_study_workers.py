"""Stages of work in one process and in several: order, faults, progress."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from made_work import Fail, Leave

from goal_kernels.training.study.workers import WorkFailed, run_stages


def test_one_process_works_in_order_and_tells_how_much_is_left(tmp_path: Path) -> None:
    told: list[tuple[int, int, str, float]] = []
    stages = [[Leave(tmp_path / "a")], [Leave(tmp_path / "b"), Leave(tmp_path / "c")]]
    run_stages(stages, 1, lambda *news: told.append(news))
    assert [news[:3] for news in told] == [(1, 3, "a: left"), (2, 3, "b: left"), (3, 3, "c: left")]
    assert told[-1][3] == 0.0
    assert min(news[3] for news in told[:2]) > 0
    assert (tmp_path / "a").read_text() == str(os.getpid())


def test_two_processes_work_at_once_and_a_stage_waits_for_the_one_before(tmp_path: Path) -> None:
    # The first waits for a file of the second: one process alone would never end.
    first = [Leave(tmp_path / "a", after=tmp_path / "b"), Leave(tmp_path / "b")]
    told: list[str] = []
    run_stages(
        [first, [Leave(tmp_path / "c")]], 2, lambda done, total, what, left: told.append(what)
    )
    assert told == ["b: left", "a: left", "c: left"]
    processes = {(tmp_path / name).read_text() for name in "ab"}
    assert len(processes) == 2
    assert str(os.getpid()) not in processes
    assert (tmp_path / "c").read_text() in processes  # interpreters are started once


def test_a_fault_is_named_and_ends_the_rest(tmp_path: Path) -> None:
    stages = [[Leave(tmp_path / "a"), Fail("b"), Leave(tmp_path / "c")], [Leave(tmp_path / "d")]]
    with pytest.raises(WorkFailed, match="b: ValueError: cannot be done; what was finished"):
        run_stages(stages, 1, lambda *_: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]
