"""Two and three processes train as one does: augmentation, loss, gradients, batch statistics."""

from __future__ import annotations

from typing import Any

import pytest
import tasks
import torch
from processes import Processes


@pytest.mark.parametrize(
    ("rows", "make"),
    [
        ([6, 6], tasks.make_batch),
        ([5, 3, 4], tasks.make_batch),
        ([5, 7], tasks.make_captioned),
    ],
)
def test_augmentation_is_that_of_the_whole_batch(
    processes: Processes, rows: list[int], make: Any
) -> None:
    mask, tokens, lengths, _ = tasks.augmented([sum(rows)], make)
    answers = processes.run(len(rows), tasks.augmented, rows, make)
    assert torch.equal(torch.cat([answer[0] for answer in answers]), mask)
    assert torch.equal(torch.cat([answer[1] for answer in answers]), tokens)
    assert torch.equal(torch.cat([answer[2] for answer in answers]), lengths)
    assert [len(answer[3]) for answer in answers] == rows
    untouched = make(sum(rows), 0)
    assert not torch.equal(tokens, untouched.tokens)
    assert not torch.equal(mask, untouched.image_mask)


@pytest.mark.parametrize(
    ("rows", "objective", "dtype", "make", "memory"),
    [
        ([6, 6], "nca/sigmoid_ms", torch.float64, tasks.make_batch, 0),
        ([4, 4, 4], "hinge/constant", torch.float64, tasks.make_batch, 0),
        ([3, 7, 2], "nca/sigmoid_ms", torch.float64, tasks.make_batch, 0),
        ([6, 6], "circle/linear_ms", torch.float32, tasks.make_batch, 0),
        ([5, 7], "nca/sigmoid_ms", torch.float64, tasks.make_captioned, 0),
        ([2, 1, 6], "hinge/constant", torch.float64, tasks.make_captioned, 0),
        ([5, 7], "nca/sigmoid_ms", torch.float64, tasks.make_batch, 16),
        ([2, 1, 6], "hinge/constant", torch.float64, tasks.make_captioned, 10),
        ([5, 7], "nca/sigmoid_ms", torch.float64, tasks.make_chosen, 0),
        ([5, 7], "nca/sigmoid_ms", torch.float64, tasks.make_chosen, 10),
    ],
)
def test_training_is_that_of_one_process(
    processes: Processes,
    rows: list[int],
    objective: str,
    dtype: torch.dtype,
    make: Any,
    memory: int,
) -> None:
    options = objective, dtype, make, memory
    losses, gradients, parameters, statistics = tasks.trained([sum(rows)], *options)
    # Rounding of 1e-16 and 1e-7 grows over the steps of training.
    bound = 1e-8 if dtype == torch.float64 else 1e-4
    for answer in processes.run(len(rows), tasks.trained, rows, *options):
        torch.testing.assert_close(answer[0], losses, rtol=bound, atol=0)
        for got, wanted in zip(answer[1], gradients, strict=True):
            assert (got - wanted).norm() <= bound * wanted.norm()
        torch.testing.assert_close(answer[2], parameters, rtol=bound, atol=bound)
        assert statistics
        for name, value in statistics.items():
            torch.testing.assert_close(answer[3][name], value, rtol=bound, atol=bound)


def test_chunks_of_several_processes_are_one_batch(processes: Processes) -> None:
    value, gradient = tasks.accumulated([12], 1)
    for other, averaged in processes.run(2, tasks.accumulated, [6, 6], 3):
        assert other == pytest.approx(value, rel=1e-12)
        torch.testing.assert_close(averaged, gradient, rtol=1e-10, atol=1e-12)
