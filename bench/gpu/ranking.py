"""Ranks on a GPU: those of the reference, and how long they take beside the product."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from rank_cases import Inputs, same_numbers_elsewhere
from torch import Tensor

import goal_kernels as gk
from bench.contestants import GEMM
from bench.gpu.inputs import whole_numbers
from bench.gpu.rounds import Lane, make_clock, take_rounds
from bench.gpu.verdicts import check_each
from bench.rank_inputs import TEXTS_PER_IMAGE, RankCase, make_rank_inputs
from goal_kernels.backends import find_backend, resolve
from goal_kernels.backends.base import Call

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def _checked(images: int, width: int, dtype: torch.dtype) -> Iterator[tuple[str, Inputs]]:
    """What ranks are checked on, with a name."""
    texts = TEXTS_PER_IMAGE * images
    owner = torch.arange(texts) // TEXTS_PER_IMAGE
    image, text = (whole_numbers(n, width, seed=n).to(dtype) for n in (images, texts))
    yield "exact integers with ties", (image, text, owner)
    image, text, owner = make_rank_inputs(RankCase(images, width))
    yield "a half-trained model", (image.to(dtype), text.to(dtype), owner)
    # As far from float64 as a tensor core may get: everything is added, nothing cancels.
    yield "one sum in many orders", same_numbers_elsewhere(dtype)


def check_ranks(
    tell: Callable[[str], None], names: list[str], images: int, width: int, device: str
) -> dict[str, Any]:
    """Counts of every backend that ranks: those of the reference."""
    cases = []
    for dtype in DTYPES:
        for what, inputs in _checked(images, width, dtype):
            moved = tuple(x.to(device) for x in inputs)
            expected = gk.retrieval_ranks(*moved, backend="reference")
            cases.append((f"{what}, {dtype}", moved, expected))

    def check(name: str) -> None:
        for what, inputs, expected in cases:
            found = gk.retrieval_ranks(*inputs, backend=name)
            for side in ("i2t", "t2i"):
                got, wanted = getattr(found, side), getattr(expected, side)
                wrong = int((got != wanted).sum())
                assert not wrong, f"{wrong} of {len(wanted)} ranks {side} differ: {what}"

    return check_each(names, tell, check)


def time_ranks(
    tell: Callable[[str], None],
    names: list[str],
    images: int,
    width: int,
    dtype: str,
    device: str,
    seconds: float,
) -> dict[str, Any]:
    """Backends whose counts are right, beside the product alone.

    Returns: as `check_each` (passed: those that were timed), lanes ({name: figures and TFLOP/s of
    the product}) and window.
    """
    image, text, owner = make_rank_inputs(RankCase(images, width))
    kind = getattr(torch, dtype)
    inputs = image.to(device, kind), text.to(device, kind), owner.to(device)
    expected = find_backend("reference").rank(*inputs)
    lanes = {GEMM: Lane([partial(_product, *inputs[:2])])}
    lanes[GEMM].copies[0]()

    def prepare(name: str) -> None:
        rank = find_backend(resolve(name, Call(device, kind, width, "high"))).rank
        for field, got, wanted in zip(expected._fields, rank(*inputs), expected, strict=True):
            assert field == "positive" or torch.equal(got, wanted), f"{field} differ"
        lanes[name] = Lane([partial(rank, *inputs)])

    found = check_each(names, tell, prepare)
    start = time.monotonic()
    take_rounds(lanes, make_clock(device), seconds, tell)
    figures = {name: lane.figures() for name, lane in lanes.items()}
    for each in figures.values():
        each["tflops"] = 2 * images * len(text) * width / each["p50"] / 1e9
    return {**found, "lanes": figures, "window": [start, time.monotonic()]}


def _product(image: Tensor, text: Tensor) -> object:
    return image @ text.T
