"""Which methods are timed in a case, by name, and the reason where one is not.

A library method is named like its backend, "backend" or "backend:strategy", or `auto`; behind it
may stand a way to call it, one of WAYS.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch

from bench.cases import GOAL_LOSS, GRADIENTS, MINE, PLAIN, Case, Inputs, Suite
from bench.eager import pipeline
from bench.methods import (
    Captured,
    CompiledLoss,
    Gemm,
    GemmOut,
    GemmWide,
    Gradients,
    GraphedLoss,
    Loss,
    Method,
    Mining,
    Pipeline,
)
from goal_kernels.backends.base import Call, Verdict
from goal_kernels.backends.choice import AUTO, find_backend, verdicts

GEMM = "gemm"
GEMM_OUT = "gemm_out"
GEMM_WIDE = "gemm_wide"
EAGER = "eager"
COMPILED = "compiled"
METRIC_LEARNING = "pml"
PRODUCTS = (GEMM, GEMM_OUT, GEMM_WIDE)
BASELINES = (*PRODUCTS, EAGER, COMPILED, METRIC_LEARNING)
REFERENCE = "reference"

GRAPH = "@graph"
"""Captured once as a CUDA graph, and replayed."""

GRAPHED_LOSS = "@graphed_loss"
"""`goal_kernels.graphed_loss`, as users call it."""

FULLGRAPH = "@fullgraph"
"""The call of the loss under torch.compile(fullgraph=True)."""

WAYS = (GRAPH, GRAPHED_LOSS, FULLGRAPH)

REFERENCE_LIMIT = 1024
"""Largest B at which the dense reference is timed; it is written to be read."""

PRODUCT_LIMIT = 16384
"""Largest B on a GPU of products that need more memory than the bare one."""

RECOMPILE_LIMIT = 128
"""Above objectives x dtypes x precisions x (general, B = D, D = 256, ...) of one pipeline."""


def split_way(name: str) -> tuple[str, str]:
    """(method, way), the way empty for a plain call."""
    base, separator, way = name.partition("@")
    return base, separator + way


def _home(backend: str) -> ModuleType:
    """The package of a backend, goal_kernels.backends.<package>."""
    module = type(find_backend(backend)).__module__
    return sys.modules[".".join(module.split(".")[:3])]


def strategies(backend: str) -> tuple[str, ...]:
    """Names of a backend's mining strategies; none where there is no choice."""
    found: tuple[str, ...] = getattr(find_backend(backend), "strategies", ())
    return found if len(found) > 1 else ()


def has_programs(name: str) -> bool:
    """Whether a library method lets one choose how many programs its kernels launch."""
    backend = split_way(name)[0].partition(":")[0]
    return backend != AUTO and hasattr(_home(backend), "use_programs")


@contextmanager
def using(name: str, programs: int = 0) -> Iterator[None]:
    """Within, a backend takes the strategy of the method `name` and launches so many programs.

    A call that the strategy cannot serve raises NotImplementedError.
    """
    backend, _, strategy = split_way(name)[0].partition(":")
    with ExitStack() as stack:
        if strategy:
            stack.enter_context(_home(backend).use_strategy(strategy))
        if programs:
            stack.enter_context(_home(backend).use_programs(programs))
        yield


def _compiler() -> Verdict:
    """Whether torch.compile has the C++ compiler it needs for CPU code."""
    named = os.environ.get("CXX", "")
    if any(name and shutil.which(name) for name in (named, "g++", "clang++")):
        return Verdict(True)
    return Verdict(False, "torch.compile needs a C++ compiler; install g++ or set CXX")


def _compiling(case: Case, suite: Suite) -> Verdict:
    if not suite.compiling:
        return Verdict(False, "torch.compile takes longer than this whole suite may")
    return _compiler() if case.device == "cpu" else Verdict(True)


def _metric_learning(case: Case, suite: Suite) -> Verdict:
    if case.op == GRADIENTS or case.objective != PLAIN:
        return Verdict(False, f"pytorch-metric-learning has no objective here but {PLAIN}")
    if case.batch > suite.metric_learning_limit:
        limit = suite.metric_learning_limit
        return Verdict(False, f"pytorch-metric-learning is timed up to B = {limit} in this suite")
    if find_spec("pytorch_metric_learning") is None:
        return Verdict(False, "pytorch-metric-learning is missing; pip install '.[bench]'")
    return Verdict(True)


@cache
def _compiled(objective: str, mode: str) -> Callable[..., object]:
    """The pipeline compiled once for all sizes; as fast as per size here, and minutes quicker."""
    # Past the limit of recompilations torch.compile falls back to eager without a word. Pipelines
    # share their code objects, so objectives, dtypes and square cases all count towards one limit.
    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return torch.compile(pipeline(objective, mode), dynamic=True, fullgraph=True)


def make_method(name: str, case: Case, inputs: Inputs, pool: Any = None) -> Method:
    """The method of that name, which has to run within `using(name)`. pool: see `Captured`."""
    base, way = split_way(name)
    if way == GRAPH:
        return Captured(make_method(base, case, inputs), pool)
    products = {GEMM: Gemm, GEMM_OUT: GemmOut, GEMM_WIDE: GemmWide}
    if base in products:
        return products[base](case, inputs)
    if base in (EAGER, COMPILED):
        make = pipeline if base == EAGER else _compiled
        return Pipeline(case, inputs, make(case.objective, case.mode))
    if base == METRIC_LEARNING:
        from bench.rivals import MetricLearning  # slow to import, and may be absent

        return MetricLearning(case, inputs)
    backend = base.partition(":")[0]
    if case.op == MINE:
        return Mining(case, inputs, backend)
    if case.op == GRADIENTS:
        return Gradients(case, inputs, backend)
    return {"": Loss, FULLGRAPH: CompiledLoss, GRAPHED_LOSS: GraphedLoss}[way](
        case, inputs, backend
    )


def _baselines(case: Case, suite: Suite) -> Iterator[tuple[str, Verdict]]:
    yield GEMM, Verdict(True)
    fits = case.device == "cpu" or case.batch <= PRODUCT_LIMIT
    yield GEMM_OUT, Verdict(fits, f"it holds B x B for every copy; up to B = {PRODUCT_LIMIT}")
    if case.dtype != "float32" and case.device == "cuda":
        yield GEMM_WIDE, Verdict(fits, f"its result is twice as large; up to B = {PRODUCT_LIMIT}")
    plain = case.op != GRADIENTS and not case.ids and not case.normalize
    unable = Verdict(False, "it has neither ids nor normalize, and no backward of its own")
    yield EAGER, Verdict(True) if plain else unable
    yield COMPILED, _compiling(case, suite) if plain else unable
    yield METRIC_LEARNING, _metric_learning(case, suite) if plain else unable


def _library(case: Case, suite: Suite) -> Iterator[tuple[str, Verdict]]:
    # A suite that asks for strategies is there to check, so it also takes Triton's interpreter.
    automatic = not suite.strategies
    call = Call(case.device, getattr(torch, case.dtype), case.precision, automatic)
    for backend, verdict in verdicts(call):
        if backend.name == REFERENCE and case.batch > REFERENCE_LIMIT:
            verdict = Verdict(False, f"the dense reference is timed up to B = {REFERENCE_LIMIT}")
        found = strategies(backend.name) if suite.strategies else ()
        for name in [f"{backend.name}:{strategy}" for strategy in found] or [backend.name]:
            yield name, verdict
    if suite.ways:
        yield AUTO, Verdict(True)


def line_up(case: Case, suite: Suite) -> Iterator[tuple[str, Verdict]]:
    """Every method by name, with whether it takes part in this case and, if not, why."""
    for name, verdict in (*_baselines(case, suite), *_library(case, suite)):
        yield name, verdict
        if not verdict.ok or case.op == GRADIENTS or name in (METRIC_LEARNING, REFERENCE):
            continue
        ways = [way for way in suite.ways if way == GRAPH and name != COMPILED]
        if name == AUTO and case.op == GOAL_LOSS:
            ways = list(suite.ways)
        for way in ways:
            if way == FULLGRAPH or case.device == "cuda":
                yield name + way, Verdict(True)
