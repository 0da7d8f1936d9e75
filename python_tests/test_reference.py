"""The dense reference against the literal loop oracle, in float64."""

from __future__ import annotations

from functools import partial

import numpy as np
import oracle
import pytest
import torch
from cases import OBJECTIVES, caption_ids, paired_batch, unruly_batch
from comparators import float64_truth

import goal_kernels as gk
from goal_kernels.backends.base import Pairing
from goal_kernels.reference import dense_objective
from goal_kernels.weights import weigh

BATCHES = ((2, 1), (3, 2), (7, 5), (33, 16))


def check_oracle(image, text, objective, ids=None, direction="both", backend="reference") -> None:
    x, y = image.clone().requires_grad_(), text.clone().requires_grad_()
    loss, stats = gk.goal_loss(
        x,
        y,
        objective,
        image_ids=ids,
        direction=direction,
        backend=backend,
        return_stats=True,
    )
    loss.backward()
    listed = None if ids is None else ids.tolist()
    expected = oracle.run(
        image.numpy(),
        text.numpy(),
        *objective.name.split("/"),
        image_ids=listed,
        text_ids=listed,
        direction=direction,
    )
    assert stats.hardest_text.tolist() == expected.hardest_text
    assert stats.hardest_image.tolist() == expected.hardest_image
    scale = max(1.0, np.abs(expected.grad_image).max())
    assert loss.item() == pytest.approx(expected.value, abs=1e-11)
    np.testing.assert_allclose(x.grad.numpy(), expected.grad_image, rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(y.grad.numpy(), expected.grad_text, rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
@pytest.mark.parametrize("shape", BATCHES, ids=str)
def test_against_the_loop(shape, objective) -> None:
    check_oracle(*paired_batch(*shape), objective)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
def test_unnormalised_embeddings(objective) -> None:
    check_oracle(*unruly_batch(17, 9, torch.float64), objective)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
@pytest.mark.parametrize("direction", ["both", "i2t", "t2i"])
def test_ids_and_direction(objective, direction) -> None:
    check_oracle(*paired_batch(19, 6), objective, caption_ids(19), direction)


@pytest.mark.parametrize("pair", ["linear_ms", "sigmoid_ms"])
def test_exact_ties(pair) -> None:
    """Repeated rows of quarters, exact in any order: ties of positives, negatives, and both."""
    generator = torch.Generator().manual_seed(4)
    image, text = torch.randint(-2, 3, (2, 6, 4), generator=generator).double() / 4
    check_oracle(image.repeat(3, 1), text.repeat(3, 1), gk.Objective("nca", pair))


@pytest.mark.parametrize("backend", ["cpu", "chunked", "reference"])
def test_relative_positives_far_above_the_own_one(backend) -> None:
    """All exponentials of an anchor are small beside that of its own term, which is left out."""
    image = torch.diag(torch.tensor([-15.0, 0.5, 2.0, 1.5, 1.0], dtype=torch.float64))
    text = torch.eye(5, dtype=torch.float64)
    text[1:, 0] = 2.5 / image[0, 0]  # similarity 2.5 to image 0: all positives count for it
    check_oracle(image, text, gk.Objective("constant", "sigmoid_ms"), backend=backend)


def test_a_row_without_negatives_contributes_nothing() -> None:
    image, text = paired_batch(5, 4)
    ids = torch.tensor([7, 7, 7, 7, 7])
    for objective in OBJECTIVES:
        check_oracle(image, text, objective, ids)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
def test_the_algorithm_on_one_page(objective) -> None:
    image, text = unruly_batch(23, 7, torch.float64)
    ids = caption_ids(23)
    relative = objective.pair_element.relative, objective.epsilon, objective.beta
    found = dense_objective(
        image, text, Pairing(None, ids, ids), relative, partial(weigh, objective)
    )
    names = objective.name.split("/")
    listed = ids.tolist()
    expected = oracle.run(image.numpy(), text.numpy(), *names, oracle.Hyper(), listed, listed)
    assert found[0].item() == pytest.approx(expected.value, abs=1e-11)
    for grad, truth in zip(found[1:], expected[1:3], strict=True):
        np.testing.assert_allclose(grad.numpy(), truth, rtol=1e-11, atol=1e-11)


def test_given_indices_replace_mining() -> None:
    image, text = paired_batch(6, 4)
    given = (torch.tensor([1, 2, 3, 4, 5, 0]), torch.tensor([5, 4, 3, 2, 1, 0]))
    truth = float64_truth(image, text, gk.Objective("nca", "linear"), given=given)
    expected = (image @ text.T)[torch.arange(6), given[0]]
    torch.testing.assert_close(truth.mined.row_value, expected, rtol=0, atol=0)
    assert torch.equal(truth.mined.column_index, given[1])
