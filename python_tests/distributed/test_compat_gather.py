"""The adapters of `goal_kernels.compat` take negatives of all processes, as their packages do."""

from __future__ import annotations

from importlib.util import find_spec

import compat_tasks
import pytest
import torch
from processes import Processes


@pytest.mark.parametrize("kind", ["open_clip", "sentence_transformers"])
def test_gradient_is_that_of_one_process(processes: Processes, kind: str) -> None:
    value, gradient = compat_tasks.adapted_gradient(kind, [6])
    for rows in ([2, 4], [3, 2, 1]):
        answers = processes.run(len(rows), compat_tasks.adapted_gradient, kind, rows)
        for other, averaged in answers:
            assert other == pytest.approx(value, rel=1e-12)
            torch.testing.assert_close(averaged, gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.skipif(find_spec("open_clip") is None, reason="open_clip is not installed")
@pytest.mark.parametrize(
    ("local_loss", "gather_with_grad", "factor"),
    [(False, True, 1), (True, True, 1), (False, False, 2)],
    ids=["global", "local", "without_grad"],
)
def test_two_pairs_have_the_gradient_of_clip(
    processes: Processes, local_loss: bool, gather_with_grad: bool, factor: int
) -> None:
    """One pair a process, one negative an anchor; gathering without gradients halves ClipLoss's."""
    answers = processes.run(2, compat_tasks.clip_gradients, local_loss, gather_with_grad)
    for clip, goal in answers:
        assert clip.abs().max() > 1e-3
        wanted = factor * 2.0 / compat_tasks.SCALE * clip
        torch.testing.assert_close(goal, wanted, rtol=1e-10, atol=1e-12)
