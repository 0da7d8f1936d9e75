"""Ways of doing a case: the library's backends, what users write today, and the floor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

import goal_kernels as gk
from bench.baselines import Forward, Hardest, Outcome, Step
from bench.cases import Case, Inputs
from goal_kernels.statistics import MiningStatistics

if TYPE_CHECKING:
    from bench.gate import Judge

GEMM = "gemm"
GEMM_OUT = "gemm_out"
EAGER = "eager"
COMPILED = "compiled"
METRIC_LEARNING = "pml"
BASELINES = (GEMM, GEMM_OUT, EAGER, COMPILED, METRIC_LEARNING)
REFERENCE = "reference"


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


class Training(Contestant):
    """A loss through autograd, with gradients when the case wants them."""

    def __init__(self, case: Case, inputs: Inputs) -> None:
        super().__init__(case, inputs)
        self.image, self.text = (x.clone().requires_grad_(case.backward) for x in inputs)
        self.objective = gk.Objective.parse(case.objective)

    @abstractmethod
    def loss(self) -> Tensor:
        """The 0-d loss as users compute it."""

    @abstractmethod
    def hardest(self) -> Hardest:
        """The hardest negatives that `loss` found; not timed."""

    def reset(self) -> None:
        self.image.grad = self.text.grad = None

    def run(self) -> Tensor:
        loss = self.loss()
        if self.case.backward:
            loss.backward()
        return loss

    def outcome(self) -> Outcome:
        """Of a fresh run."""
        self.reset()
        loss = self.run().detach()
        gradients = None
        if self.case.backward:
            assert self.image.grad is not None
            assert self.text.grad is not None
            gradients = (self.image.grad, self.text.grad)
        return Outcome(self.hardest(), loss, gradients)


class Loss(Training):
    """`goal_kernels.goal_loss` on one backend."""

    def __init__(self, case: Case, inputs: Inputs, backend: str) -> None:
        super().__init__(case, inputs)
        self.backend = backend

    def _call(self, return_stats: bool) -> Tensor | tuple[Tensor, MiningStatistics]:
        """The call that users make."""
        return gk.goal_loss(
            self.image,
            self.text,
            self.objective,
            backend=self.backend,
            precision=self.case.precision,
            return_stats=return_stats,
        )

    def loss(self) -> Tensor:
        loss = self._call(return_stats=False)
        assert isinstance(loss, Tensor)
        return loss

    def hardest(self) -> Hardest:
        stats = self._call(return_stats=True)[1]
        assert isinstance(stats, MiningStatistics)
        return Hardest(
            stats.positive,
            stats.negative_text,
            stats.hardest_text,
            stats.negative_image,
            stats.hardest_image,
        )

    def verify(self, judge: Judge) -> None:
        judge.check_objective(self.objective, self.outcome(), stored=False)
