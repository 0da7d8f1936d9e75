"""The same bits again: repeated, on another stream, on other grids, replayed from a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import goal_kernels as gk
from bench.cases import FORWARD_BACKWARD, GOAL_LOSS, Case, Inputs
from bench.contestants import Loss
from bench.gpu.contestants import capture
from bench.gpu.correctness import Step, take_step
from bench.gpu.inputs import HUBS, RANDOM, inputs_for
from bench.gpu.kinds import Kind
from bench.gpu.variants import PROGRAM_COUNTS, Variant
from bench.gpu.verdicts import check_variants
from bench.lineup import make_contestant

RERUNS = 20


def _parts(step: Step) -> dict[str, Tensor]:
    """Everything a step answers, by name."""
    mined = step.mined
    return {
        "loss": step.loss,
        "hardest_text": mined.row_index,
        "hardest_image": mined.column_index,
        "negative_text": mined.row_value,
        "negative_image": mined.column_value,
        "grad_image": step.grads[0],
        "grad_text": step.grads[1],
    }


def require_equal(found: dict[str, Tensor], expected: dict[str, Tensor], what: str) -> None:
    """Raise AssertionError unless all parts have the same bits."""
    wrong = [name for name, value in expected.items() if not torch.equal(found[name], value)]
    assert not wrong, f"{what}: {', '.join(wrong)} differ"


def _elsewhere(step: Callable[[], Step], device: str) -> Step:
    """The step on a stream of its own."""
    if device != "cuda":
        return step()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        result = step()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    return result


def check_repeated(
    tell: Callable[[str], None], names: list[str], case: dict[str, Any], reruns: int = RERUNS
) -> dict[str, Any]:
    """Every variant: bit-equal over reruns, a second stream and, where it can be chosen, grids."""
    situation = Case(**case)
    inputs = inputs_for(situation, HUBS)
    kind = Kind(situation.dtype, situation.precision)

    def check(variant: Variant) -> None:
        def step() -> Step:
            return take_step(variant, inputs, situation.objective, kind)

        first = _parts(step())
        for rerun in range(1, reruns):
            tell(str(variant))
            require_equal(_parts(step()), first, f"rerun {rerun}")
        require_equal(_parts(_elsewhere(step, situation.device)), first, "second stream")
        for programs in PROGRAM_COUNTS if variant.sizes_its_grid else ():
            tell(str(variant))
            with variant.used(programs):
                require_equal(_parts(step()), first, f"{programs} programs")

    return check_variants(names, tell, check)


def _loss_parts(contestant: Loss, loss: Tensor) -> dict[str, Tensor]:
    assert contestant.image.grad is not None
    assert contestant.text.grad is not None
    return {"loss": loss, "grad_image": contestant.image.grad, "grad_text": contestant.text.grad}


def check_captured(
    tell: Callable[[str], None], names: list[str], case: dict[str, Any]
) -> dict[str, Any]:
    """Every variant: forward and backward captured once, replayed on other embeddings."""
    situation = Case(**case)
    assert (situation.op, situation.mode) == (GOAL_LOSS, FORWARD_BACKWARD)
    before, after = inputs_for(situation, RANDOM), inputs_for(situation, HUBS)

    def check(variant: Variant) -> None:
        if situation.device != "cuda":
            raise gk.BackendUnavailableError("CUDA graphs need a GPU")
        contestant = make_contestant(variant.backend, situation, Inputs(*before))
        assert isinstance(contestant, Loss)
        replay, loss = capture(contestant, None)
        assert isinstance(loss, Tensor)
        for inputs in (before, after):
            with torch.no_grad():
                contestant.image.copy_(inputs.image)
                contestant.text.copy_(inputs.text)
            replay()
            found = {name: x.clone() for name, x in _loss_parts(contestant, loss).items()}
            eager = make_contestant(variant.backend, situation, inputs)
            assert isinstance(eager, Loss)
            expected = eager.run()
            require_equal(found, _loss_parts(eager, expected), "graph against eager")

    return check_variants(names, tell, check)
