"""The comparators must fail on planted faults, or passing them means nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cases import paired_batch
from comparators import check_against_truth, float64_truth

import goal_kernels as gk
from goal_kernels.backends.answers import Mined

OBJECTIVE = gk.Objective("nca", "sigmoid_ms")
Outcome = list


def sound_outcome(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, Outcome]:
    image, text = paired_batch(33, 16, dtype, seed=5)
    truth = float64_truth(image, text, OBJECTIVE)
    outcome = [
        truth.positive.float(),
        truth.mined,
        truth.weighted.value.float(),
        truth.grad_image.to(dtype),
        truth.grad_text.to(dtype),
    ]
    return image, text, outcome


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rounded_truth_passes(dtype) -> None:
    image, text, outcome = sound_outcome(dtype)
    check_against_truth(image, text, OBJECTIVE, tuple(outcome))


def zero_a_row(outcome: Outcome) -> None:
    outcome[3][7] = 0


def flip_a_sign(outcome: Outcome) -> None:
    outcome[4][3, 2] *= -1


def scale_by_one_percent(outcome: Outcome) -> None:
    outcome[3] *= 1.01


def scale_slightly(outcome: Outcome) -> None:
    outcome[3] *= 1 + 1e-3


def swap_two_rows(outcome: Outcome) -> None:
    outcome[4][[1, 2]] = outcome[4][[2, 1]]


def nan_in_gradient(outcome: Outcome) -> None:
    outcome[3][0, 0] = float("nan")


def halve_one_contribution(outcome: Outcome) -> None:
    outcome[3][11] *= 0.5


def shift_the_value(outcome: Outcome) -> None:
    outcome[2] = outcome[2] + 1e-2


def shift_a_positive(outcome: Outcome) -> None:
    outcome[0][4] += 1e-4


def _with_mined(outcome: Outcome, **fields: torch.Tensor) -> None:
    outcome[1] = Mined(*outcome[1])._replace(**fields)


def mine_the_second_hardest(outcome: Outcome) -> None:
    index = outcome[1].row_index.clone()
    index[2] = (index[2] + 1) % 33 if (index[2] + 1) % 33 != 2 else (index[2] + 2) % 33
    _with_mined(outcome, row_index=index)


def mine_the_positive(outcome: Outcome) -> None:
    index = outcome[1].column_index.clone()
    index[9] = 9
    _with_mined(outcome, column_index=index)


def index_out_of_range(outcome: Outcome) -> None:
    index = outcome[1].row_index.clone()
    index[0] = -1
    _with_mined(outcome, row_index=index)


def shift_a_negative(outcome: Outcome) -> None:
    value = outcome[1].row_value.clone()
    value[5] -= 1e-4
    _with_mined(outcome, row_value=value)


FAULTS: tuple[Callable[[Outcome], None], ...] = (
    zero_a_row,
    flip_a_sign,
    scale_by_one_percent,
    scale_slightly,
    swap_two_rows,
    nan_in_gradient,
    halve_one_contribution,
    shift_the_value,
    shift_a_positive,
    mine_the_second_hardest,
    mine_the_positive,
    index_out_of_range,
    shift_a_negative,
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_planted_fault_is_caught(fault) -> None:
    image, text, outcome = sound_outcome()
    fault(outcome)
    with pytest.raises((AssertionError, IndexError)):
        check_against_truth(image, text, OBJECTIVE, tuple(outcome))


@pytest.mark.parametrize("fault", [zero_a_row, flip_a_sign, swap_two_rows, nan_in_gradient])
def test_planted_fault_is_caught_in_bfloat16(fault) -> None:
    image, text, outcome = sound_outcome(torch.bfloat16)
    fault(outcome)
    with pytest.raises(AssertionError):
        check_against_truth(image, text, OBJECTIVE, tuple(outcome))
