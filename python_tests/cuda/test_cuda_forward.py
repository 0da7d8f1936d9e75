"""Forward and backward of the CUDA backend against float64, emulated and on a GPU."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from cases import caption_ids, paired_batch, unruly_batch
from comparators import accumulate_epsilon, check_indices, check_values, similarity_bound
from comparators import weight_slope as slope_of
from cuda_truth import DTYPES, ENGINES, NO_IDS, engine, exact_rows, forward_on, truth, unit_rows

from goal_kernels import Objective
from goal_kernels.backends.answers import Forward
from goal_kernels.backends.base import Pairing
from goal_kernels.backends.reference import ReferenceBackend
from goal_kernels.reference import negative_mask

MINED = tuple(Objective.parse(x) for x in ("hinge/constant", "circle/linear_ms", "nca/sigmoid_ms"))
"""One objective of each relative kind."""


def check_forward(device, image, text, objective, ids=NO_IDS, direction="both", **how) -> Forward:
    """Indices, similarities, weights and value, given the indices that were mined."""
    found = forward_on(device, image, text, objective, ids, direction, **how)
    given = (found.hardest[0], found.hardest[1])
    expected = truth(image, text, objective, given, ids, direction, **how)
    rows = [unit_rows(x) if how.get("normalize") else x for x in (image, text)]
    bound = similarity_bound(*rows, torch.float32)
    allowed = negative_mask(len(image), len(text), Pairing(None, *ids), torch.device("cpu"))
    check_indices(expected.mined_from, allowed, given[0], bound, "hardest_text")
    check_indices(expected.mined_from.T, allowed.T, given[1], bound, "hardest_image")
    similarities = (expected.positive, expected.mined.row_value, expected.mined.column_value)
    for row, value in enumerate(similarities):
        check_values(found.vectors[row], value, bound, f"similarities {row}")
    slack = 4 * bound * slope_of(objective, expected.exact)
    for row, weight in enumerate(expected.weighted[1:], start=3):
        check_values(found.vectors[row], weight, slack * (1 + weight.abs().max()), f"weights {row}")
    value = expected.weighted.value
    magnitude = expected.exact.abs().max() * len(image) * accumulate_epsilon(torch.float32)
    check_values(found.value, value, 4 * len(image) * bound + magnitude.item(), "value")
    return found


def check_backward(device, image, text, found) -> None:
    """Both gradients given everything that the forward left."""
    grad_loss = torch.tensor(0.75)
    moved = [x.to(device) for x in (grad_loss, image, text, *found[1:])]
    grads = engine(device).backward(*moved, (True, True))
    wide = (grad_loss.double(), image.double(), text.double(), found.vectors.double())
    expected = ReferenceBackend().backward(*wide, found.hardest, (True, True))
    terms = found.vectors.double()
    terms[3] = -terms[3]  # magnitudes of all terms add up
    spread = ReferenceBackend().backward(
        wide[0], wide[1].abs(), wide[2].abs(), terms.abs() * torch.sign(terms), found.hardest,
        (True, True),
    )  # fmt: skip
    for grad, right, size in zip(grads, expected, spread, strict=True):
        assert grad.dtype == image.dtype
        rounding = torch.finfo(image.dtype).eps * right.abs() + torch.finfo(image.dtype).tiny
        # Projections of normalised rows are made of rounded scalars, not of the rounded rows.
        bound = rounding + 64 * accumulate_epsilon(torch.float32) * (size.abs().max() + 1)
        excess = ((grad.cpu().double() - right).abs() / bound).max().item()
        assert excess <= 1, f"{excess} times the bound"


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("device", ENGINES)
def test_every_kind_of_sums(device, dtype) -> None:
    """Normalised or not, from a batch that ends within a tile, with and without ids."""
    image, text = unruly_batch(37, 20, dtype)
    ids = (caption_ids(37), caption_ids(37))
    # Any two of dtype, objective, normalize and ids meet: in three dtypes, or in one and the next.
    place = DTYPES.index(dtype)
    for number, objective in enumerate(MINED):
        pairing = ids if (number - place) % 3 == 1 else NO_IDS
        normalize = (number + place) % 2 == 1
        found = check_forward(device, image, text, objective, pairing, normalize=normalize)
        check_backward(device, image, text, found)


@pytest.mark.parametrize(
    ("shape", "dtype", "objective"),
    [
        ((2, 1), torch.float32, 2),
        ((3, 7), torch.bfloat16, 1),
        ((128, 8), torch.float32, 1),
        ((129, 65), torch.float16, 2),
        ((260, 136), torch.bfloat16, 0),
    ],
    ids=str,
)
@pytest.mark.parametrize("device", ENGINES)
def test_ragged_shapes_and_ids(device, shape, dtype, objective) -> None:
    """Sizes around the blocks of 128, widths that are padded, rows of any length."""
    image, text = unruly_batch(*shape, dtype)
    ids = (caption_ids(shape[0]), caption_ids(shape[0]))
    found = check_forward(device, image, text, MINED[objective], ids)
    check_backward(device, image, text, found)


@pytest.mark.parametrize("direction", ["i2t", "t2i"])
@pytest.mark.parametrize("device", ENGINES)
def test_one_direction(device, direction) -> None:
    image, text = paired_batch(20, 24, torch.bfloat16)
    for objective in MINED:
        check_forward(device, image, text, objective, direction=direction)


@pytest.mark.parametrize("device", ENGINES)
def test_medium_rounds_what_is_mined_and_not_what_is_found(device) -> None:
    image, text = paired_batch(30, 32, torch.float32)
    for objective in MINED:
        check_forward(device, image, text, objective, precision="medium")


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("device", ENGINES)
def test_literal_loops_on_exact_data(device, dtype) -> None:
    """Ties everywhere: indices equal, lowest first; values and gradients to rounding."""
    image, text = exact_rows(14, 3, dtype, 1), exact_rows(14, 3, dtype, 2)
    ids = torch.randint(0, 9, (14,), generator=torch.Generator().manual_seed(3))
    for objective in MINED:
        expected = oracle.run(
            np.asarray(image.double()),
            np.asarray(text.double()),
            objective.triplet_element.name,
            objective.pair_element.name,
            image_ids=ids.tolist(),
            text_ids=ids.tolist(),
        )
        found = forward_on(device, image, text, objective, (ids, ids))
        assert found.hardest.tolist() == [expected.hardest_text, expected.hardest_image]
        assert found.value.item() == pytest.approx(expected.value, rel=1e-5, abs=1e-5)
        moved = [x.to(device) for x in (torch.ones(()), image, text, *found[1:])]
        grads = engine(device).backward(*moved, (True, True))
        for grad, right in zip(grads, (expected.grad_image, expected.grad_text), strict=True):
            right = torch.from_numpy(right)
            bound = torch.finfo(dtype).eps * right.abs() + 2e-4 * (1 + right.abs().max())
            assert ((grad.cpu().double() - right).abs() <= bound).all()


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("device", ENGINES)
def test_values_that_are_not_finite_reach_the_loss(device, broken) -> None:
    image, text = exact_rows(40, 8, torch.bfloat16, 1), exact_rows(40, 8, torch.bfloat16, 2)
    image[5, 2] = broken
    for objective in MINED:
        for normalize in (False, True):
            found = forward_on(device, image, text, objective, normalize=normalize)
            assert not found.value.isfinite()
            assert ((found.hardest >= 0) & (found.hardest < 40)).all()


@pytest.mark.parametrize("device", ENGINES)
def test_nothing_is_left_unwritten_and_nothing_depends_on_the_grid(
    device, nan_filled_memory
) -> None:
    """Several blocks of rows and columns; memory starts as NaN or the largest integer."""
    image, text = paired_batch(150, 24, torch.float16)
    for objective, normalize in zip(MINED[1:], (False, True), strict=True):
        found = forward_on(device, image, text, objective, normalize=normalize)
        assert found.vectors.isfinite().all()
        assert ((found.hardest >= 0) & (found.hardest < 150)).all()
        again = forward_on(device, image, text, objective, normalize=normalize)
        for left, right in zip(found, again, strict=True):
            assert torch.equal(left, right)


@pytest.mark.parametrize("device", ENGINES)
def test_no_negative_at_all(device) -> None:
    image, text = paired_batch(9, 8, torch.float16)
    ids = torch.full((9,), 4)
    for objective in MINED:
        found = forward_on(device, image, text, objective, (ids, ids))
        assert (found.hardest == -1).all()
        assert (found.vectors[1:3] == -float("inf")).all()
        assert (found.vectors[3:] == 0).all()
        assert found.value == 0
