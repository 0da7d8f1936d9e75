"""How far products of float32 rows in bfloat16 parts can be from those in float64."""

from __future__ import annotations

import math

import pytest
import torch
from rank_cases import cut_sum
from torch import Tensor

from goal_kernels.backends.gpu.score_bounds import BFLOAT16_LOSS, product_error


def rounded(value: float) -> float:
    return torch.tensor(value).bfloat16().item()


def split(row: Tensor) -> list[tuple[float, float]]:
    """The two bfloat16 parts that stand for each float32."""
    highs = [(x, rounded(x)) for x in row.tolist()]
    return [(high, rounded(x - high)) for x, high in highs]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("step", [4, 16])
def test_the_bound_holds_for_rounded_parts_and_cut_sums(step, sign) -> None:
    """Positive numbers just below the middle of two bfloat16 lose the most, all one way."""
    generator = torch.Generator().manual_seed(step)
    for width in (1, 5, 64, 700):
        x, y = (
            (1 + torch.randint(0, 3, (width,), generator=generator) * 2.0**-7)
            + 2.0**-8
            - 2.0**-16
            - 2.0**-22
            for _ in range(2)
        )
        y = sign * y
        parts = list(zip(split(x), split(y), strict=True))
        products = [a[p] * b[q] for p, q in ((0, 0), (0, 1), (1, 0)) for a, b in parts]
        exact = math.fsum((x.double() * y.double()).tolist())
        error = abs(cut_sum(products, step) - exact)
        length = float(x.double().norm() * y.double().norm())
        assert error <= product_error(torch.float32, width, BFLOAT16_LOSS) * length
        assert width > 1 or error > BFLOAT16_LOSS / 8 * length, "the bound says something"
