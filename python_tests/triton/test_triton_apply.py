"""Gradients by the Triton kernel against literal loops, on data whose sums are exact."""

from __future__ import annotations

import math

import pytest
import torch
from mining_literal import gradients_literally, whole_numbers
from torch import Tensor

from goal_kernels.backends.gpu import configs
from goal_kernels.backends.gpu.configs import GATHER_WIDTH_LIMIT
from goal_kernels.backends.gpu.kernels.gather import with_lists
from goal_kernels.constants import SHORTEST_LENGTH

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def square_state(batch: int, seed: int = 31) -> tuple[Tensor, Tensor]:
    """vectors [6, B] and hardest [2, B]: weights in quarters, every fourth anchor mines nothing."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randint(-8, 9, (6, batch), generator=generator) / 4
    hardest = torch.randint(-batch // 3, batch, (2, batch), generator=generator).clamp(min=-1)
    return vectors, hardest


def backward(backend, image, text, vectors, hardest, grad_loss=1.0, need=(True, True)):
    moved = [t.to(image.device) for t in (vectors, hardest)]
    scale = torch.tensor(grad_loss, device=image.device)
    return backend.backward(scale, image, text, *moved, need)


def check_square(backend, device, batch: int, vectors: Tensor, hardest: Tensor, width=7) -> None:
    """Without lists, and with them: exact either way."""
    image = whole_numbers(batch, width, torch.float32, 32).to(device)
    text = whole_numbers(batch, width, torch.float32, 33).to(device)
    indices = (hardest[0], hardest[1], None)
    expected = gradients_literally(-0.5, image, text, indices, tuple(vectors[3:6]))
    for given in (hardest, with_lists(hardest)):
        found = backward(backend, image, text, vectors, given, grad_loss=-0.5)
        for grad, truth in zip(found, expected, strict=True):
            assert grad.is_contiguous()
            assert torch.equal(grad.cpu().double(), truth)


@pytest.mark.parametrize(
    ("batch", "width"),
    [(1, 1), (2, 7), (3, 1), (65, 33), (3, GATHER_WIDTH_LIMIT - 1), (4, GATHER_WIDTH_LIMIT + 5)],
)
def test_exact_data(backend, device, batch: int, width: int) -> None:
    """Up to one slice that is not full, and two slices."""
    check_square(backend, device, batch, *square_state(batch), width)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_is_rounded_once(backend, device, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(23)
    image, text = torch.randn(2, 20, 40, generator=generator).to(dtype)
    vectors, hardest = square_state(20)
    found = backward(backend, image.to(device), text.to(device), vectors, hardest)
    expected = gradients_literally(1.0, image, text, (*hardest, None), tuple(vectors[3:6]))
    for grad, truth in zip(found, expected, strict=True):
        assert grad.dtype == dtype
        half_ulp = torch.finfo(dtype).eps / 2
        slack = 1e-5 * truth.abs().max().item()
        error = (grad.cpu().double() - truth).abs()
        assert (error <= half_ulp * truth.abs() + slack).all()


def test_everyone_mines_the_same_item(backend, device) -> None:
    """A hub: one list holds every entry."""
    hardest = torch.tensor([7, 59])[:, None].repeat(1, 60)
    check_square(backend, device, 60, square_state(60)[0], hardest)


def test_zero_weight_keeps_nan_and_an_absent_term_does_not(backend, device) -> None:
    image = torch.ones(3, 2, device=device)
    text = torch.ones(3, 2, device=device)
    text[0] = math.nan
    hardest = torch.tensor([[-1, -1, 0], [-1, -1, -1]])
    grad_image, grad_text = backward(backend, image, text, torch.zeros(6, 3), hardest)
    assert grad_image.isnan().all(dim=1).tolist() == [True, False, True]
    assert grad_image[1].tolist() == [0.0, 0.0]
    assert grad_text.tolist() == [[0.0, 0.0]] * 3


def test_any_strides(backend, device) -> None:
    base = whole_numbers(40, 30, torch.float32, 28).to(device)
    image, text = base[::3, 2:9], base.T[4:18, 1:8]
    vectors, hardest = square_state(14)
    padded = torch.stack([vectors, torch.full_like(vectors, math.nan)], dim=2)[..., 0]
    found = backward(backend, image, text, padded, hardest.T.contiguous().T)
    expected = gradients_literally(1.0, image, text, (*hardest, None), tuple(vectors[3:6]))
    for grad, truth in zip(found, expected, strict=True):
        assert grad.is_contiguous()
        assert torch.equal(grad.cpu().double(), truth)


def test_reruns_are_bit_equal_and_complete(backend, device, nan_filled_memory) -> None:
    generator = torch.Generator().manual_seed(29)
    image, text = torch.randn(2, 50, 33, generator=generator).to(device)
    first = backward(backend, image, text, *square_state(50))
    again = backward(backend, image, text, *square_state(50))
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)
        assert one.isfinite().all()


@pytest.mark.parametrize(("batch", "share"), [(31, 1.0), (64, 1.0), (47, 0.3)])
def test_hubs_are_summed_in_pieces(
    backend, device, batch: int, share: float, monkeypatch, nan_filled_memory
) -> None:
    """Items that many mined, lists that begin and end in and on a piece."""
    monkeypatch.setattr(configs, "SMALL", 1)
    monkeypatch.setattr(configs, "PIECE", 4)
    vectors, hardest = square_state(batch)
    generator = torch.Generator().manual_seed(batch)
    many = torch.rand(2, batch, generator=generator) < share
    hubs = torch.randint(0, 3, (2, batch), generator=generator) * 5
    check_square(backend, device, batch, vectors, torch.where(many, hubs, hardest))


def test_hubs_of_normalised_rows(backend, device, monkeypatch, nan_filled_memory) -> None:
    monkeypatch.setattr(configs, "SMALL", 1)
    monkeypatch.setattr(configs, "PIECE", 4)
    hardest = torch.randint(0, 40, (2, 40), generator=torch.Generator().manual_seed(34))
    hardest[:, 5:36] = torch.where(hardest[:, 5:36] == 3, 4, 3)
    check_normalised(backend, device, hardest)


def test_normalised_rows(backend, device, nan_filled_memory) -> None:
    """With a zero row, a row too short to normalise, and anchors that mined nothing."""
    check_normalised(backend, device, square_state(40)[1])


def check_normalised(backend, device, hardest: Tensor) -> None:
    """Gradients of raw rows: those of the unit rows, less what runs along them, times the scale."""
    batch, width = hardest.shape[1], 19
    generator = torch.Generator().manual_seed(35)
    image, text = torch.randn(2, batch, width, generator=generator) * 3
    image[1], text[2] = 0.0, text[2] * 1e-14
    rows = [image.double(), text.double()]
    scales = [1.0 / x.norm(dim=1).clamp(min=SHORTEST_LENGTH) for x in rows]
    units = [x * s[:, None] for x, s in zip(rows, scales, strict=True)]
    similarity = units[0] @ units[1].T
    anchors = torch.arange(batch)
    values = [similarity[anchors, hardest[0]], similarity[hardest[1], anchors]]
    values = [v.masked_fill(j < 0, -math.inf) for v, j in zip(values, hardest, strict=True)]
    weights = torch.randint(-8, 9, (3, batch), generator=generator) / 4
    vectors = torch.stack([similarity.diagonal(), *values, *weights, *scales]).float()
    found = backward(backend, image.to(device), text.to(device), vectors, hardest, 0.5)
    gradients = gradients_literally(0.5, *units, (*hardest, None), tuple(weights))
    largest = gradients_literally(
        0.5, *(u.abs() for u in units), (*hardest, None), (-weights[0].abs(), *weights[1:].abs())
    )
    for side, scale in enumerate(scales):
        unit = units[side]
        along = (unit * gradients[side]).sum(1)
        truth = scale[:, None] * (gradients[side] - along[:, None] * unit)
        truth[scale >= 1 / SHORTEST_LENGTH] = 0
        # Every similarity and every scale is rounded to float32, and each term is; a list of k
        # terms adds k roundings of a sum that `largest` bounds, once along the row and once across.
        size = largest[side] + unit.abs() * largest[side].sum(1, keepdim=True)
        bound = torch.finfo(torch.float32).eps * (8 + batch / 2) * scale[:, None] * size
        error = (found[side].cpu().double() - truth).abs()
        assert (error <= bound).all(), f"{(error / bound).max():.3g} times the bound"


def test_square_gradients_that_are_not_needed(backend, device) -> None:
    vectors, hardest = square_state(9)
    image, text = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(37)).to(device)
    both = backward(backend, image, text, vectors, hardest)
    for need in ((True, False), (False, True), (False, False)):
        found = backward(backend, image, text, vectors, hardest, need=need)
        for wanted, grad, expected in zip(need, found, both, strict=True):
            assert torch.equal(grad, expected) if wanted else grad is None
