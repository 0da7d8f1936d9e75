"""Ranking on tiles against literal loops over float64 products, and the bound it rests on."""

from __future__ import annotations

import math

import pytest
import torch
from mining_literal import CASES, Case, whole_numbers
from rank_cases import (
    assert_equal,
    broken_rows,
    cut,
    cut_sum,
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
from torch import Tensor

import goal_kernels as gk
from goal_kernels.backends.gpu import configs, score_bounds
from goal_kernels.backends.gpu.configs import DTYPES
from goal_kernels.backends.gpu.kernels import rank as ranking
from goal_kernels.backends.gpu.score_bounds import product_error
from goal_kernels.backends.reference_rank import rank_blocks
from goal_kernels.backends.scores import RankCounts


def ranked(backend, device, image: Tensor, text: Tensor, owner: Tensor) -> RankCounts:
    return backend.rank(image.to(device), text.to(device), owner.to(device))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_whole_numbers_against_literal_loops(backend, device, case: Case, dtype) -> None:
    """Products are exact, ties abound, and images go without texts."""
    image = whole_numbers(case.rows, case.width, dtype, 1)
    text = whole_numbers(case.columns, case.width, dtype, 2)
    owner = random_owner(case.rows, case.columns)
    found = ranked(backend, device, image, text, owner)
    assert [values.tolist() for values in found] == ranked_literally(image, text, owner)
    if case.rows * case.columns > 1000:
        assert all(values.count_nonzero() > 2 for values in found)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [(1, 1, 1), (3, 140, 5), (130, 300, 65), (270, 129, 32)], ids=str)
def test_against_float64_blocks(backend, device, size, dtype) -> None:
    inputs = embeddings(*size, dtype)
    assert_equal(ranked(backend, device, *inputs), rank_blocks(*inputs))


def test_many_items_for_a_program(backend, device, monkeypatch) -> None:
    """Several segments and column blocks in one program; the grid does not change the result."""
    inputs = embeddings(300, 140, 8, torch.bfloat16)
    expected = rank_blocks(*inputs)
    for programs, items, tiles in ((1, 1, 2), (1, 99, 32), (3, 5, 1), (5, 1, 32)):
        monkeypatch.setattr(configs, "RANK_PROGRAMS", programs)
        monkeypatch.setattr(configs, "RANK_ITEMS", items)
        monkeypatch.setattr(configs, "SEGMENT_TILES", tiles)
        assert_equal(ranked(backend, device, *inputs), expected)


@pytest.mark.parametrize("backlog", [1, 40, 4096])
def test_a_list_that_fills_up_and_one_that_waits(backend, device, backlog, monkeypatch) -> None:
    """Ties everywhere: open pairs of several tiles, decided one tile or one item at a time."""
    monkeypatch.setattr(configs, "BACKLOG", backlog)
    monkeypatch.setattr(configs, "RANK_ITEMS", 1)
    image = whole_numbers(270, 40, torch.float16, 1)
    text = whole_numbers(150, 40, torch.float16, 2)
    owner = random_owner(270, 150)
    expected = rank_blocks(image, text, owner)
    assert expected.image_ties.sum() + expected.text_ties.sum() > 1000
    assert_equal(ranked(backend, device, image, text, owner), expected)


@pytest.mark.parametrize(
    ("images", "texts", "dtype"),
    [(20, 36, torch.float32), (20, 36, torch.float16), (70, 130, torch.bfloat16)],
    ids=str,
)
def test_a_collapsed_model_ties_everywhere(backend, device, images, texts, dtype) -> None:
    image = torch.full((images, 40), 0.3, dtype=dtype)
    text = torch.full((texts, 40), 0.7, dtype=dtype)
    found = ranked(backend, device, image, text, torch.arange(texts) // 2)
    own = texts // 2
    assert (found.image_ties[:own] == texts - 2).all()
    assert (found.image_better[own:] == texts).all()
    assert (found.text_ties == images - 1).all()
    assert found.text_better.count_nonzero() == found.image_better[:own].count_nonzero() == 0


@pytest.mark.parametrize("distance", [1e-8, 1e-7, 1e-6, 1e-5])
def test_pairs_nearer_than_the_product_resolves(backend, device, distance) -> None:
    inputs = near_ties(distance, torch.float32)
    expected = rank_blocks(*inputs)
    assert misordered(hasty(*inputs), expected)
    assert_equal(ranked(backend, device, *inputs), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_orders_of_a_sum_tie(backend, device, dtype) -> None:
    inputs = same_numbers_elsewhere(dtype)
    found = ranked(backend, device, *inputs)
    assert (found.image_ties == 57).all()
    assert (found.text_ties == 19).all()


def test_without_the_bound_they_do_not(backend, monkeypatch) -> None:
    """What the two tests above find is the work of the bound."""
    monkeypatch.setattr(ranking, "product_error", lambda dtype, width: 1e-9)
    monkeypatch.setattr(score_bounds, "RESOLUTION", 1e-9)
    inputs = near_ties(1e-7, torch.float32)
    assert misordered(ranked(backend, torch.device("cpu"), *inputs), rank_blocks(*inputs))


@pytest.mark.parametrize("steps", [-1, 1])
def test_scores_one_step_apart(backend, device, steps) -> None:
    """Two neighbouring float32 scores, and what rounds to either."""
    image, text, owner = one_step_apart(steps)
    found = ranked(backend, device, image, text, owner)
    assert [values.tolist() for values in found] == ranked_literally(image, text, owner)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_that_are_not_finite(backend, device, dtype) -> None:
    """NaN ranks last, infinity as the largest number, and neither touches other pairs."""
    image, text, owner = broken_rows(dtype)
    found = ranked(backend, device, image, text, owner)
    expected = RankCounts(*map(torch.tensor, ranked_literally(image, text, owner)))
    assert expected.positive.isnan().any()
    assert_equal(found, expected)


def test_rows_too_long_or_too_short_for_the_product(backend, device) -> None:
    """Products that overflow or vanish in float32 but not in float64."""
    image, text, owner = extreme_rows()
    assert_equal(ranked(backend, device, image, text, owner), rank_blocks(image, text, owner))


def test_products_below_the_normal_numbers(backend, device) -> None:
    """Every product loses a part of it that is large beside the score."""
    image, text, owner = embeddings(30, 70, 6, torch.float32)
    inputs = image * 1e-22, text * 1e-22, owner
    expected = rank_blocks(*inputs)
    assert misordered(hasty(*inputs), expected)
    assert_equal(ranked(backend, device, *inputs), expected)


def test_embeddings_without_content_tie(backend, device) -> None:
    owner = torch.arange(40) // 2
    found = ranked(backend, device, torch.zeros(20, 8), -torch.zeros(40, 8), owner)
    assert (found.image_ties == 38).all()
    assert (found.text_ties == 19).all()


def test_memory_layouts(backend, device) -> None:
    """Rows apart, transposed, misaligned and broadcast: the same counts."""
    image, text, owner = embeddings(30, 50, 48, torch.bfloat16)
    wide = torch.cat([image[:, :3], image], dim=1)
    layouts = (image, wide[:, 3:], image.T.contiguous().T, torch.cat([image, image], 1)[:, :48])
    expected = rank_blocks(image, text, owner)
    for layout in layouts:
        assert_equal(ranked(backend, device, layout, text, owner), expected)
    same = text[:1].expand(50, 48)
    assert_equal(
        ranked(backend, device, image, same, owner), rank_blocks(image, same.contiguous(), owner)
    )


def test_too_many_rows_are_refused(backend, device) -> None:
    endless = torch.zeros(1, 1, device=device).expand(2**31, 1)
    owner = torch.zeros(2, dtype=torch.int64, device=device)
    with pytest.raises(ValueError, match=r"image: expected fewer than 2147482624 rows"):
        backend.rank(endless, endless[:2], owner)


def test_public_ranks_equal_the_reference(backend, device) -> None:
    image, text, owner = (t.to(device) for t in embeddings(60, 150, 24, torch.float32))
    found = gk.retrieval_ranks(image, text, owner, backend="triton")
    expected = gk.retrieval_ranks(image, text, owner, backend="reference")
    for name in ("i2t", "t2i"):
        assert torch.equal(
            getattr(found, name).nan_to_num(-1), getattr(expected, name).nan_to_num(-1)
        )
        assert all(
            torch.equal(a, b)
            for a, b in zip(
                getattr(found, f"{name}_standing"),
                getattr(expected, f"{name}_standing"),
                strict=True,
            )
        )


def split(value: float) -> tuple[float, float]:
    """The two parts of 11 bits that stand for a float32, cut and not rounded."""
    high = cut(value, abs(value), 11)
    return high, cut(value - high, abs(value - high), 11)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("step", [4, 8, 16])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_bound_holds_for_sums_that_are_cut(dtype, step, sign) -> None:
    """Positive numbers lose the most: all cuts go the same way."""
    generator = torch.Generator().manual_seed(step)
    for width in (1, 5, 64, 700):
        x = (torch.rand(width, generator=generator) + 0.5).to(dtype).tolist()
        y = (sign * (torch.rand(width, generator=generator) + 0.5)).to(dtype).tolist()
        if dtype == torch.float32:
            parts = [(split(a), split(b)) for a, b in zip(x, y, strict=True)]
            orders = ((0, 0), (0, 1), (1, 0))
            products = [a[p] * b[q] for p, q in orders for a, b in parts]
        else:
            products = [a * b for a, b in zip(x, y, strict=True)]
        exact = math.fsum(a * b for a, b in zip(x, y, strict=True))
        error = abs(cut_sum(products, step) - exact)
        bound = product_error(dtype, width) * math.hypot(*x) * math.hypot(*y)
        assert error <= bound
        assert width < 700 or error > bound / 200, "the bound says something"


@pytest.mark.parametrize("arch", [80, 90, 100, 120])
def test_tiles_fit_the_bounds(arch) -> None:
    for dtype in DTYPES:
        tile = configs.rank_tile(dtype, arch // 10)
        assert tile.rows == score_bounds.BOUND_UNIT
        assert score_bounds.BOUND_UNIT % tile.columns == 0
        assert tile.rows % (16 * tile.row_warps) == 0
