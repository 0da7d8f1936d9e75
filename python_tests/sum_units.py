"""Relative sums as mining kernels of the GPU leave them, in plain Python: whole numbers of units.

`kernels/fixed_sums.py` says what they mean; no code is shared with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

DIGITS, SHARED = 24, 19
FIELDS = {"linear": 1, "exponential": 6}


def linear_scale(bound: float, threshold: float) -> float:
    """Units in 1 of a linear sum."""
    most, least = torch.tensor(bound), torch.tensor(threshold)
    reach = (most - least).clamp(min=0.0) + most / 16
    return 2.0 ** (31 - math.frexp(max(reach.item(), 2.0**-94))[1])


def to_fields(totals: Iterable[float], kind: str, scale: float) -> list[int]:
    """Fields of the sum of float32 totals."""
    fields = [0] * FIELDS[kind]
    for total in totals:
        if kind == "linear":
            fields[0] += int(total * scale)
        elif total > 0:
            mantissa, exponent = math.frexp(total)
            field, shift = divmod(exponent, SHARED)
            fields[field] += int(mantissa * 2**DIGITS) << shift
    return fields


def from_fields(fields: Iterable[int], kind: str, scale: float) -> float:
    """The sum that fields stand for."""
    fields = list(fields)
    if kind == "linear":
        return fields[0] / scale
    return math.fsum(math.ldexp(f, SHARED * k - DIGITS) for k, f in enumerate(fields))


def as_final(sums: Tensor) -> Tensor:
    """float32 [length] of int64 [fields, length] where sums are final."""
    return sums[0].int().view(torch.float32)


def final(sums: Tensor, kind: str) -> Tensor:
    """Inverse of `as_final`; what is in the other fields does not matter."""
    fields = sums.new_full((FIELDS[kind], len(sums)), 7, dtype=torch.int64)
    fields[0] = sums.view(torch.int32)
    return fields
