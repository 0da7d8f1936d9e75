"""Two passes over chunks inside the trainer's one backward, in two processes and in one."""

from __future__ import annotations

import pytest
import torch
from processes import Processes

pytest.importorskip("pytorch_lightning")

import score_tasks
import trainer_tasks


@pytest.mark.parametrize("find_unused", [False, True])
def test_chunks_under_the_trainer_are_averaged_once(
    processes: Processes, find_unused: bool
) -> None:
    expected = trainer_tasks.accumulated_by_the_trainer([12], 1, find_unused)
    for gradients in processes.run(
        2, trainer_tasks.accumulated_by_the_trainer, [6, 6], 3, find_unused
    ):
        torch.testing.assert_close(gradients, expected, rtol=1e-10, atol=1e-12)


def test_all_processes_stop_when_the_loss_of_one_is_not_finite(processes: Processes) -> None:
    stops = processes.run(2, trainer_tasks.steps_until_not_finite, 1, 5)
    assert stops[0] == stops[1] > 5


@pytest.mark.parametrize(
    ("rows", "chunks", "objective", "captioned"),
    [
        ([6, 6], 1, "info_nce", False),
        ([5, 7], 2, "nca/sigmoid_ms", False),
        ([4, 8], 2, "info_nce", True),
    ],
)
def test_scores_of_several_processes_train_as_those_of_one(
    processes: Processes, rows: list[int], chunks: int, objective: str, captioned: bool
) -> None:
    expected = score_tasks.scored([sum(rows)], 1, objective, captioned)
    for got in processes.run(2, score_tasks.scored, rows, chunks, objective, captioned):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)
