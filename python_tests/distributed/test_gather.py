"""Gathered rows, and the loss over them, against a single process with all rows."""

from __future__ import annotations

import pytest
import tasks
import torch
from processes import Processes

SPLITS = [[4, 4], [5, 3], [3, 1, 4], [0, 5]]


@pytest.mark.parametrize("rows", SPLITS)
def test_rows_come_in_order_of_the_ranks(processes: Processes, rows: list[int]) -> None:
    for seen in processes.run(len(rows), tasks.gathered, rows):
        assert seen.tolist() == [[i, i] for i in range(sum(rows))]


def test_a_single_process_keeps_its_tensor() -> None:
    from goal_kernels.distributed import gather_rows, rows_per_rank

    tensor = torch.ones(3, 2)
    assert gather_rows(tensor) is tensor
    assert rows_per_rank(3) == [3]


def test_rows_that_do_not_fit_are_refused(processes: Processes) -> None:
    for rank, said in enumerate(processes.run(2, tasks.wrong_rows)):
        assert said.startswith(f"rows: expected 2 numbers, 3 at place {rank}, got [4, 4]")


@pytest.mark.parametrize("rows", [[5, 5], [4, 2, 4]])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("averaged", [True, False])
def test_loss_and_gradients_are_those_of_one_process(
    processes: Processes, rows: list[int], reduction: str, averaged: bool
) -> None:
    options = {"reduction": reduction, "backend": "reference"}
    value, gradient, hardest = tasks.loss_and_gradients([sum(rows)], options)
    answers = processes.run(len(rows), tasks.loss_and_gradients, rows, options, averaged)
    # Parameters see the mean over the processes (or their sum): of rows that only one of them has.
    factor = len(rows) if averaged else 1
    for _, part, _ in answers:
        assert part.abs().max() > 0
    together = torch.cat([part for _, part, _ in answers], dim=1)
    torch.testing.assert_close(together, factor * gradient, rtol=1e-12, atol=1e-14)
    for other, _, indices in answers:
        assert other == pytest.approx(value, rel=1e-13)
        assert torch.equal(indices, hardest)


def test_directions_are_those_of_one_process(processes: Processes) -> None:
    options, objective = {"backend": "reference"}, "nca/sigmoid/tangent"
    _, expected, _ = tasks.loss_and_gradients([9], options, False, objective)
    answers = processes.run(2, tasks.loss_and_gradients, [5, 4], options, False, objective)
    together = torch.cat([part for _, part, _ in answers], dim=1)
    torch.testing.assert_close(together, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize(
    "rows", [([5, 3], [9, 7]), ([2, 4, 1], [6, 3, 5]), ([0, 5], [2, 9])], ids=str
)
def test_several_texts_an_image_are_those_of_one_process(
    processes: Processes, rows: tuple[list[int], list[int]], reduction: str
) -> None:
    options = {"reduction": reduction, "backend": "reference"}
    value, image, text, hardest = tasks.captioned(*rows, options)
    answers = processes.run(len(rows[0]), tasks.captioned, *rows, options)
    known = {**options, "rows": rows[0], "text_rows": rows[1]}
    for found in (answers, processes.run(len(rows[0]), tasks.captioned, *rows, known)):
        for place, expected in ((1, image), (2, text)):
            together = torch.cat([answer[place] for answer in found])
            torch.testing.assert_close(together, expected, rtol=1e-12, atol=1e-14)
        for other, _, _, indices in found:
            assert other == pytest.approx(value, rel=1e-13)
            assert torch.equal(indices, hardest)


def test_transforms_of_torch_func(processes: Processes) -> None:
    """A tangent that the collective dropped would look like a derivative of zero."""
    expected, _ = tasks.transformed([8])
    answers = processes.run(2, tasks.transformed, [5, 3])
    assert all(said.startswith("This loss has no forward-mode") for _, said in answers)
    together = torch.cat([gradient for gradient, _ in answers], dim=1)
    torch.testing.assert_close(together, 2 * expected, rtol=1e-12, atol=1e-14)
