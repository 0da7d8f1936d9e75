"""The stored results of the authors' implementation and of VSE-infinity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import goal_kernels as gk
from goal_kernels import sum_of_hinges_loss

GOLDEN = np.load(Path(__file__).parent / "golden" / "goal_golden.npz")
BATCHES = ("b8d6", "b33d16", "b64d32")
TRIPLETS = ("con", "nca", "cir")
PAIRS = ("con", "lin", "lin_ms", "sig", "sig_ms")
FLOAT64_BACKENDS = ("reference", "chunked", "cpu")
TOLERANCE = 1e-12


def embeddings(batch: str) -> tuple[torch.Tensor, torch.Tensor]:
    image, text = (torch.tensor(GOLDEN[f"{batch}/{side}"]) for side in ("image", "text"))
    return image.requires_grad_(), text.requires_grad_()


def check(loss: torch.Tensor, image: torch.Tensor, text: torch.Tensor, prefix: str) -> None:
    loss.backward()
    assert loss.item() == pytest.approx(float(GOLDEN[f"{prefix}/value"]), abs=TOLERANCE, rel=1e-12)
    for side, tensor in (("image", image), ("text", text)):
        expected = GOLDEN[f"{prefix}/grad_{side}"]
        np.testing.assert_allclose(tensor.grad.numpy(), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("backend", FLOAT64_BACKENDS)
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("triplet", TRIPLETS)
@pytest.mark.parametrize("batch", BATCHES)
def test_published_combination(batch: str, triplet: str, pair: str, backend: str) -> None:
    image, text = embeddings(batch)
    loss = gk.goal_loss(image, text, gk.Objective(triplet, pair), backend=backend)
    check(loss, image, text, f"{batch}/{triplet}/{pair}")


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("batch", BATCHES)
def test_published_combination_from_similarity(batch: str, pair: str) -> None:
    image, text = embeddings(batch)
    loss = gk.goal_loss_from_similarity(image @ text.T, gk.Objective("nca", pair))
    check(loss, image, text, f"{batch}/nca/{pair}")


@pytest.mark.parametrize("backend", FLOAT64_BACKENDS)
@pytest.mark.parametrize("batch", BATCHES)
def test_mined_quantities(batch: str, backend: str) -> None:
    mined = gk.mine(*embeddings(batch), backend=backend)
    for name in ("hardest_text", "hardest_image"):
        np.testing.assert_array_equal(getattr(mined, name).numpy(), GOLDEN[f"{batch}/{name}"])
    for name in ("positive", "negative_text", "negative_image"):
        expected = GOLDEN[f"{batch}/{name}"]
        np.testing.assert_allclose(getattr(mined, name).numpy(), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("backend", FLOAT64_BACKENDS)
@pytest.mark.parametrize("batch", BATCHES)
def test_vse_infinity_max_violation(batch: str, backend: str) -> None:
    image, text = embeddings(batch)
    loss = gk.goal_loss(image, text, "hinge/constant", backend=backend)
    check(loss, image, text, f"{batch}/vse_infty/max_violation")


@pytest.mark.parametrize("batch", BATCHES)
def test_vse_infinity_sum_of_hinges(batch: str) -> None:
    image, text = embeddings(batch)
    loss = sum_of_hinges_loss(image, text, margin=0.2)
    check(loss, image, text, f"{batch}/vse_infty/sum_of_hinges")
