"""Two passes over chunks inside the trainer's one backward, in two processes and in one."""

from __future__ import annotations

import pytest
import torch
from processes import Processes

pytest.importorskip("pytorch_lightning")

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
