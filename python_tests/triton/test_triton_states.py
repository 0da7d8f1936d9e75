"""The ordered-integer keys of mining states, on values a matrix product seldom yields."""

from __future__ import annotations

import math

import pytest
import torch

triton = pytest.importorskip("triton")
import triton.language as tl  # noqa: E402

from goal_kernels.backends.gpu.kernels.common import decode, encode  # noqa: E402

EMPTY = -(2**31)
SMALLEST = 2.0**-149


@triton.jit
def probe(values, keys, decoded, LENGTH: tl.constexpr):
    """keys = encode(values), decoded = decode(keys); all [LENGTH]."""
    place = tl.arange(0, LENGTH)
    key = encode(tl.load(values + place))
    tl.store(keys + place, key)
    tl.store(decoded + place, decode(key))


@triton.jit
def probe_decode(keys, decoded, LENGTH: tl.constexpr):
    """decoded = decode(keys); both [LENGTH]."""
    place = tl.arange(0, LENGTH)
    tl.store(decoded + place, decode(tl.load(keys + place)))


def test_keys_are_ordered_like_the_values(backend, device) -> None:
    rising = [-math.inf, -3e38, -1.5, -1.0, -SMALLEST, 0.0, SMALLEST, 1.0, 1.5, 3e38, math.inf]
    values = torch.tensor([*rising, -0.0, math.nan, -math.nan, 2.0, -2.0], device=device)
    values[13] = torch.tensor(-1, dtype=torch.int32).view(torch.float32)  # NaN, all bits set
    keys = torch.empty(16, dtype=torch.int32, device=device)
    decoded = torch.empty(16, device=device)
    probe[(1,)](values, keys, decoded, 16)
    found = keys.tolist()
    assert found[:11] == sorted(set(found[:11]))
    assert found[0] > EMPTY
    assert found[11] == found[5], "zeros of both signs are equal"
    assert found[12] == found[13] == 2**31 - 1 > found[10], "every NaN is the largest"
    torch.testing.assert_close(decoded, values, rtol=0, atol=0, equal_nan=True)


def test_an_empty_key_decodes_to_minus_infinity(backend, device) -> None:
    keys = torch.tensor([EMPTY, 0], dtype=torch.int32, device=device)
    decoded = torch.empty(2, device=device)
    probe_decode[(1,)](keys, decoded, 2)
    assert decoded.tolist() == [-math.inf, 0.0]
