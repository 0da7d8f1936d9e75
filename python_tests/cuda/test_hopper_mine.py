"""The Hopper mining kernel, emulated or real, against literal loops on exact data."""

from __future__ import annotations

import math

import pytest
import torch
from hopper_calls import NO_PAIRING, Anchor, Pairing, Query, call, decoded, finished
from mining_literal import Case, full_pairing, scores_literally, whole_numbers
from torch import Tensor

from goal_kernels import native
from goal_kernels.backends import base
from goal_kernels.backends.base import RelativeQuery
from goal_kernels.reference import mine_similarity

HALF_LIFE = math.log(2.0)
"""beta at which whole-numbered gaps give powers of two"""
KINDS = ("none", "linear", "exponential")


CASES = (
    Case(1, 1, 8, "one pair: no negative exists"),
    Case(2, 1, 8, "a row without a column"),
    Case(1, 3, 16, "a column without a row"),
    Case(127, 128, 64, "one row below a tile"),
    Case(129, 257, 72, "one row, column and eight elements above"),
    Case(300, 140, 520, "the ninth slice of the width: some text slices do not stay"),
)


def literal(scores: Tensor, pairing: Pairing, query: Query) -> tuple[list[Anchor], list[Anchor]]:
    """Rows and columns of float64 scores [N, M]."""
    return scores_literally(scores, pairing, query[:3])


def dense(scores: Tensor, pairing: Pairing, query: Query) -> tuple[list[Anchor], list[Anchor]]:
    """`literal` where loops would take long: the reference, which has literal tests of its own."""
    relative = RelativeQuery(query.kind, torch.tensor(query.threshold).double(), query.beta)
    mined = mine_similarity(scores, base.Pairing(*pairing), relative)

    def anchors(value: Tensor, index: Tensor, total: Tensor, count: Tensor) -> list[Anchor]:
        if query.kind == "none":
            total, count = torch.zeros_like(value), torch.zeros_like(index)
        fields = (x.tolist() for x in (value, index, total, count))
        return list(zip(*fields, strict=True))

    rows = anchors(mined.row_value, mined.row_index, mined.row_sum, mined.row_count)
    return rows, anchors(
        mined.column_value, mined.column_index, mined.column_sum, mined.column_count
    )


def sorted_pairing(case: Case) -> Pairing:
    """Captions of the same picture beside each other: most tiles need no mask."""
    rows, columns = case.rows, case.columns
    return (
        torch.arange(rows) * columns // max(rows, 1),
        torch.arange(rows) * 3 // 7,
        torch.arange(columns) * 3 // 7,
    )


def check(found: list[Anchor], expected: list[Anchor], kind: str) -> None:
    """Values, indices and counts equal, sums to float32 rounding of their largest part."""
    assert [a[1] for a in found] == [a[1] for a in expected]
    assert [a[3] for a in found] == [a[3] for a in expected]
    values = torch.tensor([a[0] for a in found]), torch.tensor([a[0] for a in expected])
    torch.testing.assert_close(*values, rtol=0, atol=0, equal_nan=True)
    sums = torch.tensor([a[2] for a in found]), torch.tensor([a[2] for a in expected])
    # The hardest one's own term of 1 is part of an exponential sum before it is taken off.
    torch.testing.assert_close(*sums, rtol=2e-6, atol=2e-6 if kind == "exponential" else 0)


def compare(
    image: Tensor, text: Tensor, pairing: Pairing, query: Query, device: str, members: int = 0
) -> None:
    raw = call(image, text, pairing, query, device, members=members)
    expected = literal(image.double() @ text.double().T, pairing, query)
    for side in (0, 1):
        check(finished(raw, side, query), expected[side], query.kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("pairing", [None, sorted_pairing, full_pairing])
@pytest.mark.parametrize("members", [1, 2])
def test_exact_data(mining_device: str, case: Case, kind: str, pairing, members: int) -> None:
    image = whole_numbers(case.rows, case.width, torch.bfloat16, 1)
    text = whole_numbers(case.columns, case.width, torch.bfloat16, 2)
    chosen = NO_PAIRING if pairing is None else pairing(case)
    # At most a few of a thousand similarities reach a threshold of two standard deviations.
    threshold = round(4 * math.sqrt(case.width))
    # Greatest lengths make the bound of the range grow like the width.
    query = Query(kind, threshold, 4 * HALF_LIFE / case.width)
    compare(image, text, chosen, query, mining_device, members)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threshold", [-40.0, 0.0])
def test_most_similarities_reach_the_threshold(mining_device: str, kind: str, threshold) -> None:
    """Float16, and counts near the number of rows."""
    image, text = (whole_numbers(n, 24, torch.float16, n) for n in (140, 150))
    query = Query(kind, threshold, HALF_LIFE / 2)
    compare(image, text, full_pairing(Case(140, 150, 0, "")), query, mining_device)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sign", [1, -1])
def test_everything_ties(mining_device: str, kind: str, sign: int) -> None:
    """The lowest index wins in every lane, register and tile; linear sums leave all of them out."""
    ones = torch.ones(260, 16, dtype=torch.bfloat16)
    compare(ones, sign * ones, NO_PAIRING, Query(kind, -20.0, HALF_LIFE), mining_device)


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_tie_whatever_their_sign(mining_device: str, kind: str) -> None:
    image = torch.zeros(130, 8, dtype=torch.bfloat16)
    image[::2, 0] = -1e-38  # products underflow to -0
    text = torch.full((140, 8), 1e-38, dtype=torch.bfloat16)
    raw = call(image, text, NO_PAIRING, Query(kind, 0.0, 1.0), mining_device)
    scores = torch.zeros(130, 140, dtype=torch.float64)
    expected = literal(scores, NO_PAIRING, Query(kind, 0.0, 1.0))
    for side in (0, 1):
        check(finished(raw, side, Query(kind, 0.0, 1.0)), expected[side], kind)


@pytest.mark.parametrize("where", [0, 1, 63, 64, 127, 128, 199])
def test_every_position_can_be_the_hardest(mining_device: str, where: int) -> None:
    """One large similarity in each row and column, on a shifted diagonal."""
    size = 200
    image = torch.eye(size, dtype=torch.bfloat16)
    text = image.roll(where, 0)
    raw = call(image, text, (torch.full((size,), -1), None, None), Query(), mining_device)
    assert [decoded(k) for k in raw.keys[0].tolist()] == [
        (1.0, (i + where) % size) for i in range(size)
    ]
    assert [decoded(k) for k in raw.keys[1].tolist()] == [
        (1.0, (j - where) % size) for j in range(size)
    ]


@pytest.mark.parametrize("end", [0, 127])
@pytest.mark.parametrize("which", ["target", "ids"])
def test_a_tile_with_one_pair_that_is_no_negative(mining_device: str, which: str, end: int) -> None:
    """All rows of the second tile belong to the first or last column of the first block."""
    image, text = torch.ones(256, 8, dtype=torch.bfloat16), torch.ones(128, 8, dtype=torch.bfloat16)
    text[end] = 2.0
    rows = torch.full((256,), -1)
    rows[128:] = end
    none = torch.full((256,), -1)
    pairing = (rows, None, None) if which == "target" else (none, rows, torch.arange(128))
    compare(image, text, pairing, Query(), mining_device)


SPECIALS = (math.nan, math.inf, -math.inf)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("values", [(s,) for s in SPECIALS] + [SPECIALS], ids=str)
def test_not_finite(mining_device: str, values: tuple[float, ...], kind: str) -> None:
    """Maxima keep their order, -inf is a negative like any other; sums are left to `resum`."""
    image, text = (whole_numbers(n, 8, torch.bfloat16, s) for n, s in ((140, 1), (150, 2)))
    for k, value in enumerate(values):
        image[17 + 40 * k, 3] = value
        text[9 + 61 * k, 2] = value
    image[5] = 0.0
    image[5, 0], text[:, 0] = -math.inf, 1.0  # a row of -inf and, from infinities, NaN
    pairing = full_pairing(Case(140, 150, 0, ""))
    raw = call(image, text, pairing, Query(kind, -8.0, HALF_LIFE), mining_device)
    scores = (image.float()[:, None, :] * text.float()[None, :, :]).sum(2).double()
    for side, anchors in enumerate(literal(scores, pairing, Query())):
        found = [decoded(k) for k in raw.keys[side].tolist()]
        assert [str(f) for f in found] == [str(a[:2]) for a in anchors]
        if kind != "none":
            assert not raw.sums[side].any()
            assert not raw.counts[side].any()


@pytest.mark.parametrize("kind", ["linear", "exponential"])
def test_a_wide_range_is_left_to_resum(mining_device: str, kind: str) -> None:
    image, text = (whole_numbers(n, 8, torch.bfloat16, s) for n, s in ((140, 1), (150, 2)))
    raw = call(image, text, NO_PAIRING, Query(kind, -1e6, 1.0), mining_device)
    for side in (0, 1):
        assert not raw.sums[side].any()
        assert not raw.counts[side].any()


@pytest.mark.parametrize("width", [8, 72, 264])
@pytest.mark.parametrize("kind", ["none", "exponential"])
def test_split_rows(mining_device: str, width: int, kind: str) -> None:
    """high high + high low + low high: what the low halves share is left out, nothing else."""
    rows, columns = 140, 270
    halves = [
        [whole_numbers(n, width, torch.bfloat16, 10 * n + k) for k in (0, 1)]
        for n in (rows, columns)
    ]
    high, low = [pair[0] for pair in halves], [pair[1] / 64 for pair in halves]
    image, text = (torch.cat(pair, 1) for pair in zip(high, low, strict=True))
    scores = high[0].double() @ high[1].double().T + high[0].double() @ low[1].double().T
    scores += low[0].double() @ high[1].double().T
    query = Query(kind, 0.0, 0.1, split=True)
    raw = call(image, text, NO_PAIRING, query, mining_device)
    for side, anchors in enumerate(literal(scores, NO_PAIRING, query)):
        check(finished(raw, side, query), anchors, kind)


SEGMENTS = Case(2300, 1200, 8, "segments of several tiles, an odd one at the end")
GROUPS = Case(200, 8400, 8, "groups of several blocks: rows are added up")
GROUPS_OF_PAIRS = Case(100, 16500, 8, "groups of several pairs of blocks")


@pytest.mark.parametrize(
    ("case", "members"),
    [(SEGMENTS, 1), (GROUPS, 1), (SEGMENTS, 2), (GROUPS_OF_PAIRS, 2)],
    ids=str,
)
@pytest.mark.parametrize("kind", KINDS)
def test_results_do_not_depend_on_the_grid(
    mining_device: str, case: Case, kind: str, members: int
) -> None:
    shape = native.load().cuda.mine_shape(case.rows, case.columns, case.width, False, members)
    assert shape["members"] == members
    assert shape["segment_tiles"] > 1 or shape["group_blocks"] > members
    image, text = (
        whole_numbers(n, case.width, torch.bfloat16, n) for n in (case.rows, case.columns)
    )
    query = Query(kind, 9.0, HALF_LIFE)
    pairing = sorted_pairing(case)
    first = call(image, text, pairing, query, mining_device, 1, members)
    for programs in (3, 132):
        again = call(image, text, pairing, query, mining_device, programs, members)
        for a, b in zip(first[:4], again[:4], strict=True):
            for x, y in zip(a or (), b or (), strict=True):
                assert torch.equal(x, y)
    expected = dense(image.double() @ text.double().T, pairing, query)
    for side in (0, 1):
        check(finished(first, side, query), expected[side], kind)


@pytest.mark.parametrize(
    "size",
    [(1, 1), (128, 129), (1000, 3000), (2300, 1200), (9000, 300), (8400, 8400), (70000, 70000)],
)
@pytest.mark.parametrize("width", [64, 1024])
@pytest.mark.parametrize("members", [1, 2])
def test_items_cover_every_tile_once(
    emulation, size: tuple[int, int], width: int, members: int
) -> None:
    items = native.load().cuda.mine_items
    tiles, blocks = (-(-n // 128) for n in size)
    seen = torch.zeros(tiles, blocks, dtype=torch.int32)
    for first_tile, count, first_block, width_blocks in items(*size, width, False, members):
        assert count > 0
        assert width_blocks > 0
        assert first_block % members == 0
        seen[first_tile : first_tile + count, first_block : first_block + width_blocks] += 1
    assert torch.equal(seen, torch.ones_like(seen))


@pytest.mark.parametrize(("exponent", "summed"), [(65.0, True), (67.0, False)])
def test_sums_start_at_the_threshold_below_66_nats(mining_device, exponent, summed) -> None:
    """Where Triton's kernels, which read them, take sums for final: 2^31 terms do not overflow."""
    image = torch.ones(130, 8, dtype=torch.bfloat16)
    raw = call(image, image, NO_PAIRING, Query("exponential", 0.0, exponent / 8), mining_device)
    for side in (0, 1):
        assert bool(raw.sums[side].any()) == bool(raw.counts[side].any()) == summed


def test_images_are_shared_where_one_would_read_too_much(emulation) -> None:
    """By two thread blocks, if there are two blocks of texts; asked for, at any width."""
    shape = native.load().cuda.mine_shape
    for width, split, members in (
        *((512, False, 1), (896, False, 1), (897, False, 2), (2048, False, 2)),
        *((256, True, 1), (512, True, 2)),
    ):
        assert shape(4096, 4096, width, split)["members"] == members
    assert shape(4096, 128, 1024, False)["members"] == 1
    assert shape(4096, 4096, 64, False, 2)["members"] == 2
    for wrong in (-1, 3):
        with pytest.raises(ValueError, match=f"members: expected 0, 1 or 2, got {wrong}"):
            shape(4096, 4096, 64, False, wrong)
