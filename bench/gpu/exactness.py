"""Integers, whose similarities are exact: what is mined must be equal, ties included."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

from torch import Tensor

from bench.gpu.inputs import busy_pairing, whole_numbers
from bench.gpu.kinds import Kind
from bench.gpu.variants import Variant
from bench.gpu.verdicts import check_variants
from goal_kernels import ops
from goal_kernels.backends.answers import Found, Mined
from goal_kernels.backends.base import RELATIVE_KINDS, Pairing, SearchQuery
from goal_kernels.pairs import pair_similarity, relative_query
from goal_kernels.reference import mine_similarity

EPSILON = 0.5
"""Between two integers, so that no similarity lies at the threshold."""

BETA = 0.05
"""Keeps terms of the exponential sums apart over the whole range of the integers."""


def truth(image: Tensor, text: Tensor, pairing: Pairing, relative: str) -> tuple[Tensor, Mined]:
    """Positives and mined quantities in float64 on the device."""
    x, y = image.double(), text.double()
    positive = pair_similarity(x, y, pairing.target)
    query = relative_query(relative, positive, EPSILON, BETA)
    return positive, mine_similarity(x @ y.T, pairing, query)


def exponential_bound(expected: Tensor, image: Tensor, text: Tensor) -> Tensor:
    """Rounding of a sum of exponentials of similarities that are exact themselves.

    The exponent is at most slope * (max S - min S), rounded in float32 and evaluated to a few units
    in the last place; the hardest one, a term of 1, may have been added and subtracted again.
    """
    longest = image.double().norm(dim=1).max() * text.double().norm(dim=1).max()
    exponent = 2 * BETA * longest.item() / math.log(2.0)
    return (exponent + 16) * 2.0**-22 * (expected + 1)


def compare(found: Found, expected: tuple[Tensor, Mined], relative: str) -> None:
    """Raise AssertionError for the first part that has to be equal and is not."""
    positive, mined = expected
    parts = {"positive": (found.positive, positive)}
    exact = ["index", "value", *(["count"] * (relative != "none"))]
    exact += ["sum"] * (relative == "linear")
    for side in ("row", "column"):
        for part in exact:
            name = f"{side}_{part}"
            parts[name] = (getattr(found.mined, name), getattr(mined, name))
    for name, (got, wanted) in parts.items():
        wrong = (got.double() != wanted.double()).nonzero()[:, 0].tolist()
        where = [(k, got[k].item(), wanted[k].item()) for k in wrong[:3]]
        assert not wrong, f"{len(wrong)} of {name} differ, (at, got, exact): {where}"


def compare_exponential(found: Found, mined: Mined, image: Tensor, text: Tensor) -> None:
    """Raise AssertionError when a sum is further off than rounding explains."""
    for name in ("row_sum", "column_sum"):
        got, wanted = getattr(found.mined, name).double(), getattr(mined, name)
        excess = ((got - wanted).abs() / exponential_bound(wanted, image, text)).max().item()
        assert excess <= 1, f"{name}: {excess:.3g} times the bound"


def check_batch(
    variant: Variant, kind: Kind, batch: tuple[Tensor, Tensor, Pairing], relative: str
) -> None:
    """One call, everything it answers."""
    image, text, pairing = batch
    query = SearchQuery(relative, EPSILON, BETA, False, kind.precision)
    found = ops.search(variant.backend, image, text, pairing, query)
    expected = truth(image, text, pairing, relative)
    try:
        compare(found, expected, relative)
        if relative == "exponential":
            compare_exponential(found, expected[1], image, text)
    except AssertionError as error:
        size = f"{image.shape[0]} x {text.shape[0]} x {image.shape[1]}"
        paired = "default pairing" if pairing.target is None else "targets and ids"
        raise AssertionError(f"{size}, {paired}, {relative}: {error}") from None


def check_exact(
    tell: Callable[[str], None],
    names: list[str],
    kind: list[str],
    shapes: list[list[int]],
    device: str,
) -> dict[str, Any]:
    """Every variant on shapes [N, M, D], with and without a pairing, at every relative kind."""
    how = Kind(*kind)

    def check(variant: Variant) -> None:
        for rows, columns, width in shapes:
            image = whole_numbers(rows, width, seed=rows).to(device, how.torch_dtype)
            text = whole_numbers(columns, width, seed=columns + 1).to(device, how.torch_dtype)
            pairings = (Pairing(), busy_pairing(rows, columns, device))
            for pairing, relative in product(pairings, RELATIVE_KINDS):
                tell(str(variant))
                check_batch(variant, how, (image, text, pairing), relative)

    return check_variants(names, tell, check)
