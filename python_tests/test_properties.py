"""Properties that hold for every batch, found by hypothesis."""

from __future__ import annotations

import pytest
import torch
from cases import OBJECTIVES, unit_rows, unruly_batch
from hypothesis import given, settings
from hypothesis import strategies as st

import goal_kernels as gk

SETTINGS = settings(max_examples=25, deadline=None, derandomize=True)
BACKENDS = ("reference", "chunked", "cpu")

objectives = st.sampled_from(OBJECTIVES)
seeds = st.integers(0, 2**31 - 1)
batches = st.integers(2, 40)
widths = st.integers(2, 24)
backends = st.sampled_from(BACKENDS)


def run(image, text, objective, backend, scale: float = 1.0, **options):
    image, text = image.clone().requires_grad_(), text.clone().requires_grad_()
    loss = gk.goal_loss(image, text, objective, backend=backend, **options)
    (scale * loss).backward()
    return loss.detach(), image.grad, text.grad


def agree(left, right) -> None:
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@SETTINGS
@given(objectives, batches, widths, seeds, backends)
def test_joint_permutation_of_the_pairs(objective, batch, width, seed, backend) -> None:
    image, text = unruly_batch(batch, width, torch.float64, seed)
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    value, grad_image, grad_text = run(image, text, objective, backend)
    permuted = run(image[order], text[order], objective, backend)
    agree(permuted, (value, grad_image[order], grad_text[order]))


@SETTINGS
@given(objectives, batches, widths, seeds, backends)
def test_swapping_the_modalities_swaps_the_result(objective, batch, width, seed, backend) -> None:
    image, text = unruly_batch(batch, width, torch.float64, seed)
    value, grad_image, grad_text = run(image, text, objective, backend)
    agree(run(text, image, objective, backend), (value, grad_text, grad_image))


@SETTINGS
@given(objectives, batches, widths, seeds, backends)
def test_rotating_the_space_rotates_the_gradient(objective, batch, width, seed, backend) -> None:
    image, text = unruly_batch(batch, width, torch.float64, seed)
    generator = torch.Generator().manual_seed(seed)
    square = torch.randn(width, width, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(square).Q
    value, grad_image, grad_text = run(image, text, objective, backend)
    rotated = run(image @ rotation, text @ rotation, objective, backend)
    agree(rotated, (value, grad_image @ rotation, grad_text @ rotation))


@SETTINGS
@given(objectives, batches, seeds, backends, st.floats(-1e3, 1e3))
def test_gradient_is_linear_in_the_incoming_one(objective, batch, seed, backend, scale) -> None:
    image, text = unruly_batch(batch, 5, torch.float64, seed)
    _, grad_image, grad_text = run(image, text, objective, backend)
    _, scaled_image, scaled_text = run(image, text, objective, backend, scale)
    agree((scaled_image, scaled_text), (scale * grad_image, scale * grad_text))


@SETTINGS
@given(batches, widths, seeds, backends)
def test_a_far_away_pair_changes_no_hardest_index(batch, width, seed, backend) -> None:
    """The new pair points away from everything: no anchor prefers it to what it had."""
    generator = torch.Generator().manual_seed(seed)
    image, text = unit_rows(batch, width, generator).abs(), unit_rows(batch, width, generator).abs()
    before = gk.mine(image, text, backend=backend)
    far = -torch.ones(1, width, dtype=torch.float64)
    after = gk.mine(torch.cat([image, far]), torch.cat([text, far]), backend=backend)
    assert torch.equal(after.hardest_text[:-1], before.hardest_text)
    assert torch.equal(after.hardest_image[:-1], before.hardest_image)


@SETTINGS
@given(objectives, batches, widths, seeds)
def test_native_float64_equals_the_reference(objective, batch, width, seed) -> None:
    image, text = unruly_batch(batch, width, torch.float64, seed)
    ids = torch.randint(0, batch, (batch,), generator=torch.Generator().manual_seed(seed))
    for options in ({}, {"image_ids": ids}):
        left = run(image, text, objective, "cpu", **options)
        right = run(image, text, objective, "reference", **options)
        for a, b in zip(left, right, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@SETTINGS
@given(objectives, batches, seeds)
def test_directions_add_up(objective, batch, seed) -> None:
    image, text = unruly_batch(batch, 4, torch.float64, seed)
    both = run(image, text, objective, "reference")
    i2t = run(image, text, objective, "reference", direction="i2t")
    t2i = run(image, text, objective, "reference", direction="t2i")
    agree(both, tuple(a + b for a, b in zip(i2t, t2i, strict=True)))


@SETTINGS
@given(objectives, batches, seeds)
def test_ids_that_are_all_different_change_nothing(objective, batch, seed) -> None:
    image, text = unruly_batch(batch, 4, torch.float64, seed)
    ids = torch.arange(batch) * 7 - 3
    left = run(image, text, objective, "reference", image_ids=ids)
    agree(left, run(image, text, objective, "reference"))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_bits_do_not_depend_on_the_thread_count(threads) -> None:
    image, text = unruly_batch(300, 40, torch.float32, 1)
    expected = run(image, text, gk.Objective("nca", "sigmoid_ms"), "cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = run(image, text, gk.Objective("nca", "sigmoid_ms"), "cpu")
    finally:
        torch.set_num_threads(before)
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a, b)
