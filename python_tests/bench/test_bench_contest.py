"""The gate lets every honest contestant through and stops wrong ones; turns are really taken."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import goal_kernels as gk
from bench import contest
from bench.baselines import EagerPipeline
from bench.cases import (
    DTYPES,
    FORWARD,
    FORWARD_BACKWARD,
    GOAL_LOSS,
    MINE,
    NO_OBJECTIVE,
    PLAIN,
    RELATIVE,
    SUITES,
    Case,
    Effort,
    Suite,
    make_inputs,
    mining_cases,
    objective_cases,
)
from bench.contest import hold_contest, take_turns
from bench.contestants import EAGER, GEMM, Contestant, Gemm, Loss, Mining, Pipeline
from bench.gate import Judge
from bench.lineup import entrants
from bench.lineup import make_contestant as make
from bench.measurements import measure
from bench.memory_worker import extra_mib_apart
from bench.replay import ReplayClock

SUITE = Suite((48,), (24,), ("float32",), Effort(0.0, 3, 3), compiling=False)
STEP = Case(GOAL_LOSS, FORWARD_BACKWARD, RELATIVE, 48, 24, "float32")
CASES = [
    *(replace(STEP, objective=o, dtype=d) for o in (PLAIN, RELATIVE) for d in DTYPES),
    replace(STEP, objective="circle/linear_ms"),
    replace(STEP, mode=FORWARD, precision="medium"),
    replace(STEP, op=MINE, mode=FORWARD, objective=NO_OBJECTIVE, dtype="bfloat16"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_contestant_passes_the_gate(case) -> None:
    result = hold_contest(case, SUITE)
    assert result.failures == {}
    taking_part = {name for name, verdict in entrants(case, compiling=False) if verdict.ok}
    assert set(result.samples) == taking_part >= {"gemm", "gemm_out", "eager", "reference"}
    assert all(len(s.wall) == len(s.cpu) == 3 for s in result.samples.values())
    assert result.ratio(GEMM, GEMM) == 1.0
    assert result.ratio(GEMM, "compiled") is None
    assert measure(case, EAGER, result)["measurements"]["wall_time"]["p50"] > 0


class WrongProduct(Gemm):
    """Off by a thousandth in one element."""

    def run(self) -> torch.Tensor:
        product = super().run()
        product[3, 5] += 1e-3
        return product


class WrongGradient(Loss):
    """One row of one gradient flipped."""

    def run(self) -> torch.Tensor:
        loss = super().run()
        row = self.text.grad.abs().sum(1).argmax()
        self.text.grad[row] *= -1
        return loss


class WrongValue(Loss):
    """One per cent too much."""

    def run(self) -> torch.Tensor:
        return 1.01 * super().run()


class WrongIndex(Mining):
    """The first image's hardest text replaced by its own."""

    def run(self) -> gk.MinedPairs:
        found = super().run()
        found.hardest_text[0] = 0
        return found


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (WrongProduct, "similarity: error"),
        (WrongGradient, "grad_text"),
        (WrongValue, "value: error"),
        (WrongIndex, "hardest_text: a masked item"),
    ],
)
def test_a_wrong_contestant_reports_no_time(wrong, message, monkeypatch) -> None:
    def make_wrong(name: str, *where) -> Contestant:
        if name == "reference":
            return wrong(*where) if wrong is WrongProduct else wrong(*where, "reference")
        return make(name, *where)

    monkeypatch.setattr(contest, "make_contestant", make_wrong)
    result = hold_contest(STEP, SUITE)
    assert "reference" not in result.samples
    assert message in result.failures["reference"]
    assert "eager" in result.samples


def test_a_pipeline_that_drops_a_threshold_is_caught() -> None:
    """A relative sum over all pairs instead of those above the threshold."""
    pipeline = EagerPipeline(gk.Objective.parse(RELATIVE))
    pipeline.epsilon = 10.0
    inputs = make_inputs(STEP)
    with pytest.raises(AssertionError, match="grad_image"):
        Pipeline(STEP, inputs, pipeline.forward_backward).verify(Judge(STEP, inputs))


@pytest.mark.parametrize("objective", [PLAIN, RELATIVE])
def test_the_pipeline_compiles_in_one_graph(objective) -> None:
    """Traced without code generation, which takes too long for a test."""
    function = EagerPipeline(gk.Objective.parse(objective)).forward_backward
    traced = torch.compile(function, dynamic=True, fullgraph=True, backend="eager")
    image, text = make_inputs(STEP)
    for found, expected in zip(traced(image, text)[1:], function(image, text)[1:], strict=True):
        assert torch.equal(found, expected)


def test_contestants_take_turns_and_each_starts_a_round() -> None:
    order: list[str] = []

    class Note(Gemm):
        def __init__(self, name: str) -> None:
            super().__init__(STEP, make_inputs(STEP))
            self.name = name

        def run(self) -> torch.Tensor:
            order.append(self.name)
            return self.image

    take_turns({name: Note(name) for name in "abc"}, Effort(0.0, 3, 3), "cpu")
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"


@pytest.mark.parametrize(("seconds", "rounds"), [(0.01, 15), (0.2, 10), (5.0, 7), (0.0, 15)])
def test_effort_keeps_within_its_limits(seconds, rounds) -> None:
    assert Effort(2.0, 7, 15).rounds(seconds) == rounds


def test_inputs_fill_the_relative_sums_at_every_size() -> None:
    """Some pairs beyond the threshold but not most, embeddings of unit length, and repeatable."""
    for batch, width in ((128, 256), (512, 64)):
        case = replace(STEP, batch=batch, width=width)
        image, text = make_inputs(case)
        similarity = image @ text.T
        beyond = similarity >= similarity.diagonal().min() - 0.1
        assert 0.005 < (beyond.float().mean() - 1 / batch) < 0.5
        assert torch.allclose(image.norm(dim=1), torch.ones(batch))
        assert torch.equal(text, make_inputs(case).text)


def test_replayed_samples_reach_pytest_benchmark() -> None:
    clock, seen = ReplayClock(), []

    class Fixture:
        def pedantic(self, function, rounds, iterations) -> None:
            for _ in range(rounds):
                start = clock()
                function()
                seen.append(clock() - start)

    clock.replay(Fixture(), [0.5, 0.25, 2.0])
    assert seen == [0.5, 0.25, 2.0]


def test_memory_of_the_product_is_its_matrix() -> None:
    """[2048, 2048] float32 is 16 MiB; in place there is nothing beyond what exists."""
    case = Case(GOAL_LOSS, FORWARD_BACKWARD, PLAIN, 2048, 16, "float32")
    assert 15.0 < extra_mib_apart("gemm", case, threads=1) < 20.0
    assert extra_mib_apart("gemm_out", case, threads=1) < 4.0


def test_the_quick_plan_covers_every_combination() -> None:
    suite = SUITES["quick"]
    cases = list(objective_cases(suite, "highest", "cpu"))
    assert len(cases) == len(set(cases)) == 5 * 2 * 2 * (1 + 2)
    steps = [c for c in cases if c.backward]
    assert {(c.batch, c.width, c.dtype) for c in steps} == {
        (c.batch, c.width, c.dtype) for c in mining_cases(suite, "highest", "cpu")
    }
    assert {c.objective for c in steps} == {PLAIN, RELATIVE}
    assert {c.width for c in cases if not c.backward} == {1024}
