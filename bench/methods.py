"""Methods: ways of doing a case. The floor, what users write today, the library."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import goal_kernels as gk
from bench.cases import Case, Inputs
from bench.eager import Outcome
from goal_kernels.statistics import MiningStatistics

if TYPE_CHECKING:
    from bench.judge import Judge


class Runnable(ABC):
    """A job with its inputs. `run` is timed, `reset` is not."""

    def reset(self) -> None:
        """Bring everything back to where a training step starts; most leave nothing behind."""
        return

    @abstractmethod
    def run(self) -> object:
        """Do the job once."""

    def step(self) -> object:
        """`run` from where a training step starts."""
        self.reset()
        return self.run()


class Method(Runnable):
    """One way of doing one case."""

    def __init__(self, case: Case, inputs: Inputs) -> None:
        self.case = case
        self.image, self.text, self.ids = inputs

    @abstractmethod
    def verify(self, judge: Judge) -> None:
        """Run once and raise AssertionError if the result is wrong."""


class Gemm(Method):
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


class GemmWide(Gemm):
    """X Y^T of 16-bit factors with a float32 result, which is what kernels mine in."""

    def run(self) -> Tensor:
        return torch.mm(self.image, self.text.T, out_dtype=torch.float32)


class Pipeline(Method):
    """The dense torch pipeline, eager or compiled."""

    def __init__(self, case: Case, inputs: Inputs, function: Callable[..., object]) -> None:
        super().__init__(case, inputs)
        self.function = function

    def run(self) -> object:
        with torch.no_grad():
            return self.function(self.image, self.text)

    def verify(self, judge: Judge) -> None:
        result = self.run()
        if isinstance(result, gk.MinedPairs):
            judge.check_hardest(result, stored=True)
            return
        assert isinstance(result, Outcome), f"unexpected result {type(result).__name__}"
        judge.check_objective(gk.Objective.parse(self.case.objective), result, stored=True)


def options_of(case: Case, ids: Tensor | None, backend: str) -> dict[str, Any]:
    """Of a call of the library."""
    options = {"backend": backend, "precision": case.precision}
    return {**options, "image_ids": ids, "normalize": case.normalize}


class Mining(Method):
    """`goal_kernels.mine` on one backend."""

    def __init__(self, case: Case, inputs: Inputs, backend: str) -> None:
        super().__init__(case, inputs)
        self.options = options_of(case, self.ids, backend)

    def run(self) -> gk.MinedPairs:
        return gk.mine(self.image, self.text, **self.options)

    def verify(self, judge: Judge) -> None:
        judge.check_hardest(self.run(), stored=False)


class Training(Method):
    """A loss through autograd, with gradients when the case wants them."""

    def __init__(self, case: Case, inputs: Inputs) -> None:
        super().__init__(case, inputs)
        self.image, self.text = (x.clone().requires_grad_(case.backward) for x in inputs[:2])
        self.objective = gk.Objective.parse(case.objective)

    @abstractmethod
    def loss(self) -> Tensor:
        """The 0-d loss as users compute it."""

    @abstractmethod
    def hardest(self) -> gk.MinedPairs:
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
        self.options = options_of(case, self.ids, backend)

    def loss(self) -> Tensor:
        loss = gk.goal_loss(self.image, self.text, self.objective, **self.options)
        assert isinstance(loss, Tensor)
        return loss

    def hardest(self) -> gk.MinedPairs:
        stats = gk.goal_loss(
            self.image, self.text, self.objective, return_stats=True, **self.options
        )[1]
        assert isinstance(stats, MiningStatistics)
        return gk.MinedPairs(
            stats.positive,
            stats.negative_text,
            stats.hardest_text,
            stats.negative_image,
            stats.hardest_image,
        )

    def verify(self, judge: Judge) -> None:
        judge.check_objective(self.objective, self.outcome(), stored=False)


class Gradients(Loss):
    """The backward alone, again and again from one forward."""

    def __init__(self, case: Case, inputs: Inputs, backend: str) -> None:
        super().__init__(case, inputs, backend)
        self.kept = self.loss()

    def run(self) -> Any:
        return torch.autograd.grad(self.kept, (self.image, self.text), retain_graph=True)

    def verify(self, judge: Judge) -> None:
        outcome = Outcome(self.hardest(), self.kept.detach(), self.run())
        judge.check_objective(self.objective, outcome, stored=False)


@cache
def _fullgraph() -> Callable[..., Any]:
    """One for all copies of the inputs and all sizes, as in a user's program."""
    return torch.compile(gk.goal_loss, fullgraph=True)


class CompiledLoss(Loss):
    """The call of the loss under torch.compile, without a break in its graph."""

    def loss(self) -> Any:
        return _fullgraph()(self.image, self.text, self.case.objective, **self.options)


class GraphedLoss(Loss):
    """`goal_kernels.graphed_loss`."""

    def __init__(self, case: Case, inputs: Inputs, backend: str) -> None:
        super().__init__(case, inputs, backend)
        options = {name: value for name, value in self.options.items() if name != "image_ids"}
        rows = (self.image, self.text)
        self.graphed = gk.graphed_loss(self.objective, *rows, image_ids=self.ids, **options)

    def loss(self) -> Tensor:
        return self.graphed(self.image, self.text, self.ids)


class Captured(Method):
    """Another method as a CUDA graph. pool: memory shared with graphs replayed in turns."""

    def __init__(self, inner: Method, pool: Any) -> None:
        super().__init__(inner.case, Inputs(inner.image, inner.text, inner.ids))
        self.inner = inner
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # compiles, and lets libraries allocate what they keep
                inner.step()
        torch.cuda.current_stream().wait_stream(stream)
        inner.reset()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=pool):
            result = inner.run()
        # What each replay writes anew. Without these, graphs of the same pool share its memory.
        self.results = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        self.results += [x.grad for x in (inner.image, inner.text) if x.grad is not None]

    def run(self) -> None:
        self.graph.replay()

    def verify(self, judge: Judge) -> None:
        """The library's results have the bits of a plain call, also after other embeddings."""
        self.inner.verify(judge)
        if not isinstance(self.inner, Loss):
            return  # torch's own `index_add_` varies from run to run
        rows = (self.inner.image, self.inner.text)
        kept = [x.detach().clone() for x in rows]
        for shift in (1, 0):
            with torch.no_grad():
                for row, value in zip(rows, kept, strict=True):
                    row.copy_(value.roll(shift, dims=1))
            self.run()
            found = [x.clone() for x in self.results]
            expected = tree_leaves(self.inner.step())
            expected += [x.grad for x in rows if x.grad is not None]
            for part, (got, wanted) in enumerate(zip(found, expected, strict=True)):
                assert torch.equal(got, wanted), f"part {part} of the replay differs"
