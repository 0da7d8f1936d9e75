"""The whole native forward against its plain composition: weights, edge cases, normalised rows."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from cases import DTYPES, OBJECTIVES, caption_ids, paired_batch, unruly_batch
from comparators import check_indices, check_values, similarity_bound
from torch import Tensor

from goal_kernels import Objective, native
from goal_kernels.backends.answers import Forward
from goal_kernels.backends.base import Pairing, SearchQuery, WeightStage, accumulate_dtype
from goal_kernels.backends.cpu import CpuBackend
from goal_kernels.weights import DIRECTIONS, weigh

NAN, INF = float("nan"), float("inf")
EDGE_CASES = ("ties", "nan", "infinity", "no_negative", "two", "collapsed")


def forward(
    backend: CpuBackend,
    image: Tensor,
    text: Tensor,
    objective: Objective,
    ids: Tensor | None = None,
    direction: str = "both",
    normalize: bool = False,
) -> Forward:
    query = SearchQuery(
        objective.pair_element.relative, objective.epsilon, objective.beta, normalize, "highest"
    )
    stage = WeightStage(
        str(objective.triplet), str(objective.pair), objective.scalars, direction, no_torch
    )
    return backend.forward(image, text, Pairing(None, ids, ids), query, stage)


def no_torch(*arguments: object) -> None:
    raise AssertionError("the weights were to be computed natively")


def composed(
    backend: CpuBackend,
    image: Tensor,
    text: Tensor,
    objective: Objective,
    ids: Tensor | None = None,
    direction: str = "both",
    normalize: bool = False,
) -> Forward:
    """Native mining, then the weights in torch."""
    query = SearchQuery(
        objective.pair_element.relative, objective.epsilon, objective.beta, normalize, "highest"
    )
    found = backend.search(image, text, Pairing(None, ids, ids), query)
    return Forward.pack(found, weigh(objective, found.positive, found.mined, direction))


def check(found: Forward, expected: Forward, dtype: torch.dtype) -> None:
    """Mined values bit for bit, weights to a few ulp, the value to the rounding of its sum."""
    eps = torch.finfo(accumulate_dtype(dtype)).eps
    assert torch.equal(found.hardest, expected.hardest)
    torch.testing.assert_close(
        found.vectors[:3], expected.vectors[:3], rtol=0, atol=0, equal_nan=True
    )
    # exp(z) turns an ulp of z into |z| ulp; |z| is below 32 for the similarities of these cases.
    torch.testing.assert_close(
        found.vectors[3:], expected.vectors[3:], rtol=64 * eps, atol=8 * eps, equal_nan=True
    )
    size = expected.vectors[:3].nan_to_num(0, 0, 0).abs().sum().item() + len(found.hardest[0])
    torch.testing.assert_close(
        found.value, expected.value, rtol=0, atol=8 * eps * size, equal_nan=True
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
def test_weights_of_every_objective(fastest, objective, dtype) -> None:
    for batch, make in ((40, paired_batch), (1100, unruly_batch)):
        image, text = make(batch, 16, dtype)
        for ids in (None, caption_ids(batch)):
            check(
                forward(fastest, image, text, objective, ids),
                composed(fastest, image, text, objective, ids),
                dtype,
            )


def edge_case(name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
    """Image, text, ids."""
    if name == "two":
        return *paired_batch(2, 1, dtype), None
    image, text = paired_batch(24, 3, dtype)
    ids = None
    if name == "ties":
        image, text = image.double().sign().to(dtype), text.double().sign().to(dtype)
    elif name == "nan":
        # With ids some anchors do not meet the NaN, and it is only in their pool of positives.
        image[5] = NAN
        ids = torch.arange(24) // 2
        ids[:8] = ids[5]
    elif name == "infinity":
        image[3], text[7] = INF, -INF
    elif name == "no_negative":
        ids = torch.zeros(24, dtype=torch.int64)
        ids[20:] = torch.arange(4)
    elif name == "collapsed":
        image[:], text[:] = image[0].clone(), image[0].clone()
    return image, text, ids


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", EDGE_CASES)
def test_edge_cases(fastest, case, dtype, direction) -> None:
    image, text, ids = edge_case(case, dtype)
    for objective in OBJECTIVES:
        check(
            forward(fastest, image, text, objective, ids, direction),
            composed(fastest, image, text, objective, ids, direction),
            dtype,
        )


def test_everyone_excluded(fastest) -> None:
    image, text = paired_batch(5, 4, torch.float32)
    found = forward(fastest, image, text, Objective("nca", "sigmoid_ms"), torch.zeros(5).long())
    assert found.value == 0
    assert (found.hardest == -1).all()
    assert torch.equal(found.vectors[3:], torch.zeros(3, 5))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("pair", ["constant", "linear_ms", "sigmoid_ms"])
def test_normalised_rows_are_mined_through_scales(backend, pair, dtype) -> None:
    """Against mining of float64 unit rows; no unit rows exist in the kernels."""
    image, text = unruly_batch(50, 33, dtype)
    objective = Objective("circle", pair)
    found = forward(backend, image, text, objective, normalize=True)
    check(found, composed(backend, image, text, objective, normalize=True), dtype)
    unit = [torch.nn.functional.normalize(x.double(), dim=1) for x in (image, text)]
    similarity, allowed = unit[0] @ unit[1].T, ~torch.eye(50, dtype=torch.bool)
    bound = similarity_bound(*unit, dtype)
    # Products of 16-bit rows, where there are such, round the unit rows to 16 bits.
    rounded = 2 * torch.finfo(dtype).eps if dtype.itemsize == 2 else 0.0
    hardest_text, hardest_image = found.hardest
    check_indices(similarity, allowed, hardest_text, bound + rounded, "hardest_text")
    check_indices(similarity.T, allowed, hardest_image, bound + rounded, "hardest_image")
    each = torch.arange(50)
    check_values(found.vectors[0], similarity.diagonal(), bound, "positive")
    check_values(found.vectors[1], similarity[each, hardest_text], bound, "negative_text")
    check_values(found.vectors[2], similarity[hardest_image, each], bound, "negative_image")


def test_bit_equal_for_any_thread_count(backend, set_threads) -> None:
    """From 2048 anchors on the weights are computed by several threads as well."""
    image, text = unruly_batch(2100, 5, torch.float32)
    objective = Objective("nca", "sigmoid_ms")
    set_threads(1)
    serial = forward(backend, image, text, objective, normalize=True)
    for threads in (2, 3):
        set_threads(threads)
        again = forward(backend, image, text, objective, normalize=True)
        assert all(map(torch.equal, serial, again))


def test_every_built_in_element_has_a_native_twin() -> None:
    assert all(native.weighs(str(o.triplet), str(o.pair)) for o in OBJECTIVES)


def test_an_element_without_a_twin_is_weighed_in_torch(fastest) -> None:
    image, text = paired_batch(12, 5, torch.float32)
    objective = Objective("nca", "sigmoid_ms")
    expected = forward(fastest, image, text, objective, normalize=True)
    query = SearchQuery("exponential", objective.epsilon, objective.beta, True, "highest")
    stage = WeightStage(
        "new", "newer", objective.scalars, "both", partial(weigh, objective, direction="both")
    )
    check(fastest.forward(image, text, Pairing(), query, stage), expected, torch.float32)


def test_an_unknown_direction_is_refused(fastest) -> None:
    image, text = paired_batch(4, 4, torch.float32)
    with pytest.raises(ValueError, match="direction: expected both, i2t or t2i, got up"):
        forward(fastest, image, text, Objective("nca", "linear"), direction="up")


def test_unequal_sides_are_refused(fastest) -> None:
    image, text = paired_batch(4, 4, torch.float32)
    with pytest.raises(ValueError, match="text: expected 4 rows as images, got 3"):
        forward(fastest, image, text[:3], Objective("nca", "linear"))
