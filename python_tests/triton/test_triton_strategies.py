"""Every strategy finds the same pairs: mining whole, against literal loops and with one another."""

from __future__ import annotations

import pytest
import torch
from mining_literal import Case, full_pairing, mined_literally, whole_numbers
from test_triton_mine import HALF_LIFE, check, mine
from torch import Tensor

import goal_kernels as gk
from goal_kernels.backends.base import RELATIVE_KINDS
from goal_kernels.backends.gpu import use_programs, use_strategy
from goal_kernels.backends.gpu.plan import STRIP, TILE

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

ONE_ROUNDED = 8 * torch.finfo(torch.float32).eps
"""Sums that start at the threshold hold the term 1 of the hardest negative and lose it again."""

CASES = (
    Case(1, 1, 1, "one pair"),
    Case(2, 1, 7, "a row without a column"),
    Case(65, 130, 9, "ragged in every dimension, rows that are not aligned"),
    Case(150, 300, 16, "several tiles"),
)


@pytest.mark.usefixtures("strips_of_two_tiles")
@pytest.mark.parametrize("kind", RELATIVE_KINDS)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("paired", [False, True], ids=["implicit", "target+ids"])
def test_exact_data(backend, device, case: Case, kind: str, paired: bool) -> None:
    image = whole_numbers(case.rows, case.width, torch.bfloat16, 1).to(device)
    text = whole_numbers(case.columns, case.width, torch.bfloat16, 2).to(device)
    pairing = full_pairing(case) if paired else (None, None, None)
    relative = (kind, -3.0, HALF_LIFE)
    with use_strategy(STRIP):
        mined = mine(backend, image, text, pairing, relative)
    check(mined, mined_literally(image, text, pairing, relative), kind, ONE_ROUNDED)


@pytest.mark.usefixtures("strips_of_two_tiles")
@pytest.mark.parametrize("kind", ["linear", "exponential"])
def test_nan_and_wide_ranges(backend, device, kind: str) -> None:
    """Sums that are made again: similarities 1000 apart, and the first NaN wins."""
    image = whole_numbers(70, 3, torch.bfloat16, 13)
    text = whole_numbers(140, 3, torch.bfloat16, 14)
    image[:3] *= 512
    pairing = (torch.arange(70), None, None)
    for broken in (False, True):
        if broken:  # without a positive, so that the threshold is a number
            text[[20, 90]] = float("nan")
            pairing[0][20] = -1
        relative = (kind, -3.0, HALF_LIFE)
        with use_strategy(STRIP):
            mined = mine(backend, image.to(device), text.to(device), pairing, relative)
        expected = mined_literally(image, text, pairing, relative)
        check(mined, expected, kind)


def outcome(device, strategy: str, objective: str, dtype: torch.dtype, **options) -> list[Tensor]:
    """Loss and gradients of a batch that is normalised, by one strategy."""
    generator = torch.Generator().manual_seed(40)
    image, text = torch.randn(2, 20, 20, generator=generator).to(device, dtype).requires_grad_()
    with use_strategy(strategy):
        loss = gk.goal_loss(image, text, objective, backend="triton", normalize=True, **options)
        return [loss.detach(), *torch.autograd.grad(loss, (image, text))]


@pytest.mark.parametrize("objective", ["hinge/constant", "circle/linear_ms", "nca/sigmoid_ms"])
@pytest.mark.parametrize(
    ("dtype", "precision"), [(torch.bfloat16, "highest"), (torch.float32, "high")], ids=str
)
def test_losses_agree(backend, device, objective: str, dtype: torch.dtype, precision: str) -> None:
    """Values are recomputed from the pairs, so only the relative sums can differ, by roundings."""
    expected = outcome(device, TILE, objective, dtype, precision=precision)
    for strategy in (TILE, STRIP):
        found = outcome(device, strategy, objective, dtype, precision=precision)
        tolerance = 4 * torch.finfo(dtype).eps if dtype == torch.bfloat16 else 1e-4
        for one, other in zip(found, expected, strict=True):
            scale = other.abs().max().item()
            torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.usefixtures("strips_of_two_tiles")
@pytest.mark.parametrize("kind", RELATIVE_KINDS)
def test_the_number_of_programs_changes_nothing(backend, device, kind: str) -> None:
    generator = torch.Generator().manual_seed(41)
    image, text = torch.randn(2, 200, 16, generator=generator).to(device, torch.bfloat16)
    relative = (kind, 0.0, 1.0)
    results = []
    for programs in (1, 64):
        with use_strategy(STRIP), use_programs(programs):
            results.append(mine(backend, image, text, relative=relative))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_what_a_strategy_cannot_multiply_it_refuses(backend, device) -> None:
    image = torch.ones(4, 3, device=device)
    with use_strategy(STRIP), pytest.raises(NotImplementedError, match="'strip'"):
        gk.mine(image, image, backend="triton", precision="highest")


def test_unknown_names_are_refused() -> None:
    with (
        pytest.raises(ValueError, match="expected one of tile, strip, screen, hopper, got"),
        use_strategy("x"),
    ):
        pass
    with pytest.raises(ValueError, match="at least 1"), use_programs(0):
        pass
