"""Contests on a GPU: rotating inputs, rounds in random order, CUDA graphs beside plain calls."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import torch

from bench.cases import Case
from bench.contest import float32_precision
from bench.gpu.contestants import GRAPH, capture, context_of, make, step
from bench.gpu.inputs import inputs_for, rotating_copies
from bench.gpu.rounds import MOST_CALLS, Lane, make_clock, take_rounds
from bench.gpu.verdicts import check_each


def make_lane(name: str, case: Case, data: str) -> Lane:
    """A contestant on as many copies of the inputs as outgrow the caches; run once."""
    base = name.removesuffix(GRAPH)
    captured = base != name
    inputs = inputs_for(case, data)
    copies = rotating_copies(inputs, MOST_CALLS) if captured else rotating_copies(inputs)
    contestants = [make(base, case, copy) for copy in copies]
    context = context_of(base)
    with context():
        step(contestants[0])()
        if not captured:
            return Lane([step(c) for c in contestants], context=context)
        pool = torch.cuda.graph_pool_handle()
        return Lane([capture(c, pool)[0] for c in contestants], full=True)


def hold_contest(
    tell: Callable[[str], None],
    names: list[str],
    case: dict[str, Any],
    data: str,
    seconds: float,
) -> dict[str, Any]:
    """Time all contestants of a case in turns.

    Returns: as `check_each` (passed: those that were timed), and lanes: {name: figures},
    window: `time.monotonic` at the start and the end of the timed rounds.
    """
    situation = Case(**case)
    lanes: dict[str, Lane] = {}

    def prepare(name: str) -> None:
        lanes[name] = make_lane(name, situation, data)

    with float32_precision(situation.precision):
        found = check_each(names, tell, prepare)
        start = time.monotonic()
        take_rounds(lanes, make_clock(situation.device), seconds, tell)
        window = [start, time.monotonic()]
    figures = {name: lane.figures() for name, lane in lanes.items()}
    lanes.clear()
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return {**found, "lanes": figures, "window": window}
