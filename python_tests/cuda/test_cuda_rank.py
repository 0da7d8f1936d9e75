"""The CUDA backend's ranks against literal loops and blocks of float64 products."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from cuda_truth import DTYPES, ENGINES, engine
from mining_literal import CASES, Case, whole_numbers
from rank_cases import (
    Inputs,
    assert_equal,
    broken_rows,
    embeddings,
    extreme_rows,
    hasty,
    misordered,
    near_ties,
    one_step_apart,
    random_owner,
    ranked_literally,
    same_numbers_elsewhere,
)

import goal_kernels as gk
from goal_kernels.backends.base import Call
from goal_kernels.backends.gpu import CudaBackend, hopper, score_bounds, use_members, use_programs
from goal_kernels.backends.reference_rank import rank_blocks
from goal_kernels.backends.scores import RankCounts

pytestmark = pytest.mark.parametrize("device", ENGINES)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


SIZES = ((3, 140, 5), (129, 300, 72), (270, 129, 32), (40, 200, 600), (130, 140, 1))


def ranked(device: str, inputs: Inputs) -> RankCounts:
    return engine(device).rank(*(x.to(device) for x in inputs))


def exact_inputs(images: int, texts: int, width: int, dtype: torch.dtype) -> Inputs:
    """Whole numbers: every product is exact, and ties abound."""
    image, text = (whole_numbers(n, width, dtype, s) for s, n in enumerate((images, texts), 1))
    return image, text, random_owner(images, texts)


@dtypes
@pytest.mark.parametrize("case", CASES, ids=str)
def test_whole_numbers_against_literal_loops(device, case: Case, dtype) -> None:
    inputs = exact_inputs(case.rows, case.columns, case.width, dtype)
    found = ranked(device, inputs)
    assert [values.tolist() for values in found] == ranked_literally(*inputs)
    if case.rows * case.columns > 1000:
        assert all(values.count_nonzero() > 2 for values in found)


@dtypes
@pytest.mark.parametrize("size", SIZES)
def test_against_float64_blocks(device, size, dtype) -> None:
    """Ragged tiles, images without texts, widths of one k slice and of more than stay.

    With one element a row, rounding to bfloat16 alone would reorder float32 scores.
    """
    inputs = embeddings(*size, dtype)
    assert_equal(ranked(device, inputs), rank_blocks(*inputs))


def test_positives_below_zero(device) -> None:
    """What lies outside the matrix has products of 0, and beats nobody."""
    image, text, owner = embeddings(130, 140, 40, torch.float16)
    inputs = image, -text, owner
    expected = rank_blocks(*inputs)
    assert (expected.positive < 0).sum() > 100
    assert_equal(ranked(device, inputs), expected)


@pytest.mark.parametrize(("programs", "members"), [(1, 1), (2, 1), (132, 1), (1, 2), (5, 2)])
def test_counts_do_not_depend_on_the_grid(device, programs, members) -> None:
    """Segments of several tiles, an odd one at the end, and groups of several blocks, or pairs."""
    for images, texts in ((2300, 600), (100 * 2 // members, 8250 * members)):
        inputs = embeddings(images, texts, 8, torch.bfloat16)
        with use_programs(programs), use_members(members):
            assert_equal(ranked(device, inputs), rank_blocks(*inputs))


@dtypes
def test_a_collapsed_model_ties_everywhere(device, dtype) -> None:
    image, text = torch.full((70, 40), 0.3, dtype=dtype), torch.full((130, 40), 0.7, dtype=dtype)
    found = ranked(device, (image, text, torch.arange(130) // 2))
    assert (found.image_ties[:65] == 128).all()
    assert (found.image_better[65:] == 130).all()
    assert (found.text_ties == 69).all()
    assert found.text_better.count_nonzero() == found.image_better[:65].count_nonzero() == 0


@pytest.mark.parametrize("distance", [1e-8, 1e-7, 1e-6, 1e-5, 1e-4])
def test_pairs_nearer_than_the_product_resolves(device, distance) -> None:
    """Split into bfloat16 parts, float32 embeddings lose more than the last of these."""
    inputs = near_ties(distance, torch.float32)
    expected = rank_blocks(*inputs)
    assert distance > 1e-5 or misordered(hasty(*inputs), expected)
    assert_equal(ranked(device, inputs), expected)


NO_BOUND = {
    "neither": {"error": 1e-9, "resolution": 0.0},
    "no product error": {"error": 1e-9, "resolution": score_bounds.RESOLUTION},
}


@pytest.mark.parametrize("bound", NO_BOUND.values(), ids=NO_BOUND)
def test_without_the_bound_they_are_wrong(device, bound, monkeypatch) -> None:
    """What the test above finds is the work of the bound."""
    monkeypatch.setattr(hopper, "product_error", lambda *_: bound["error"])
    monkeypatch.setattr(score_bounds, "RESOLUTION", bound["resolution"])
    inputs = near_ties(1e-6, torch.float32)
    assert misordered(ranked(device, inputs), rank_blocks(*inputs))


@dtypes
def test_orders_of_a_sum_tie(device, dtype) -> None:
    found = ranked(device, same_numbers_elsewhere(dtype))
    assert (found.image_ties == 57).all()
    assert (found.text_ties == 19).all()


LITERAL: dict[str, Callable[[], Inputs]] = {
    "one step up": partial(one_step_apart, 1),
    "one step down": partial(one_step_apart, -1),
    **{f"not finite, {dtype}": partial(broken_rows, dtype) for dtype in DTYPES},
}


@pytest.mark.parametrize("make", LITERAL.values(), ids=LITERAL)
def test_rounding_and_what_is_not_finite(device, make) -> None:
    """NaN ranks last, infinity as the largest number, and neither touches other pairs."""
    inputs = make()
    expected = RankCounts(*map(torch.tensor, ranked_literally(*inputs)))
    assert_equal(ranked(device, inputs), expected)


def below_normal() -> Inputs:
    """Every product loses a part of it that is large beside the score."""
    image, text, owner = embeddings(30, 70, 6, torch.float32)
    return image * 1e-22, text * 1e-22, owner


def one_broken_row() -> Inputs:
    """Everybody in its tile is decided, and nobody's rank changes but its own."""
    image, text, owner = embeddings(300, 400, 16, torch.bfloat16)
    image[130] = math.nan
    return image, text, owner


def signed_zeros() -> Inputs:
    """Scores of 0 and -0 are equal."""
    return torch.zeros(20, 8), -torch.zeros(40, 8), torch.arange(40) // 2


@pytest.mark.parametrize("make", [extreme_rows, below_normal, one_broken_row, signed_zeros])
def test_rows_that_products_do_not_fit(device, make) -> None:
    inputs = make()
    assert_equal(ranked(device, inputs), rank_blocks(*inputs))


@dtypes
def test_memory_layouts(device, dtype) -> None:
    """Rows apart, transposed, misaligned, broadcast: the same counts."""
    image, text, owner = embeddings(30, 50, 48, dtype)
    wide = torch.cat([image[:, :3], image], dim=1)
    expected = rank_blocks(image, text, owner)
    for layout in (wide[:, 3:], image.T.contiguous().T, torch.cat([image, image], 1)[:, :48]):
        assert_equal(ranked(device, (layout, text, owner)), expected)
    same = text[:1].expand(50, 48)
    expected = rank_blocks(image, same.contiguous(), owner)
    assert_equal(ranked(device, (image, same, owner)), expected)


def test_arguments_are_checked(device) -> None:
    backend = engine(device)
    owner = torch.zeros(2, dtype=torch.int64, device=device)
    endless = torch.zeros(1, 8, device=device).expand(2**31, 8)
    with pytest.raises(ValueError, match="image: expected fewer than 2147482624 rows"):
        backend.rank(endless, endless[:2], owner)
    wide = torch.zeros(2, hopper.WIDEST + 1, device=device)
    with pytest.raises(ValueError, match="at most 8192 elements a row, got 8200; use backend='tri"):
        backend.rank(wide, wide, owner)
    image = torch.zeros(2, 8, device=device)
    with pytest.raises(ValueError, match="text_to_image: expected 2 contiguous elements"):
        backend.rank(image, image, owner[:1])
    with pytest.raises(ValueError, match=r"image: expected a .* matrix of bfloat16, float16"):
        backend.rank(image.double(), image.double(), owner)


def test_public_ranks_are_those_of_the_reference(device, monkeypatch) -> None:
    """By name, whatever `auto` would take; float32 has no precision to refuse."""
    assert CudaBackend().supports(Call("cuda", torch.float32, "high")).ok
    backend = engine(device)
    for dtype in DTYPES:
        image, text, owner = (x.to(device) for x in embeddings(60, 150, 24, dtype))
        expected = gk.retrieval_ranks(image, text, owner, backend="reference")
        with monkeypatch.context() as patch:
            patch.setattr("goal_kernels.backends.choice.BACKENDS", (backend,))
            found = gk.retrieval_ranks(image, text, owner, backend="cuda")
        for side in ("i2t", "t2i"):
            got, wanted = (getattr(ranks, side).nan_to_num(-1.0) for ranks in (found, expected))
            assert torch.equal(got, wanted)
