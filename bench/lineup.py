"""Who takes part in a case, and why the others do not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec

import torch

import goal_kernels as gk
from bench.baselines import EagerPipeline, hardest_only
from bench.cases import MINE, NO_OBJECTIVE, PLAIN, Case, Inputs, Suite
from bench.contestants import (
    COMPILED,
    EAGER,
    GEMM,
    GEMM_OUT,
    METRIC_LEARNING,
    REFERENCE,
    Contestant,
    Gemm,
    GemmOut,
    Loss,
    Mining,
    Pipeline,
)
from goal_kernels.backends import verdicts
from goal_kernels.backends.base import Call, Verdict

REFERENCE_LIMIT = 1024
"""Largest B at which the dense reference is timed; it is written to be read."""

RECOMPILE_LIMIT = 128
"""Above objectives x dtypes x precisions x (general, B = D, D = 256, ...) of one pipeline."""


def _pipeline(objective: str, mode: str) -> Callable[..., object]:
    """The torch pipeline of a case: (image, text) [B, D] -> Hardest, Forward or Step."""
    if objective == NO_OBJECTIVE:
        return hardest_only
    function: Callable[..., object] = getattr(EagerPipeline(gk.Objective.parse(objective)), mode)
    return function


@cache
def _compiled(objective: str, mode: str) -> Callable[..., object]:
    """`_pipeline` compiled once for all sizes; as fast as per size here, and minutes quicker."""
    # Past the limit of recompilations torch.compile falls back to eager without a word. Pipelines
    # share their code objects, so objectives, dtypes and square cases all count towards one limit.
    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return torch.compile(_pipeline(objective, mode), dynamic=True, fullgraph=True)


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
    if case.objective != PLAIN:
        return Verdict(False, f"pytorch-metric-learning has no objective here but {PLAIN}")
    if case.batch > suite.metric_learning_limit:
        limit = suite.metric_learning_limit
        return Verdict(False, f"pytorch-metric-learning is timed up to B = {limit} in this suite")
    if find_spec("pytorch_metric_learning") is None:
        return Verdict(False, "pytorch-metric-learning is missing; pip install '.[bench]'")
    return Verdict(True)


def entrants(case: Case, suite: Suite) -> Iterator[tuple[str, Verdict]]:
    """Every contestant by name, with whether it takes part in this case and, if not, why."""
    for name in (GEMM, GEMM_OUT, EAGER):
        yield name, Verdict(True)
    yield COMPILED, _compiling(case, suite)
    yield METRIC_LEARNING, _metric_learning(case, suite)
    call = Call(case.device, case.torch_dtype, case.width, case.precision, automatic=True)
    for backend, verdict in verdicts(call):
        if backend.name == REFERENCE and case.batch > REFERENCE_LIMIT:
            verdict = Verdict(False, f"the dense reference is timed up to B = {REFERENCE_LIMIT}")
        yield backend.name, verdict


def make_contestant(name: str, case: Case, inputs: Inputs) -> Contestant:
    """The contestant of that name; a name that is no baseline is a backend's."""
    if name == GEMM:
        return Gemm(case, inputs)
    if name == GEMM_OUT:
        return GemmOut(case, inputs)
    if name == EAGER:
        return Pipeline(case, inputs, _pipeline(case.objective, case.mode))
    if name == COMPILED:
        return Pipeline(case, inputs, _compiled(case.objective, case.mode))
    if name == METRIC_LEARNING:
        from bench.metric_learning import MetricLearning  # slow to import, and may be absent

        return MetricLearning(case, inputs)
    if case.op == MINE:
        return Mining(case, inputs, name)
    return Loss(case, inputs, name)
