"""The strip kernel against literal loops: exact data first, then traps, rounding and the grid."""

from __future__ import annotations

import math

import pytest
import torch
from mining_literal import Case, full_pairing, mined_literally, whole_numbers
from strip_cases import SMALL, Query, anchors, run

from goal_kernels.backends.base import RELATIVE_KINDS, Pairing
from goal_kernels.backends.gpu.configs import StripTile, strip_tile

pytestmark = [
    pytest.mark.filterwarnings("error::RuntimeWarning"),
    pytest.mark.usefixtures("strips_of_two_tiles"),
]

HALF_LIFE = math.log(2.0)
"""beta at which whole-numbered gaps give powers of two"""

DIAGONAL = Pairing()

TILES = {
    "four slices": SMALL,
    "two slices": StripTile(16, 32, 16, warps=1, stages=1),
    "two warps": StripTile(64, 16, 16, warps=2, stages=1),
    "pointers": SMALL._replace(descriptors=False),
    "whole tile": SMALL._replace(fragments=False),
}

SHAPES = (
    Case(1, 1, 1, "one pair: no negative exists"),
    Case(2, 1, 8, "a row without a column"),
    Case(33, 47, 17, "one row above a tile, one column below three, two slices of the width"),
    Case(159, 70, 5, "one row below five tiles, blocks of 128 rows, several segments"),
    Case(64, 150, 16, "more columns than rows, every tile full"),
)


def check(found, image, text, pairing=DIAGONAL) -> None:
    """Values, indices and counts must be equal, sums within float32 rounding.

    Exponential sums hold the hardest one, whose term is 1, until it is subtracted.
    """
    kind = found.query.kind
    bound = {"rel_tol": 3e-6, "abs_tol": 1e-6 if kind == "exponential" else 0.0}
    expected = mined_literally(image, text, tuple(pairing), tuple(found.query[:3]))
    for rows, truth in zip((True, False), expected, strict=True):
        for anchor, got, want in zip(range(len(truth)), anchors(found, rows), truth, strict=True):
            what = f"{'row' if rows else 'column'} {anchor}: {got}, expected {want}"
            assert got[0] == want[0] or (math.isnan(got[0]) and math.isnan(want[0])), what
            assert got[1] == want[1], what
            if kind != "none":
                assert got[3] == want[3], what
                close = math.isclose(got[2], want[2], **bound)
                assert close or (math.isnan(got[2]) and math.isnan(want[2])), what


def batch(case: Case, device, dtype=torch.float32, seed: int = 1):
    image = whole_numbers(case.rows, case.width, dtype, seed).to(device)
    return image, whole_numbers(case.columns, case.width, dtype, seed + 1).to(device)


@pytest.mark.parametrize("kind", RELATIVE_KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_exact_data(device, shape: Case, kind: str) -> None:
    """Every shape and every kind with a pairing and without one, by turns."""
    image, text = batch(shape, device)
    paired = (SHAPES.index(shape) + RELATIVE_KINDS.index(kind)) % 2
    pairing = Pairing(*full_pairing(shape)) if paired else DIAGONAL
    check(run(image, text, pairing, Query(kind, -3.0, HALF_LIFE)), image, text, pairing)


@pytest.mark.parametrize("kind", RELATIVE_KINDS)
@pytest.mark.parametrize("tile", TILES.values(), ids=TILES)
def test_every_form_of_tile(device, tile: StripTile, kind: str) -> None:
    shape = Case(100, 75, 20, "ragged for every tile")
    image, text = batch(shape, device, seed=3)
    pairing = Pairing(*full_pairing(shape))
    check(run(image, text, pairing, Query(kind, -2.0, HALF_LIFE, tile=tile)), image, text, pairing)


@pytest.mark.parametrize("kind", RELATIVE_KINDS)
@pytest.mark.parametrize("capability", [80, 90, 100])
def test_tiles_as_they_are_shipped(device, capability: int, kind: str) -> None:
    shape = Case(300, 140, 70, "above a tile in every dimension")
    image, text = batch(shape, device, torch.bfloat16, seed=5)
    tile = strip_tile(capability, torch.bfloat16, kind, ids=False)
    check(run(image, text, DIAGONAL, Query(kind, -3.0, HALF_LIFE, tile=tile)), image, text)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("part", ["target", "ids"])
def test_sixteen_bits_and_half_a_pairing(device, dtype: torch.dtype, part: str) -> None:
    shape = Case(70, 60, 24, "a block of 128 rows")
    image, text = batch(shape, device, dtype, seed=7)
    target, image_ids, text_ids = full_pairing(shape)
    pairing = Pairing(target) if part == "target" else Pairing(None, image_ids, text_ids)
    check(run(image, text, pairing, Query("linear", 0.0)), image, text, pairing)


@pytest.mark.parametrize("tile", [StripTile(256, 64, 16, 8, 1), StripTile(64, 64, 16, 2, 1)])
def test_blocks_that_are_mixed_here_and_there(device, tile: StripTile) -> None:
    """Targets far away, holes, and ids that meet in few tiles: what is skipped must be right."""
    image, text = batch(Case(280, 300, 4, ""), device, seed=9)
    target = torch.arange(280) + 17
    target[:128] = -1
    target[130] = 2**32 + 3
    image_ids, text_ids = torch.arange(280) // 5, torch.arange(300) // 7 - 2
    pairing = Pairing(target, image_ids, text_ids)
    query = Query("exponential", -2.0, HALF_LIFE, tile=tile)
    check(run(image, text, pairing, query), image, text, pairing)


@pytest.mark.parametrize("column", [63, 64, 127])
def test_one_column_of_a_tile_is_no_negative(device, column: int) -> None:
    """One positive in the first or last column of a tile; ids that meet in one value."""
    image, text = batch(Case(128, 256, 4, ""), device, seed=23)
    tile = StripTile(64, 64, 16, 2, 1)
    target = torch.full((128,), column)
    check(run(image, text, Pairing(target), Query(tile=tile)), image, text, Pairing(target))
    text_ids = torch.cat([torch.arange(128) - 122, torch.arange(128) + 5])
    pairing = Pairing(torch.full((128,), -1), torch.full((128,), 5), text_ids)
    check(run(image, text, pairing, Query(tile=tile)), image, text, pairing)


@pytest.mark.parametrize("kind", ["linear", "exponential"])
@pytest.mark.parametrize("threshold", [-math.inf, 1.0, 4.0, 1e9, -1e9, math.nan])
def test_thresholds(device, kind: str, threshold: float) -> None:
    """Everything, some, few maxima alone, nothing, and references out of range."""
    image, text = batch(Case(40, 70, 2, ""), device, seed=11)
    check(run(image, text, DIAGONAL, Query(kind, threshold, 0.5)), image, text)


@pytest.mark.parametrize("kind", RELATIVE_KINDS)
def test_no_negatives_at_all(device, kind: str) -> None:
    image, text = torch.ones(5, 3, device=device), torch.ones(40, 3, device=device)
    pairing = Pairing(None, torch.zeros(5, dtype=torch.int64), torch.zeros(40, dtype=torch.int64))
    check(run(image, text, pairing, Query(kind, -1.0, 1.0)), image, text, pairing)


@pytest.mark.parametrize("kind", RELATIVE_KINDS)
def test_zeros_of_both_signs_tie(device, kind: str) -> None:
    image = torch.tensor([[1.0], [-1.0], [1.0]], device=device)
    text = torch.tensor([[0.0], [-0.0], [0.0], [-0.0]], device=device)
    check(run(image, text, DIAGONAL, Query(kind, -1.0, 1.0)), image, text)


@pytest.mark.parametrize(
    ("tile", "kind"),
    [*((tile, "linear") for tile in TILES.values()), (SMALL, "none"), (SMALL, "exponential")],
    ids=str,
)
def test_the_first_nan_wins(device, tile: StripTile, kind: str) -> None:
    image, text = batch(Case(70, 90, 3, ""), device, seed=13)
    text[[20, 60, 89]] = math.nan
    image[66, 1] = math.nan
    found = run(image, text, DIAGONAL, Query(kind, -3.0, HALF_LIFE, tile=tile))
    check(found, image, text)
    assert [a[1] for a in anchors(found, True)][:5] == [20] * 5


@pytest.mark.parametrize("tile", TILES.values(), ids=TILES)
def test_infinite_similarities(device, tile: StripTile) -> None:
    """-inf is a candidate like any other, distinct from having none; +inf wins."""
    image = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, 1.0]], device=device)
    text = torch.tensor([[math.inf, 1.0], [math.inf, 1.0]], device=device)
    found = run(image, text, DIAGONAL, Query(tile=tile))
    check(found, image, text)
    rows = anchors(found, True)
    assert [a[:2] for a in rows] == [(math.inf, 1), (-math.inf, 0), (math.inf, 0)]


def test_the_largest_finite_similarities(device) -> None:
    """Lengths whose product overflows, similarities that do not."""
    image = torch.tensor([[1e38, 0.0], [-1e38, 0.0], [0.0, 1e38]], device=device)
    text = torch.tensor([[2.0, 5.0], [1.0, -2.0]], device=device).bfloat16().float()
    image = image.bfloat16().float()
    found = run(image, text, DIAGONAL, Query())
    scores = image @ text.T
    for rows, dense in ((True, scores), (False, scores.T)):
        for anchor, (value, index, _, _) in enumerate(anchors(found, rows)):
            others = [s for k, s in enumerate(dense[anchor].tolist()) if k != anchor]
            assert value == max(others)
            assert dense[anchor, index] == value


@pytest.mark.parametrize("beta", [0.0, 1e4, 1e300])
def test_no_overflow_for_any_slope(device, beta: float) -> None:
    """Similarities 1000 apart; exact ties count 1 each."""
    image = torch.tensor([[1000.0], [1.0], [-1000.0], [1.0]], device=device)
    text = torch.tensor([[1.0], [1.0], [-1.0], [1.0], [0.5]], device=device)
    for threshold in (-1e9, -1e3, 0.0):
        check(run(image, text, DIAGONAL, Query("exponential", threshold, beta)), image, text)


@pytest.mark.parametrize(
    ("kind", "threshold"),
    [("none", -1.0), *((k, t) for k in ("linear", "exponential") for t in (-1.0, -1e6))],
)
def test_the_grid_does_not_matter(device, nan_filled_memory, kind: str, threshold: float) -> None:
    """Bit-equal for 1 to 100 programs, from workspaces that start as garbage.

    Sums that start at a threshold so low are made again, as they would lose too much.
    """
    generator = torch.Generator().manual_seed(15)
    image, text = (torch.randn(n, 24, generator=generator).to(device) for n in (70, 50))
    query = Query(kind, threshold, 0.3)
    first = run(image, text, DIAGONAL, query).tensors()
    assert not any(t.isnan().any() for t in first if t.is_floating_point() and threshold > -10)
    for programs in (1, 100):
        again = run(image, text, DIAGONAL, query._replace(programs=programs)).tensors()
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("kind", ["linear", "exponential"])
def test_many_column_blocks(device, kind: str) -> None:
    """Rows have sums of 65 column blocks, columns of two segments of rows."""
    image, text = batch(Case(70, 1040, 3, ""), device, seed=17)
    found = run(image, text, DIAGONAL, Query(kind, 1.0, HALF_LIFE, programs=5))
    check(found, image, text)


@pytest.mark.parametrize("descriptors", [True, False], ids=["descriptors", "pointers"])
@pytest.mark.parametrize("width", [40, 72, 8], ids=str)
def test_split_products(device, width: int, descriptors: bool) -> None:
    """Two bfloat16 numbers for each float32: within 3e-5 of |x| |y|, at any width."""
    generator = torch.Generator().manual_seed(19)
    image, text = (torch.randn(n, width, generator=generator).to(device) for n in (40, 50))
    tile = SMALL._replace(width=64, descriptors=descriptors)
    found = run(image, text, DIAGONAL, Query(split=True, tile=tile))
    scores = image.double().cpu() @ text.double().cpu().T
    sides = (scores, image, text), (scores.T, text, image)
    for rows, (dense, own, other) in zip((True, False), sides, strict=True):
        for anchor, (value, index, _, _) in enumerate(anchors(found, rows)):
            bound = 3e-5 * (own[anchor].norm() * other.norm(dim=1).max()).item()
            best = max(s for k, s in enumerate(dense[anchor].tolist()) if k != anchor)
            assert abs(value - dense[anchor, index].item()) <= bound
            assert best - dense[anchor, index].item() <= 2 * bound


@pytest.mark.parametrize("kind", ["linear", "exponential"])
def test_rounded_sums(device, kind: str) -> None:
    """Random unit rows, so that no sum is exact."""
    generator = torch.Generator().manual_seed(21)
    image, text = (torch.randn(n, 30, generator=generator) for n in (90, 75))
    image, text = (torch.nn.functional.normalize(x, dim=1).to(device) for x in (image, text))
    found = run(image, text, DIAGONAL, Query(kind, -0.05, 10.0))
    expected = mined_literally(image, text, (None, None, None), (kind, -0.05, 10.0))
    for rows, truth in zip((True, False), expected, strict=True):
        for got, want in zip(anchors(found, rows), truth, strict=True):
            assert math.isclose(got[0], want[0], abs_tol=1e-6)
            assert got[1] == want[1]
            assert got[3] == want[3]
            assert math.isclose(got[2], want[2], rel_tol=1e-4)
