"""What "high" and "medium" mean for float32: rougher products, within their bounds."""

from __future__ import annotations

import native_loops as loops
import pytest
import torch
from native_loops import Question
from test_native_mine import KINDS, SHAPES, ask, check, expected, integers
from torch import Tensor

from goal_kernels import native
from goal_kernels.backends.cpu import CpuBackend

INFO = native.build_info() if native.status()[0] else {}
SPLITTING = [
    isa
    for isa in (*INFO.get("usable_isas", ()), *INFO.get("emulated_isas", ()))
    if isa.startswith("amx")
]
BOUNDS = {"high": 2.0**-14, "medium": 1.01 * 2.0**-7}
"""Largest error of a similarity, relative to the product of the lengths; sums included.

Rounding to bfloat16 loses up to 2^-8 of a value: a product twice that, a split 3 * 2^-16.
"""


def embeddings(rows: int, columns: int, width: int) -> tuple[Tensor, Tensor]:
    """Rows of length about 1, [rows, width] and [columns, width]."""
    generator = torch.Generator().manual_seed(rows + columns + width)
    image = torch.randn(rows, width, generator=generator) * width**-0.5
    text = torch.randn(columns, width, generator=generator) * width**-0.5
    return image, text


@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_small_integers_are_exact_at_every_precision(backend, shape, kind, precision) -> None:
    question = Question(kind, -1.0, 0.125)
    image, text = (x.float() for x in integers(*shape))
    check(ask(backend, image, text, question, precision), expected(shape, question), kind)


@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize("kind", KINDS)
def test_errors_stay_within_the_bound(backend, kind, precision) -> None:
    image, text = embeddings(75, 66, 300)
    question = Question(kind, -0.05, 5.0)
    found = ask(backend, image, text, question, precision)
    scores = image.double() @ text.double().T
    scores.fill_diagonal_(-torch.inf)
    longest = image.norm(dim=1).amax() * text.norm(dim=1).amax()
    bound = (BOUNDS[precision] * longest).item()
    for axis, value, index in ((1, found.row_value, found.row_index), (0, *found[2:4])):
        chosen = scores.gather(axis, index.unsqueeze(axis)).squeeze(axis)
        assert (chosen >= scores.amax(axis) - 2 * bound).all()
        torch.testing.assert_close(value.double(), chosen, rtol=0, atol=1e-6)
    if kind == "none":
        return
    truth = loops.mine(loops.similarity(image, text), question)
    close_to_threshold = ((scores - question.threshold).abs() <= bound).sum().item()
    counts = torch.tensor(truth[0].count) - found.row_count
    assert counts.abs().sum() <= close_to_threshold
    slope = 1.0 if kind == "linear" else question.beta
    wrong = 2 * slope * bound * max(truth[0].count) + counts.abs().max() + 1e-5
    assert (found.row_sum.double() - torch.tensor(truth[0].total)).abs().max() <= wrong


@pytest.mark.parametrize("isa", SPLITTING)
@pytest.mark.parametrize("kind", KINDS[1:])
def test_split_products_see_what_bfloat16_does_not(isa, kind) -> None:
    """Texts in pairs that differ by one part in a thousand: below bfloat16, above the split."""
    image, text = embeddings(64, 64, 200)
    text[1::2] = text[::2] * 1.001
    scores = (image.double() @ text.double().T).fill_diagonal_(-torch.inf)
    question = Question(kind, -0.05, 5.0)
    high = ask(CpuBackend(isa), image, text, question, "high")
    assert torch.equal(high.row_index, scores.argmax(1))
    medium = ask(CpuBackend(isa), image, text, question, "medium")
    assert not torch.equal(medium.row_index, scores.argmax(1))


@pytest.mark.parametrize("isa", SPLITTING)
def test_split_products_of_numbers_that_are_not_finite(isa) -> None:
    """NaN or infinite where float is, and what is not finite wins."""
    image, text = embeddings(40, 40, 70)
    image[3, 2] = torch.inf
    text[7, 60] = torch.nan
    found = ask(CpuBackend(isa), image, text, Question("linear", 0.0, 1.0), "high")
    others = torch.tensor([i for i in range(40) if i not in (3, 7)])
    assert (found.row_index[others] == 7).all()
    assert found.row_value[others].isnan().all()
    assert found.row_value[3].isnan() or found.row_value[3] == torch.inf
    assert found.row_value[7].isfinite()
    assert found.column_value[7].isnan()
    assert found.column_index[7] == 0
    assert not found.column_value[others].isneginf().any()
