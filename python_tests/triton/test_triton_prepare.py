"""What the first kernel learns about rows and pairs, against torch and literal loops."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from mining_literal import CASES, Case, full_pairing, whole_numbers
from sum_units import FIELDS
from torch import Tensor

from goal_kernels.backends.base import Pairing
from goal_kernels.backends.gpu import configs
from goal_kernels.backends.gpu.kernels.prepare import prepare
from goal_kernels.backends.gpu.records import Prepared, Wants
from goal_kernels.backends.gpu.runtime import on_device
from goal_kernels.constants import SHORTEST_LENGTH

triton = pytest.importorskip("triton")
import triton.language as tl  # noqa: E402

from goal_kernels.backends.gpu.kernels.common import (  # noqa: E402
    narrow,
    read_bound,
    read_threshold,
    wide_range,
)

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

NOTHING = -(2**63)
EVERYTHING = Wants(aligned=True, split=True, mixed=True, sums="linear")
FLOAT32_EPS = torch.finfo(torch.float32).eps


class Outcome(NamedTuple):
    prepared: Prepared
    positive: Tensor

    @property
    def smallest(self) -> Tensor:
        return self.prepared.batch_stats[0].amin()

    @property
    def lengths(self) -> list[float]:
        return self.prepared.batch_stats[1:].amax(dim=1).tolist()


def run(
    image: Tensor,
    text: Tensor,
    pairing: Pairing = Pairing(),  # noqa: B008
    wants: Wants = Wants(),  # noqa: B008
    normalize: bool = False,
) -> Outcome:
    pairing = Pairing(*(None if t is None else t.to(image.device) for t in pairing))
    positive = image.new_empty(len(image), dtype=torch.float32)
    scales = image.new_empty(len(image) + len(text), dtype=torch.float32) if normalize else None
    with on_device(image):
        return Outcome(prepare(image, text, pairing, wants, positive, scales), positive)


def tensors(prepared: Prepared) -> list[Tensor]:
    """What mining kernels add to, and what they mask by."""
    return [*prepared.rows[:4], *prepared.columns[:4], prepared.ticket, prepared.mixed]


def random_rows(rows: int, width: int, seed: int, device) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)).to(device)


def positives_literally(image: Tensor, text: Tensor, target: list[int]) -> list[float]:
    scores = image.double() @ text.double().T
    return [scores[i, t].item() if 0 <= t < len(text) else -math.inf for i, t in enumerate(target)]


@pytest.mark.parametrize("paired", [False, True], ids=["implicit", "target"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_exact_data(backend, device, nan_filled_memory, case: Case, paired: bool) -> None:
    image = whole_numbers(case.rows, case.width, torch.float32, 31).to(device)
    text = whole_numbers(case.columns, case.width, torch.float32, 32).to(device)
    target = full_pairing(case)[0] if paired else None
    kind = "exponential" if paired else "linear"
    found = run(image, text, Pairing(target), Wants(sums=kind))
    truth = positives_literally(
        image, text, list(range(case.rows)) if target is None else target.tolist()
    )
    assert found.positive.tolist() == truth
    assert found.smallest == min([p for p in truth if p > -math.inf], default=math.inf)
    lengths = [x.double().norm(dim=1).max().item() for x in (image, text)]
    assert found.lengths == pytest.approx(lengths, rel=2 * FLOAT32_EPS, abs=0)
    prepared = found.prepared
    for side, length in ((prepared.rows, case.rows), (prepared.columns, case.columns)):
        assert side.keys.tolist() == [NOTHING] * length
        assert side.counts.tolist() == [0] * length
        assert side.sums.tolist() == [[0] * length] * FIELDS[kind]
        assert (side.tops is None) == paired
        assert paired or side.tops.tolist() == [NOTHING] * length
    assert prepared.ticket.tolist() == [0]
    assert prepared.operands.image is image
    assert prepared.operands.text is text


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("width", [511, 513, 1030])
def test_widths_around_a_slice(backend, device, width: int, dtype: torch.dtype) -> None:
    image = random_rows(9, width, 33, device).to(dtype)
    text = random_rows(5, width, 34, device).to(dtype)
    found = run(image, text)
    truth = positives_literally(image, text, list(range(9)))
    slack = width * FLOAT32_EPS * math.prod(found.lengths)
    assert found.positive[:5].tolist() == pytest.approx(truth[:5], rel=0, abs=slack)
    assert found.positive[5:].tolist() == [-math.inf] * 4


def test_any_number_of_programs_gives_the_same(
    backend, device, monkeypatch, nan_filled_memory
) -> None:
    image, text = random_rows(300, 40, 35, device), random_rows(170, 40, 36, device)
    target, image_ids, text_ids = full_pairing(Case(300, 170, 40, "many blocks"))
    arguments = (image, text, Pairing(target, image_ids, text_ids), EVERYTHING, True)
    free = run(*arguments)
    assert free.prepared.batch_stats.shape[1] > 6
    for programs in (1, 2, 3):
        monkeypatch.setattr(configs, "PARTS", programs)
        bound = run(*arguments)
        assert bound.prepared.batch_stats.shape == (3, programs)
        assert torch.equal(free.smallest, bound.smallest)
        assert free.lengths == bound.lengths
        assert torch.equal(free.positive, bound.positive)
        for one, other in zip(tensors(free.prepared), tensors(bound.prepared), strict=True):
            assert torch.equal(one, other)
        for one, other in zip(free.prepared.operands[:2], bound.prepared.operands[:2], strict=True):
            assert torch.equal(one, other)
        assert torch.equal(free.prepared.scales, bound.prepared.scales)


def mixed_blocks(prepared: Prepared, columns: int) -> list[list[bool]]:
    """For every block of 128 rows, whether that and each block of 128 columns are mixed."""
    words = prepared.mixed.tolist()
    bits = 32 * len(words[0])
    blocks = [b % bits for b in range(-(-columns // 128))]
    return [[line[b // 32] >> b % 32 & 1 == 1 for b in blocks] for line in words]


def mixed_literally(pairing: Pairing, rows: int, columns: int) -> list[list[bool]]:
    """The same from all pairs."""
    target, image_ids, text_ids = pairing
    own = torch.arange(rows) if target is None else target
    no_negative = own[:, None] == torch.arange(columns)
    if image_ids is not None:
        no_negative |= image_ids[:, None] == text_ids
    found = torch.zeros(-(-rows // 128), -(-columns // 128), dtype=torch.bool)
    i, j = no_negative.nonzero(as_tuple=True)
    found[i // 128, j // 128] = True
    return found.tolist()


def shuffled(values: Tensor, seed: int) -> Tensor:
    return values[torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))]


@pytest.mark.parametrize("which", ["target", "ids", "target+ids"])
@pytest.mark.parametrize("size", [(128, 1), (257, 4100), (130, 8300)], ids=str)
def test_mixed_blocks(backend, device, nan_filled_memory, size, which: str) -> None:
    """Several words, blocks cut off, targets that do not exist, extreme and negative ids."""
    rows, columns = size
    target = shuffled(torch.arange(rows) * 97 % (2 * columns) - 3, 61)
    target[5] = 2**40
    image_ids = shuffled(torch.arange(rows) * 40 - 2**62, 62)
    text_ids = shuffled(torch.arange(columns) * 33 - 2**62, 63)
    image_ids[100], text_ids[0] = 2**63 - 1, -(2**63)
    image_ids[rows - 1] = text_ids[columns - 1] = 0
    ids = (image_ids, text_ids) if "ids" in which else (None, None)
    pairing = Pairing(target if "target" in which else None, *ids)
    image, text = torch.ones(rows, 2, device=device), torch.ones(columns, 2, device=device)
    prepared = run(image, text, pairing, EVERYTHING).prepared
    expected = mixed_literally(pairing, rows, columns)
    assert mixed_blocks(prepared, columns) == expected
    assert columns == 1 or not all(all(line) for line in expected)


def test_no_blocks_are_marked_where_none_are_wanted_or_all_are_alike(backend, device) -> None:
    rows, ids = torch.ones(3, 2, device=device), torch.arange(3)
    assert run(rows, rows, Pairing(), EVERYTHING).prepared.mixed is None
    for pairing in (Pairing(ids), Pairing(None, ids, ids), Pairing(ids, ids, ids)):
        assert run(rows, rows, pairing).prepared.mixed is None


def test_many_columns_share_bits(backend, device, monkeypatch) -> None:
    """With one word, block 40 and block 8 have one bit: no pair is lost, memory stays small."""
    monkeypatch.setattr(configs, "MASK_WORDS", 1)
    image, text = torch.ones(130, 2, device=device), torch.ones(5300, 2, device=device)
    ids = torch.arange(130), torch.full((5300,), -1)
    ids[1][[40 * 128 + 7, 128]] = torch.tensor([3, 129])
    pairing = Pairing(torch.full((130,), -1), *ids)
    assert run(image, text, pairing, EVERYTHING).prepared.mixed.tolist() == [[1 << 8], [1 << 1]]


@pytest.mark.parametrize(("number", "share"), [(113_000, 0.25), (10**9, 1 / 16)], ids=str)
def test_few_blocks_are_mixed_in_any_order(backend, device, number: int, share: float) -> None:
    """Ids as samplers deal them: 13.5 % of the blocks share one of 113k; the diagonal: 1 in 16."""
    ids = torch.randint(number, (2048,), generator=torch.Generator().manual_seed(64))
    rows = torch.ones(2048, 1, device=device)
    prepared = run(rows, rows, Pairing(None, ids, ids), Wants(mixed=True)).prepared
    found = torch.tensor(mixed_blocks(prepared, 2048))
    assert found.diagonal().all()
    assert found.double().mean() <= share


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_operands_that_cannot_be_read_in_place_are_copied(backend, device, dtype) -> None:
    wants = Wants(aligned=True)
    image = random_rows(6, 40, 38, device).to(dtype)
    base = random_rows(9, 40, 39, device).to(dtype)
    assert run(image, base, wants=wants).prepared.operands.image is image
    unaligned = (base[:, 1:33], base[:, :33].contiguous(), base[:1, :32].expand(9, 32))
    for text in unaligned:
        width = text.shape[1]
        operands = run(image[:, :width], text, wants=wants).prepared.operands
        assert operands.width == -(-width // 8) * 8
        for copy, rows in zip(operands[:2], (image[:, :width], text), strict=True):
            assert copy.shape == (len(rows), operands.width)
            assert copy.dtype == dtype
            assert torch.equal(copy[:, :width], rows)
            assert not copy[:, width:].any()


def test_split_operands(backend, device, nan_filled_memory) -> None:
    """Both halves rounded to nearest even, so that 2**-16 of an element is lost at most."""
    image, text = random_rows(6, 33, 40, device), random_rows(7, 33, 41, device)
    operands = run(image, text, wants=EVERYTHING).prepared.operands
    assert operands.width == 40
    for pair, rows in zip(operands[:2], (image, text), strict=True):
        assert pair.shape == (len(rows), 80)
        assert pair.dtype == torch.bfloat16
        high, low = pair[:, :33], pair[:, 40:73]
        assert torch.equal(high, rows.bfloat16())
        assert torch.equal(low, (rows - high.float()).bfloat16())
        assert not pair[:, 33:40].any()
        assert not pair[:, 73:].any()
        assert ((high.float() + low.float() - rows).abs() <= 2.0**-16 * rows.abs()).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_normalised_rows(backend, device, dtype: torch.dtype) -> None:
    image = (random_rows(9, 37, 42, device) * 3).to(dtype)
    text = (random_rows(8, 37, 43, device) / 5).to(dtype)
    target = torch.tensor([7, 0, -1, 3, 3, 99, 1, 2, 4])
    found = run(image, text, Pairing(target), normalize=True)
    wide = [torch.nn.functional.normalize(x.double(), dim=1) for x in (image, text)]
    lengths = torch.cat([x.double().norm(dim=1) for x in (image, text)])
    error = (found.prepared.scales.double() * lengths - 1).abs()
    assert error.max() <= 4 * FLOAT32_EPS
    truth = positives_literally(*wide, target.tolist())
    assert found.positive.tolist() == pytest.approx(truth, rel=0, abs=10 * FLOAT32_EPS)
    for copy, rows in zip(found.prepared.operands[:2], wide, strict=True):
        assert copy.dtype == dtype
        rounding = torch.finfo(dtype).eps / 2 + 4 * FLOAT32_EPS
        assert ((copy[:, :37].double() - rows).abs() <= rounding * rows.abs()).all()
    assert found.lengths == pytest.approx([1.0, 1.0], abs=4 * FLOAT32_EPS)


def test_rows_too_short_to_normalise(backend, device) -> None:
    image = torch.tensor([[0.0, 0.0], [1e-13, 0.0], [2.0, 0.0]], device=device)
    text = torch.tensor([[3.0, 0.0], [4.0, 0.0], [0.0, 1e-13]], device=device)
    found = run(image, text, normalize=True)
    scales = found.prepared.scales.tolist()
    assert scales[:2] == scales[5:] * 2 == [pytest.approx(1 / SHORTEST_LENGTH)] * 2
    assert found.positive.tolist() == pytest.approx([0.0, 0.1, 0.0])
    assert found.lengths == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("normalize", [False, True])
def test_what_is_not_finite_is_not_lost(backend, device, normalize: bool) -> None:
    image, text = random_rows(300, 8, 44, device), random_rows(300, 8, 45, device)
    image[299, 3] = math.nan
    text[17, 0] = math.inf
    found = run(image, text, normalize=normalize)
    assert found.positive[299].isnan()
    assert found.smallest.isnan()
    assert math.isnan(found.lengths[0])
    assert found.lengths[1] == math.inf or (normalize and math.isnan(found.lengths[1]))
    clean = [i for i in range(300) if i not in (17, 299)]
    assert found.positive[clean].isfinite().all()


def test_a_positive_of_minus_infinity_does_not_exist(backend, device) -> None:
    image = torch.tensor([[-math.inf], [2.0]], device=device)
    found = run(image, torch.ones(2, 1, device=device))
    assert found.positive.tolist() == [-math.inf, 2.0]
    assert found.smallest == 2.0


@triton.jit
def probe_batch_stats(
    batch_stats, out, parts, epsilon, slope, KIND: tl.constexpr, PARTS: tl.constexpr
):
    """out float32 [3]: threshold, bound, whether the range is wide."""
    threshold = read_threshold(batch_stats, parts, epsilon, PARTS)
    bound = read_bound(batch_stats, parts, PARTS)
    tl.store(out, threshold)
    tl.store(out + 1, bound)
    tl.store(out + 2, wide_range(bound, threshold, slope, KIND).to(tl.float32))


def read_batch_stats(
    batch_stats: list[list[float]], device, slope=1.0, kind=2
) -> tuple[float, float, bool]:
    out = torch.empty(3, device=device)
    padded = torch.tensor(batch_stats, device=device)
    with on_device(out):
        probe_batch_stats[(1,)](padded, out, padded.shape[1], 0.5, slope, kind, 8)
    threshold, bound, wide = out.tolist()
    return threshold, bound, wide != 0


def test_batch_stats_are_read_from_all_parts_and_no_more(backend, device) -> None:
    batch_stats = [[3.0, -2.0, math.inf], [4.0, 1.0, 0.0], [1.0, 0.5, 5.0]]
    assert read_batch_stats(batch_stats, device) == (-2.5, 20.0, False)
    for broken in range(3):
        spoilt = [list(row) for row in batch_stats]
        spoilt[broken][1] = math.nan
        threshold, bound, wide = read_batch_stats(spoilt, device)
        assert math.isnan(bound if broken else threshold)
        assert wide


@pytest.mark.parametrize(
    ("threshold", "length", "slope", "kind", "wide"),
    [
        (-1.0, 1.0, 14.4, 2, False),
        (-1.0, 1.0, 38.0, 2, False),  # 2.5 * 38 = 95 < 66 / ln 2
        (-1.0, 1.0, 38.2, 2, True),
        (-1.0, 1.0, 1e6, 1, False),  # the linear kind has no slope
        (-100.0, 1.0, 0.0, 1, True),
        (-100.0, 1.0, 0.0, 2, False),
        (-math.inf, 1.0, 0.0, 2, True),
        (-math.inf, 1.0, 1.0, 1, True),
        (math.inf, 1.0, 1.0, 2, False),  # nothing is above the threshold
        (0.0, math.inf, 0.0, 2, True),
        (0.0, 2e19, 0.0, 2, True),  # similarities of 4e38 overflow
        (0.0, 2e19, 0.0, 1, True),
        (0.0, 0.0, 1.0, 2, False),
    ],
)
def test_wide_ranges(backend, device, threshold, length, slope, kind, wide) -> None:
    batch_stats = [[threshold], [length], [length]]
    assert read_batch_stats(batch_stats, device, slope, kind)[2] == wide


@triton.jit
def probe_narrow(values, out, LENGTH: tl.constexpr):
    """out bfloat16 = values float32, both [LENGTH]."""
    place = tl.arange(0, LENGTH)
    tl.store(out + place, narrow(tl.load(values + place), tl.bfloat16))


def test_rounding_to_bfloat16(backend, device) -> None:
    special = [1.0, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 0.0, -0.0, math.inf, -math.inf, math.nan]
    values = torch.tensor([*special, *[3.4e38, 1e-30, -2.5, 1.999]] + [0.1] * 3, device=device)
    out = torch.empty(16, dtype=torch.bfloat16, device=device)
    with on_device(out):
        probe_narrow[(1,)](values, out, 16)
    torch.testing.assert_close(out, values.bfloat16(), rtol=0, atol=0, equal_nan=True)
