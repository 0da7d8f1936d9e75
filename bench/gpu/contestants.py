"""Contestants of a session by name: the baselines of the benchmarks, and every variant."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

import goal_kernels as gk
from bench.cases import Case, Inputs
from bench.contestants import BASELINES, Contestant
from bench.gate import Judge
from bench.gpu.variants import Variant
from bench.lineup import make_contestant
from goal_kernels import ops

APPLY = "apply"
"""The gradients alone, from what a forward left behind; the op of a case."""

GRAPH = "@graph"
"""Behind a contestant's name: the same, captured once and replayed."""


class Apply(Contestant):
    """`backward` of a backend on the answers of its own forward."""

    def __init__(self, case: Case, inputs: Inputs, backend: str) -> None:
        super().__init__(case, inputs)
        self.operator = getattr(torch.ops.goal_kernels, f"backward_{backend}")
        objective = gk.Objective.parse(case.objective)
        image, text = self.image, self.text
        options = ("both", False, case.precision)
        forward = ops.forward(backend, image, text, (None, None), objective, options)
        self.left = (forward.vectors, forward.hardest)
        self.one = torch.ones((), device=case.device)

    def run(self) -> tuple[Tensor, Tensor]:
        grads: tuple[Tensor, Tensor] = self.operator(
            self.one, self.image, self.text, *self.left, True, True
        )
        return grads

    def verify(self, judge: Judge) -> None:
        raise NotImplementedError("checked as a part of forward and backward")


def make(name: str, case: Case, inputs: Inputs) -> Contestant:
    """The contestant of that name; whoever runs it enters `context_of(name)` first."""
    if name in BASELINES:
        return make_contestant(name, case, inputs)
    backend = Variant.parse(name).backend
    if case.op == APPLY:
        return Apply(case, inputs, backend)
    return make_contestant(backend, case, inputs)


def context_of(name: str) -> Callable[[], AbstractContextManager[Any]]:
    """What a contestant's calls have to be made in."""
    return nullcontext if name in BASELINES else Variant.parse(name).used


def capture(contestant: Contestant, pool: Any) -> tuple[Callable[[], None], object]:
    """Capture one run as a CUDA graph.

    pool: memory shared with other graphs that are replayed one after the other, in one order.
    Returns: what replays it, and the result that each replay writes anew; whoever drops the result
        lets graphs of the same pool share its memory. Gradients stay in `.grad` of the embeddings.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # compiles, and lets libraries allocate what they keep
            contestant.reset()
            contestant.run()
    torch.cuda.current_stream().wait_stream(stream)
    contestant.reset()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        result = contestant.run()
    return graph.replay, result


def step(contestant: Contestant) -> Callable[[], object]:
    """One run from where a training step starts."""

    def run() -> object:
        contestant.reset()
        return contestant.run()

    return run
