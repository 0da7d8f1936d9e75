"""Counts of the native ranking against a dense float64 matrix, for every instruction set."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import goal_kernels as gk
from goal_kernels.backends.arguments import DTYPES
from goal_kernels.backends.cpu import CpuBackend
from goal_kernels.backends.scores import RankCounts

NAN, INF = float("nan"), float("inf")
LARGEST = torch.finfo(torch.float32).max


def counted(image: Tensor, text: Tensor, owner: Tensor, score: Tensor | None = None) -> RankCounts:
    """Every pair compared. score [N, M] float32; None: the float64 product, rounded."""
    if score is None:
        score = (image.double() @ text.double().T).float()
    texts = torch.arange(len(text))
    positive = score[owner, texts]
    score = score.masked_fill(score.isnan(), -INF).clamp(max=LARGEST)
    own = owner[None, :] == torch.arange(len(image))[:, None]
    image_best = score.masked_fill(~own, -INF).amax(dim=1, keepdim=True)
    text_best = score[owner, texts]
    return RankCounts(
        positive,
        ((score > image_best) & ~own).sum(dim=1),
        ((score == image_best) & ~own).sum(dim=1),
        ((score > text_best) & ~own).sum(dim=0),
        ((score == text_best) & ~own).sum(dim=0),
    )


def assert_same(found: RankCounts, expected: RankCounts) -> None:
    torch.testing.assert_close(found.positive, expected.positive, equal_nan=True)
    for name in RankCounts._fields[1:]:
        wrong = (getattr(found, name) != getattr(expected, name)).sum().item()
        assert wrong == 0, f"{name}: {wrong} queries differ"


def embeddings(images: int, texts: int, width: int, dtype=torch.float32, seed: int = 0):
    """Texts near their images, any number per image. Returns image, text, owner."""
    generator = torch.Generator().manual_seed(seed)
    owner = torch.randint(images, (texts,), generator=generator)
    image = torch.randn(images, width, generator=generator)
    text = image[owner] + 2 * torch.randn(texts, width, generator=generator)
    return image.to(dtype), text.to(dtype), owner


# Micro-tiles have 4, 6, 14 or 32 rows and 4 to 32 columns; 256 is the longest chain of a sum.
SIZES = (
    (1, 1, 1),
    (1, 40, 5),
    (13, 31, 32),
    (14, 32, 64),
    (15, 33, 255),
    (33, 65, 256),
    (33, 100, 257),
    (100, 30, 1030),
)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_against_every_pair(backend, size, dtype) -> None:
    """Ragged sizes; more images than texts too, so images without one."""
    inputs = embeddings(*size, dtype)
    assert_same(backend.rank(*inputs), counted(*inputs))


@pytest.mark.parametrize("size", [(530, 2060, 3), (2060, 36, 3)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_many_chunks_and_blocks(backend, dtype, size) -> None:
    """More columns than a block of 2048, and more rows than 16 chunks of a micro-tile; so many rows
    that there are more chunks, 64 of them with the smallest micro-tiles."""
    inputs = embeddings(*size, dtype)
    assert_same(backend.rank(*inputs), counted(*inputs))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_whole_numbers_tie_exactly(backend, dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(-1, 2, (70, 9), generator=generator).to(dtype)
    text = torch.randint(-1, 2, (300, 9), generator=generator).to(dtype)
    owner = torch.randint(70, (300,), generator=generator)
    expected = counted(image, text, owner)
    assert expected.image_ties.count_nonzero() > 30
    assert_same(backend.rank(image, text, owner), expected)
    assert_same(backend.rank(-0.0 * image, text, owner), counted(0 * image, text, owner))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_copies_far_apart_tie(backend, dtype) -> None:
    """In other micro-tiles, and beyond the 2048 columns of a block."""
    image, text, owner = embeddings(70, 2100, 77, dtype)
    image[69], text[2099], text[1200] = image[0], text[0], text[0]
    owner[[0, 2099, 1200]] = torch.tensor([0, 69, 1])
    found = backend.rank(image, text, owner)
    assert_same(found, counted(image, text, owner))
    assert found.text_ties[0] == found.text_ties[2099] == 1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_collapsed_model_ties_everywhere(backend, dtype) -> None:
    image, text = torch.full((60, 100), 0.3, dtype=dtype), torch.full((240, 100), 0.7, dtype=dtype)
    owner = torch.arange(240) // 4
    found = backend.rank(image, text, owner)
    assert (found.image_ties == 236).all()
    assert (found.text_ties == 59).all()
    assert found.image_better.count_nonzero() == found.text_better.count_nonzero() == 0


NEAR = (1e-8, 1e-7, 1e-6, 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("distance", NEAR)
def test_pairs_nearer_than_the_product_resolves(backend, distance, dtype) -> None:
    """Copies of a few texts, moved a little: a product in float32 puts them in another order."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=1)

    owner = torch.arange(400) % 40
    image, text = normal(40, 1000), normal(4, 1000).repeat(100, 1)
    image = (image + text[:40]).to(dtype)
    text = (text + distance * normal(400, 1000)).to(dtype)
    expected = counted(image, text, owner)
    hasty = counted(image, text, owner, image.float() @ text.float().T)
    assert any((a != b).any() for a, b in zip(hasty[1:], expected[1:], strict=True))
    assert_same(backend.rank(image, text, owner), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_orders_of_a_sum_tie(backend, dtype) -> None:
    """Texts with the same numbers in other places score the same with a constant image; errors of
    a float32 sum of positive numbers add up, so this is where they are largest."""
    generator = torch.Generator().manual_seed(2)
    numbers = (torch.rand(3000, generator=generator) + 0.5).to(dtype)
    text = torch.stack([numbers[torch.randperm(3000, generator=generator)] for _ in range(90)])
    image = torch.full((45, 3000), 1 / 3, dtype=dtype)
    owner = torch.arange(90) // 2
    assert (image[:1].float() @ text.float().T).unique().numel() > 1
    found = backend.rank(image, text, owner)
    assert (found.image_ties == 88).all()
    assert (found.text_ties == 44).all()


SCALES = {
    torch.float32: ((-66, -66), (-130, 20), (-75, -75), (64, 63), (63, 64.5), (100, -100)),
    torch.bfloat16: ((-66, -66), (-130, 20), (-75, -75), (64, 63), (63, 64.5), (100, -100)),
    torch.float16: ((-10, -10), (-20, 8)),
    torch.float64: ((-66, -66), (-520, -520), (64, 63), (480, 480), (-500, 490)),
}


@pytest.mark.parametrize(
    ("dtype", "scales"), [(dtype, pair) for dtype in SCALES for pair in SCALES[dtype]], ids=str
)
def test_numbers_that_underflow_and_overflow(backend, dtype, scales) -> None:
    """Scales 2^a of the images, 2^b of the texts: scores or their parts are subnormal, flushed by
    some processors' products, or infinite in float32."""
    image, _, owner = embeddings(50, 130, 200, torch.float64, seed=3)
    # Of no image in particular: its own score is among the others.
    text = torch.randn(130, 200, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    image, text = (x * 2.0**scale for x, scale in zip((image, text), scales, strict=True))
    # Some rows of usual length beside them.
    image[::7] /= 2.0 ** scales[0]
    text[::5] /= 2.0 ** scales[1]
    image, text = image.to(dtype), text.to(dtype)
    assert_same(backend.rank(image, text, owner), counted(image, text, owner))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_and_infinity(backend, dtype) -> None:
    image, text, owner = embeddings(40, 90, 70, dtype, seed=4)
    image[3, 5], image[7, 69], image[8] = NAN, INF, -INF
    text[0, 2], text[33], text[40, 69], text[89, 5] = NAN, 0.0, -INF, INF
    owner[[0, 33, 40, 41, 89]] = torch.tensor([3, 7, 7, 3, 8])
    assert_same(backend.rank(image, text, owner), counted(image, text, owner))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_infinity_compares_as_the_largest_number(backend, dtype) -> None:
    image = torch.tensor([[LARGEST], [INF], [1.0], [-INF]], dtype=dtype)
    text, owner = torch.ones(4, 1, dtype=dtype), torch.tensor([0, 1, 2, 3])
    found = backend.rank(image, text, owner)
    assert_same(found, counted(image, text, owner))
    assert found.text_ties.tolist() == [1, 1, 0, 0]


def test_every_positive_is_nan(backend) -> None:
    image, text, owner = embeddings(20, 50, 9)
    image[:, 0] = NAN
    found = backend.rank(image, text, owner)
    assert found.positive.isnan().all()
    assert (found.text_ties == 19).all()
    assert_same(found, counted(image, text, owner))


def test_strided_inputs_and_thread_counts(backend, set_threads) -> None:
    """Just large enough for threads, with several micro-tiles each."""
    image, text, owner = embeddings(200, 160, 60, seed=5)
    assert 200 * 160 * 40 > 2**20
    set_threads(1)
    expected = backend.rank(image[:, 20:].contiguous(), text[:, :40].contiguous(), owner)
    columns_apart = text[:, :40].T.contiguous().T
    for threads in (1, 2, 3):
        set_threads(threads)
        for other in (text[:, :40], columns_apart):
            found = backend.rank(image[:, 20:], other, owner)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_instruction_sets_agree_bit_for_bit(backend, fastest) -> None:
    """Float64 sums of exact products, always in the same order."""
    inputs = embeddings(90, 200, 333)
    found, expected = backend.rank(*inputs), fastest.rank(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_public_ranks_equal_the_reference(fastest, dtype) -> None:
    inputs = embeddings(150, 400, 64, dtype, seed=6)
    found = gk.retrieval_ranks(*inputs, backend="cpu")
    expected = gk.retrieval_ranks(*inputs, backend="reference")
    for name in ("i2t", "t2i"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), rtol=0, atol=0, equal_nan=True
        )
    for name in ("i2t_standing", "t2i_standing"):
        pairs = zip(getattr(found, name), getattr(expected, name), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_auto_ranks_natively(fastest, monkeypatch) -> None:
    calls = []
    rank = CpuBackend.rank

    def spy(self: CpuBackend, *inputs: Tensor) -> RankCounts:
        calls.append(inputs)
        return rank(self, *inputs)

    monkeypatch.setattr(CpuBackend, "rank", spy)
    gk.retrieval_ranks(*embeddings(5, 9, 3))
    assert len(calls) == 1


@pytest.mark.parametrize("stray", [-1, 5, 1 << 40])
def test_a_wrong_owner_is_refused(backend, stray) -> None:
    image, text, owner = embeddings(5, 9, 3)
    owner[4] = stray
    with pytest.raises(ValueError, match=r"text_to_image: expected indices in \[0, 5\), got"):
        backend.rank(image, text, owner)


def test_embeddings_without_content_tie(backend) -> None:
    owner = torch.arange(40) // 2
    found = backend.rank(torch.zeros(20, 8), torch.zeros(40, 8), owner)
    assert (found.image_ties == 38).all()
    assert not any(math.isnan(score) for score in found.positive.tolist())
