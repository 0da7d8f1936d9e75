"""The denominator of every claim: the product of the embeddings by the vendor library, alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from bench.cases import Case, Inputs
from bench.contest import float32_precision
from bench.costs import product_flops
from bench.gpu.inputs import RANDOM, inputs_for, rotating_copies
from bench.gpu.kinds import BFLOAT16, Kind
from bench.gpu.rounds import Lane, make_clock, take_rounds


def _plain(inputs: Inputs) -> object:
    return inputs.image @ inputs.text.T


def _into(product: torch.Tensor, inputs: Inputs) -> object:
    return torch.mm(inputs.image, inputs.text.T, out=product)


def _wide(inputs: Inputs) -> object:
    return torch.mm(inputs.image, inputs.text.T, out_dtype=torch.float32)


def _ways(kind: Kind, case: Case) -> dict[str, Callable[[Inputs], object]]:
    """Ways to the product of this kind; `wide` leaves float32, which kernels mine in."""
    product = torch.empty((case.batch, case.batch), dtype=case.torch_dtype, device=case.device)
    ways: dict[str, Callable[[Inputs], object]] = {"gemm": _plain, "out": partial(_into, product)}
    if kind == BFLOAT16 and case.device == "cuda":
        ways["wide"] = _wide
    return ways


def measure_products(
    tell: Callable[[str], None],
    batch: int,
    width: int,
    kinds: list[list[str]],
    device: str,
    seconds: float,
) -> dict[str, Any]:
    """One size, every kind. Returns: lanes ({"kind way": figures and TFLOP/s}), oom, window."""
    found: dict[str, Any] = {"lanes": {}, "oom": {}}
    start = time.monotonic()
    for dtype, precision in kinds:
        kind = Kind(dtype, precision)
        case = Case("", "", "", batch, width, dtype, precision, device)
        tell(str(kind))
        try:
            with float32_precision(precision):
                lanes = _measure(kind, case, seconds / len(kinds), tell)
        except torch.OutOfMemoryError as error:
            found["oom"][str(kind)] = str(error)
            continue
        for way, lane in lanes.items():
            figures = lane.figures()
            figures["tflops"] = product_flops(batch, width) / figures["p50"] / 1e9
            found["lanes"][f"{kind} {way}"] = figures
    return {**found, "window": [start, time.monotonic()]}


def _measure(
    kind: Kind, case: Case, seconds: float, tell: Callable[[str], None]
) -> dict[str, Lane]:
    copies = rotating_copies(inputs_for(case, RANDOM))
    lanes = {}
    for way, function in _ways(kind, case).items():
        lanes[way] = Lane([partial(function, inputs) for inputs in copies])
        lanes[way].copies[0]()
    take_rounds(lanes, make_clock(case.device), seconds, tell)
    return lanes
