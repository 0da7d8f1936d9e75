"""Who takes part in a case: the library's backends, what users write today, and the floor."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

import goal_kernels as gk
from bench.baselines import EagerPipeline, Forward, Hardest, Outcome, Step, hardest_only
from bench.cases import MINE, NO_OBJECTIVE, Case, Inputs
from goal_kernels.backends import verdicts
from goal_kernels.backends.base import Call, Verdict
from goal_kernels.statistics import MiningStatistics

if TYPE_CHECKING:
    from bench.gate import Judge

GEMM = "gemm"
GEMM_OUT = "gemm_out"
EAGER = "eager"
COMPILED = "compiled"
BASELINES = (GEMM, GEMM_OUT, EAGER, COMPILED)
REFERENCE = "reference"
REFERENCE_LIMIT = 1024
"""Largest B at which the dense reference is timed; it is written to be read."""
RECOMPILE_LIMIT = 64
"""Above objectives x dtypes x (general, B = D, D = 256, ...) of one pipeline."""


class Contestant(ABC):
    """One way of doing one case, ready to run. `run` is timed, `reset` and `verify` are not."""

    def __init__(self, case: Case, inputs: Inputs) -> None:
        self.case = case
        self.image, self.text = inputs

    def reset(self) -> None:
        """Bring everything back to where a training step starts; most leave nothing behind."""
        return

    @abstractmethod
    def run(self) -> object:
        """Do the job once."""

    @abstractmethod
    def verify(self, judge: Judge) -> None:
        """Run once and raise AssertionError if the result is wrong."""


class Gemm(Contestant):
    """X Y^T by the vendor library, result allocated by the call: what any such loss must do."""

    def run(self) -> Tensor:
        return self.image @ self.text.T

    def verify(self, judge: Judge) -> None:
        judge.check_product(self.run())


class GemmOut(Gemm):
    """X Y^T into memory that exists already."""

    def __init__(self, case: Case, inputs: Inputs) -> None:
        super().__init__(case, inputs)
        # Written, so that its pages exist before the first product.
        self.product = self.image.new_ones(case.batch, case.batch)

    def run(self) -> Tensor:
        return torch.mm(self.image, self.text.T, out=self.product)


class Pipeline(Contestant):
    """The dense torch pipeline, eager or compiled."""

    def __init__(self, case: Case, inputs: Inputs, function: Callable[..., object]) -> None:
        super().__init__(case, inputs)
        self.function = function

    def run(self) -> object:
        with torch.no_grad():
            return self.function(self.image, self.text)

    def verify(self, judge: Judge) -> None:
        result = self.run()
        if isinstance(result, Hardest):
            judge.check_hardest(result, stored=True)
            return
        gradients = None
        if isinstance(result, Step):
            gradients = (result.grad_image, result.grad_text)
            result = result.forward
        assert isinstance(result, Forward), f"unexpected result {type(result).__name__}"
        objective = gk.Objective.parse(self.case.objective)
        outcome = Outcome(result.hardest, result.value, gradients)
        judge.check_objective(objective, outcome, stored=True)


class Mining(Contestant):
    """`goal_kernels.mine` on one backend."""

    def __init__(self, case: Case, inputs: Inputs, backend: str) -> None:
        super().__init__(case, inputs)
        self.backend = backend

    def run(self) -> gk.MinedPairs:
        precision = self.case.precision
        return gk.mine(self.image, self.text, backend=self.backend, precision=precision)

    def verify(self, judge: Judge) -> None:
        judge.check_hardest(Hardest(*self.run()), stored=False)


class Loss(Contestant):
    """`goal_kernels.goal_loss` on one backend, through autograd when gradients are wanted."""

    def __init__(self, case: Case, inputs: Inputs, backend: str) -> None:
        super().__init__(case, inputs)
        self.image, self.text = (x.clone().requires_grad_(case.backward) for x in inputs)
        self.objective = gk.Objective.parse(case.objective)
        self.backend = backend

    def reset(self) -> None:
        self.image.grad = self.text.grad = None

    def _loss(self, return_stats: bool) -> Tensor | tuple[Tensor, MiningStatistics]:
        """The call that users make."""
        return gk.goal_loss(
            self.image,
            self.text,
            self.objective,
            backend=self.backend,
            precision=self.case.precision,
            return_stats=return_stats,
        )

    def run(self) -> Tensor:
        loss = self._loss(return_stats=False)
        assert isinstance(loss, Tensor)
        if self.case.backward:
            loss.backward()
        return loss

    def verify(self, judge: Judge) -> None:
        self.reset()
        loss = self.run()
        stats = self._loss(return_stats=True)[1]
        assert isinstance(stats, MiningStatistics)
        hardest = Hardest(
            stats.positive,
            stats.negative_text,
            stats.hardest_text,
            stats.negative_image,
            stats.hardest_image,
        )
        gradients = None
        if self.case.backward:
            assert self.image.grad is not None
            assert self.text.grad is not None
            gradients = (self.image.grad, self.text.grad)
        judge.check_objective(self.objective, Outcome(hardest, loss, gradients), stored=False)


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


def entrants(case: Case, compiling: bool = True) -> Iterator[tuple[str, Verdict]]:
    """Every contestant by name, with whether it takes part in this case and, if not, why.

    compiling: whether there is time for torch.compile.
    """
    for name in BASELINES:
        verdict = Verdict(True)
        if name == COMPILED and not compiling:
            verdict = Verdict(False, "torch.compile takes longer than this whole suite may")
        elif name == COMPILED and case.device == "cpu":
            verdict = _compiler()
        yield name, verdict
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
    if case.op == MINE:
        return Mining(case, inputs, name)
    return Loss(case, inputs, name)
