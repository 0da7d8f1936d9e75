"""Screened float32 mining: exact results from a bfloat16 product, or none at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import native_calls
import pytest
import torch
from torch import Tensor

from goal_kernels import native
from goal_kernels.backends.answers import UNSCALED, Mined, Scales
from goal_kernels.backends.base import Pairing, RelativeQuery
from goal_kernels.backends.cpu import CpuBackend

INFO = native.build_info() if native.status()[0] else {}
SCREENING_ISAS = [
    isa
    for isa in (*INFO.get("usable_isas", ()), *INFO.get("emulated_isas", ()))
    if isa in ("avx512_bf16", "amx", "amx_emulated")
]
# Just above the smallest job that is screened; not multiples of any tile, with several chunks.
ROWS, COLUMNS, WIDTH = 531, 517, 131
EMPTY = Pairing()


class Found(NamedTuple):
    """What mining answered and by which product."""

    mined: Mined
    product: str


@pytest.fixture(params=SCREENING_ISAS)
def search(request: pytest.FixtureRequest) -> Callable[..., Found]:
    def run(
        image: Tensor,
        text: Tensor,
        pairing: Pairing = EMPTY,
        precision: str = "highest",
        scales: Scales = UNSCALED,
    ) -> Found:
        query = RelativeQuery("none", torch.tensor(0.0), 1.0)
        backend = CpuBackend(request.param)
        return Found(*native_calls.mine(backend, image, text, pairing, query, precision, scales))

    return run


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def embeddings(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of about unit length, [ROWS, WIDTH] and [COLUMNS, WIDTH]."""
    scale = WIDTH**-0.5
    return normal(ROWS, WIDTH, seed=seed) * scale, normal(COLUMNS, WIDTH, seed=seed + 1) * scale


def allowed(rows: int, columns: int, pairing: Pairing) -> Tensor:
    """bool [rows, columns]: who may be a negative of whom."""
    target = torch.arange(rows) if pairing.target is None else pairing.target
    result = torch.arange(columns)[None, :] != target[:, None]
    if pairing.image_ids is not None and pairing.text_ids is not None:
        result &= pairing.image_ids[:, None] != pairing.text_ids[None, :]
    return result


def check(found: Found, image: Tensor, text: Tensor, pairing: Pairing = EMPTY) -> None:
    """Values are the largest to float32 rounding, and belong to the indices.

    A hardest negative whose similarity is less than the largest by more than rounding is wrong.
    What was screened is decided by dot products with short chains of additions.
    """
    scores = image.double() @ text.double().T
    scores = scores.masked_fill(~allowed(*scores.shape, pairing), -torch.inf)
    lengths = image.double().norm(dim=1)[:, None] * text.double().norm(dim=1)[None, :]
    additions = image.shape[1] / (64 if found.product == "screened" else 1) + 8
    error = additions * 2.0**-24
    mined = found.mined
    for axis, value, index in (
        (1, mined.row_value, mined.row_index),
        (0, mined.column_value, mined.column_index),
    ):
        largest = scores.amax(axis)
        absent = largest == -torch.inf
        assert torch.equal(index == -1, absent)
        assert torch.equal(value == -torch.inf, absent)
        at = index.clamp(min=0).unsqueeze(axis)
        chosen = scores.gather(axis, at).squeeze(axis)[~absent]
        bound = (error * lengths.gather(axis, at).squeeze(axis))[~absent] + 1e-37
        assert (chosen >= largest[~absent] - 2 * bound).all()
        assert ((value[~absent].double() - chosen).abs() <= bound).all()


def test_random_embeddings_are_screened(search) -> None:
    image, text = embeddings()
    found = search(image, text)
    assert found.product == "screened"
    check(found, image, text)
    assert search(image, text, precision="high").product == "screened"
    assert search(image, text, precision="medium").product == "bfloat16"


def test_neighbours_that_bfloat16_cannot_tell_apart(search) -> None:
    """Texts come in groups of four that differ by less than bfloat16 resolves."""
    image, text = embeddings()
    text = text[torch.arange(COLUMNS) // 4] * (1 + 1e-4 * normal(COLUMNS, 1, seed=5))
    found = search(image, text)
    assert found.product == "screened"
    check(found, image, text)
    rough = search(image, text, precision="medium")
    with pytest.raises(AssertionError):
        check(rough, image, text)


def test_rounding_that_misleads_as_much_as_it_can(search) -> None:
    """Half a unit in the last place: the hardest text rounds down everywhere, its rivals up."""
    image, text = embeddings()
    half_unit, little, scale = 2.0**-8, 2.0**-16, 2.0**-3
    image[5] = scale
    text[100:120] = scale * (1 + half_unit + little)
    text[120] = scale * (1 + half_unit - little)
    text[120, -1] += scale * 3 * little * WIDTH
    for row in (text[100], text[120]):
        lost = (row.bfloat16().float() - row).abs()[:-1]
        assert (lost > 0.99 * scale * half_unit).all()
    found = search(image, text)
    assert found.product == "screened"
    assert found.mined.row_index[5] == 120
    check(found, image, text)
    assert search(image, text, precision="medium").mined.row_index[5] != 120


def test_ties_take_the_lowest_index(search) -> None:
    """Small integers: similarities are exact and most maxima are shared."""
    generator = torch.Generator().manual_seed(3)
    image = torch.randint(-1, 2, (ROWS, WIDTH), generator=generator).float()
    text = torch.randint(-1, 2, (COLUMNS, WIDTH), generator=generator).float()
    text[100:200] = text[:100]
    found = search(image, text)
    scores = (image @ text.T).masked_fill(~allowed(ROWS, COLUMNS, EMPTY), -torch.inf)
    for axis, value, index in ((1, *found.mined[:2]), (0, *found.mined[2:4])):
        largest = scores.amax(axis, keepdim=True)
        assert torch.equal(value, largest.squeeze(axis))
        first = (scores == largest).int().argmax(axis)  # the first of several equal ones
        assert torch.equal(index, first)


def test_pairing(search) -> None:
    image, text = embeddings()
    ids = torch.arange(ROWS) % 7
    ids[:50] = 99
    target = torch.arange(ROWS).flip(0)
    target[::5] = -1
    text_ids = torch.arange(COLUMNS) % 7
    for pairing in (Pairing(target), Pairing(None, ids, text_ids), Pairing(target, ids, text_ids)):
        check(search(image, text, pairing), image, text, pairing)
    nobody = Pairing(None, torch.zeros(ROWS).long(), torch.zeros(COLUMNS).long())
    check(search(image, text, nobody), image, text, nobody)


@pytest.mark.parametrize("spread", [0.0, 1e-6, 1e-3], ids=str)
def test_collapsed_embeddings_are_not_screened(search, spread) -> None:
    image, text = embeddings()
    direction = normal(1, WIDTH, seed=9) * WIDTH**-0.5
    image, text = direction + spread * image, direction + spread * text
    found = search(image, text)
    assert found.product in ("exact", "split")
    if found.product == "exact":
        check(found, image, text)


@pytest.mark.parametrize(("crowd", "screened"), [(5, True), (60, False)])
def test_crowds_of_near_copies(search, crowd, screened) -> None:
    """A few near copies of every image are computed again; more are not worth it."""
    image, text = embeddings()
    image = image[torch.arange(ROWS) // crowd] + 1e-5 * image
    found = search(image, text)
    assert (found.product == "screened") is screened
    if found.product != "split":
        check(found, image, text)


def test_lengths_of_all_sizes(search) -> None:
    image, text = embeddings()
    image *= torch.logspace(-6, 6, ROWS)[:, None]
    text *= torch.logspace(3, -3, COLUMNS)[:, None]
    image[7] = 0
    text[11] = 0
    check(search(image, text), image, text)


@pytest.mark.parametrize("factor", [1e-30, 1e-38, 1e-42])
def test_numbers_near_and_below_the_smallest(search, factor) -> None:
    image, text = embeddings()
    check(search(image, text * factor), image, text * factor)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e25], ids=str)
def test_numbers_too_large_for_the_bound(search, bad) -> None:
    image, text = embeddings()
    image[3, 5] = bad
    text[17, 5] = bad
    found = search(image, text)
    assert found.product in ("exact", "split")
    if bad != bad:
        assert found.mined.row_index[:5].tolist() == [17, 17, 17, 0, 17]
        assert found.mined.row_value[3].isnan()
        assert found.mined.column_index[:3].tolist() == [3, 3, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_normalised_rows(search, dtype) -> None:
    image, text = (x.to(dtype) for x in embeddings())
    image *= torch.logspace(-2, 2, ROWS, dtype=dtype)[:, None]
    scales = Scales(1 / image.float().norm(dim=1), 1 / text.float().norm(dim=1))
    found = search(image, text, scales=scales)
    assert found.product == "screened"
    unit = (image.double() * scales.image[:, None], text.double() * scales.text[:, None])
    check(found, *unit)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")], ids=str)
def test_normalised_rows_that_are_not_finite(search, bad) -> None:
    image, text = embeddings()
    image[3, 5] = bad
    scales = Scales(1 / image.norm(dim=1), 1 / text.norm(dim=1))
    found = search(image, text, scales=scales)
    assert found.product in ("exact", "split")
    assert found.mined.row_value[3].isnan()
    others = torch.arange(COLUMNS) != 3
    assert (found.mined.column_index[others] == 3).all()
    assert found.mined.column_value[others].isnan().all()


def test_strided_and_unaligned_input(search) -> None:
    image, text = embeddings()
    wide = torch.full((ROWS, WIDTH + 6), 1e30)
    wide[:, 3:-3] = image
    upright = text.T.contiguous().T
    found = search(wide[:, 3:-3], upright)
    assert found.product == "screened"
    plain = search(image, text)
    for a, b in zip(found.mined, plain.mined, strict=True):
        assert torch.equal(a, b)


def test_bit_equal_for_any_thread_count(search, set_threads) -> None:
    image, text = embeddings()
    results = []
    for threads in (1, 2, 5):
        set_threads(threads)
        results.append(search(image, text).mined)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


def test_small_jobs_are_not_worth_it(search) -> None:
    image, text = embeddings()
    assert search(image[:100], text).product in ("exact", "split")
    assert search(image[:, :100], text[:, :100]).product in ("exact", "split")
