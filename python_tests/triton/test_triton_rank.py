"""Ranking on tiles against literal loops over float64 products, and the bound it rests on."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from mining_literal import CASES, Case, whole_numbers
from torch import Tensor

import goal_kernels as gk
from goal_kernels.backends.reference_rank import rank_blocks
from goal_kernels.backends.scores import RankCounts
from goal_kernels.backends.triton import rank_bars, ranking
from goal_kernels.backends.triton.aot_rank import rank_variants
from goal_kernels.backends.triton.configs import DTYPES
from goal_kernels.backends.triton.rank_bars import product_error

NAN, INF = float("nan"), float("inf")


def comparable(score: float) -> float:
    return -INF if math.isnan(score) else min(score, torch.finfo(torch.float32).max)


def ranked_literally(image: Tensor, text: Tensor, owner: Tensor) -> list[list[float]]:
    """`RankCounts` as lists, pair by pair. image [N, D], text [M, D], owner [M]."""
    raw = (image.cpu().double() @ text.cpu().double().T).float().tolist()
    score = [[comparable(s) for s in row] for row in raw]
    owners = owner.tolist()
    texts, images = range(len(text)), range(len(image))
    best = [max([score[i][j] for j in texts if owners[j] == i], default=-INF) for i in images]
    wrong = [[j for j in texts if owners[j] != i] for i in images]
    others = [[i for i in images if i != owners[j]] for j in texts]
    own = [score[owners[j]][j] for j in texts]
    return [
        [raw[owners[j]][j] for j in texts],
        [sum(score[i][j] > best[i] for j in wrong[i]) for i in images],
        [sum(score[i][j] == best[i] for j in wrong[i]) for i in images],
        [sum(score[i][j] > own[j] for i in others[j]) for j in texts],
        [sum(score[i][j] == own[j] for i in others[j]) for j in texts],
    ]


def assert_equal(found: RankCounts, expected: RankCounts) -> None:
    for name, a, b in zip(RankCounts._fields, found, expected, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a.cpu().nan_to_num(7.5), b.cpu().nan_to_num(7.5)), name


def random_owner(images: int, texts: int) -> Tensor:
    generator = torch.Generator().manual_seed(texts)
    return torch.randint(images, (texts,), generator=generator)


def embeddings(images: int, texts: int, width: int, dtype: torch.dtype):
    """Texts near their images, any number per image, none included. Returns image, text, owner."""
    owner = random_owner(images, texts)
    image = torch.randn(images, width)
    return image.to(dtype), (image[owner] + 2 * torch.randn(texts, width)).to(dtype), owner


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
        monkeypatch.setattr(ranking, "PROGRAMS", programs)
        monkeypatch.setattr(ranking, "ITEMS", items)
        monkeypatch.setattr(ranking, "SEGMENT_TILES", tiles)
        assert_equal(ranked(backend, device, *inputs), expected)


@pytest.mark.parametrize("backlog", [1, 40, 4096])
def test_a_list_that_fills_up_and_one_that_waits(backend, device, backlog, monkeypatch) -> None:
    """Ties everywhere: open pairs of several tiles, decided one tile or one item at a time."""
    monkeypatch.setattr(ranking, "BACKLOG", backlog)
    monkeypatch.setattr(ranking, "ITEMS", 1)
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


def near_ties(distance: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Copies of a few texts, moved by about `distance` of their length."""

    def normal(*shape: int) -> Tensor:
        return F.normalize(torch.randn(*shape, dtype=torch.float64), dim=1)

    image, text = normal(24, 900), normal(4, 900).repeat(30, 1)
    image = (image + text[:24]).to(dtype)
    return image, (text + distance * normal(120, 900)).to(dtype), torch.arange(120) % 24


def hasty(image: Tensor, text: Tensor, owner: Tensor) -> RankCounts:
    """Counts by the product in float32 that its order of summation happens to give."""
    identity = torch.eye(len(text))
    return rank_blocks(image.float() @ text.float().T, identity, owner)


def misordered(found: RankCounts, expected: RankCounts) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(found[1:], expected[1:], strict=True))


@pytest.mark.parametrize("distance", [1e-8, 1e-7, 1e-6, 1e-5])
def test_pairs_nearer_than_the_product_resolves(backend, device, distance) -> None:
    inputs = near_ties(distance, torch.float32)
    expected = rank_blocks(*inputs)
    assert misordered(hasty(*inputs), expected)
    assert_equal(ranked(backend, device, *inputs), expected)


def same_numbers_elsewhere(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Texts of the same numbers in other places score the same with a constant image."""
    numbers = (torch.rand(1500) + 0.5).to(dtype)
    text = torch.stack([numbers[torch.randperm(1500)] for _ in range(60)])
    return torch.ones(20, 1500, dtype=dtype), text, torch.arange(60) // 3


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_orders_of_a_sum_tie(backend, device, dtype) -> None:
    inputs = same_numbers_elsewhere(dtype)
    found = ranked(backend, device, *inputs)
    assert (found.image_ties == 57).all()
    assert (found.text_ties == 19).all()


def test_without_the_bound_they_do_not(backend, monkeypatch) -> None:
    """What the two tests above find is the work of the bound."""
    monkeypatch.setattr(ranking, "product_error", lambda dtype, width: 1e-9)
    monkeypatch.setattr(rank_bars, "RESOLUTION", 1e-9)
    inputs = near_ties(1e-7, torch.float32)
    assert misordered(ranked(backend, torch.device("cpu"), *inputs), rank_blocks(*inputs))


@pytest.mark.parametrize("steps", [-1, 1])
def test_scores_one_step_apart(backend, device, steps) -> None:
    """Two neighbouring float32 scores, and what rounds to either."""
    score = torch.tensor(1.0 / 3.0)
    near = torch.nextafter(score, torch.tensor(float(steps)))
    parts = torch.tensor([[score, 0], [near, 0], [score, score * 2**-26], [score, near - score]])
    text, owner = parts.repeat(3, 1), torch.arange(12) // 4
    image = torch.ones(3, 2)
    found = ranked(backend, device, image, text, owner)
    assert [values.tolist() for values in found] == ranked_literally(image, text, owner)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_that_are_not_finite(backend, device, dtype) -> None:
    """NaN ranks last, infinity as the largest number, and neither touches other pairs."""
    image, text, owner = embeddings(130, 160, 9, dtype)
    image[3], image[7, 2], image[9] = NAN, INF, -INF
    text[5], text[11, 4], text[150] = NAN, -INF, INF
    owner[20:24] = torch.tensor([3, 7, 9, 9])
    found = ranked(backend, device, image, text, owner)
    expected = RankCounts(*map(torch.tensor, ranked_literally(image, text, owner)))
    assert expected.positive.isnan().any()
    assert_equal(found, expected)


def test_rows_too_long_or_too_short_for_the_product(backend, device) -> None:
    """Products that overflow or vanish in float32 but not in float64."""
    image, text, owner = embeddings(40, 90, 6, torch.float32)
    image[:10] *= 1e30
    text[owner < 10] *= 1e-30
    text[4:8] *= 1e25
    image[20:] *= 1e-30
    text[30:40] *= 1e-12
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
    with pytest.raises(ValueError, match=r"fewer than 2147482624 embeddings per side"):
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


def cut(value: float, largest: float, bits: int = 24) -> float:
    """A number cut, towards zero, to the places that `bits` bits of the largest one have."""
    if largest == 0:
        return 0.0
    unit = 2.0 ** (math.frexp(largest)[1] - bits)
    return math.trunc(value / unit) * unit


def cut_sum(products: list[float], step: int) -> float:
    """The worst that a tensor core may make of a sum: `step` products at a time, each cut."""
    total = 0.0
    for start in range(0, len(products), step):
        terms = [total, *products[start : start + step]]
        largest = max(map(abs, terms))
        total = math.fsum(cut(term, largest) for term in terms)
        total = cut(total, abs(total))
    return total


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
def test_variants_and_their_tiles(arch) -> None:
    variants = list(rank_variants(arch))
    assert len(set(map(repr, variants))) == len(variants)
    for dtype in DTYPES:
        tile = ranking.rank_tile(dtype, arch // 10)
        assert tile.rows == rank_bars.BAR_UNIT
        assert rank_bars.BAR_UNIT % tile.columns == 0
        assert tile.rows % (16 * tile.row_warps) == 0
