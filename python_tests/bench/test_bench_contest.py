"""The gate lets every honest contestant through and stops wrong ones; turns are really taken."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pytorch_metric_learning.reducers import AvgNonZeroReducer

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
    memory_cases,
    mining_cases,
    objective_cases,
)
from bench.contest import hold_contest, take_turns, turns
from bench.contestants import EAGER, GEMM, Contestant, Gemm, Loss, Mining, Pipeline
from bench.gate import Judge
from bench.lineup import entrants
from bench.lineup import make_contestant as make
from bench.measurements import measure
from bench.memory_worker import extra_mib_apart
from bench.metric_learning import MetricLearning
from bench.replay import ReplayClock

SUITE = Suite((48,), (24,), ("float32",), Effort(0.0, 3, 3), compiling=False)
METRIC_LEARNING_CASES = [
    Case(GOAL_LOSS, mode, PLAIN, 48, 24, dtype, precision)
    for mode in (FORWARD, FORWARD_BACKWARD)
    for dtype, precision in (("float32", "highest"), ("float32", "high"), ("bfloat16", "highest"))
]
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
    taking_part = {name for name, verdict in entrants(case, SUITE) if verdict.ok}
    assert set(result.samples) == taking_part >= {"gemm", "gemm_out", "eager", "reference"}
    assert ("pml" in taking_part) == (case.objective == PLAIN)
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


@pytest.mark.parametrize("case", METRIC_LEARNING_CASES, ids=str)
def test_pytorch_metric_learning_computes_the_same_hinge(case) -> None:
    inputs = make_inputs(case)
    contestant = MetricLearning(case, inputs)
    contestant.verify(Judge(case, inputs))
    expected = gk.goal_loss(inputs.image, inputs.text, PLAIN, backend="reference")
    # bfloat16 keeps eight bits of the sum.
    assert contestant.loss().item() == pytest.approx(expected.item(), rel=2e-2)


@pytest.mark.parametrize(
    ("part", "other", "message"),
    [
        ("reducer", AvgNonZeroReducer(), "value: error"),
        ("margin", 0.4, "value: error"),
    ],
)
def test_another_triplet_loss_is_caught(part, other, message) -> None:
    """Its default reducer divides by the number of violations; its default margin is another."""
    inputs = make_inputs(METRIC_LEARNING_CASES[0])
    contestant = MetricLearning(METRIC_LEARNING_CASES[0], inputs)
    setattr(contestant.triplet_loss, part, other)
    with pytest.raises(AssertionError, match=message):
        contestant.verify(Judge(METRIC_LEARNING_CASES[0], inputs))


def test_pytorch_metric_learning_takes_part_where_it_can() -> None:
    small, large = SUITES["quick"], SUITES["full"]
    plain = Case(GOAL_LOSS, FORWARD, PLAIN, 4096, 256, "float32")
    others = replace(plain, batch=64, objective=RELATIVE)
    assert dict(entrants(plain, large))["pml"].ok
    for case, suite, reason in (
        (plain, small, "up to B = 1024"),
        (others, large, "hinge/constant"),
        (replace(plain, op=MINE, objective=NO_OBJECTIVE), large, "hinge/constant"),
    ):
        verdict = dict(entrants(case, suite))["pml"]
        assert not verdict.ok
        assert reason in verdict.reason


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


class Note(Gemm):
    """Writes down when it runs."""

    def __init__(self, name: str, order: list[str]) -> None:
        super().__init__(STEP, make_inputs(STEP))
        self.name, self.order = name, order

    def run(self) -> torch.Tensor:
        self.order.append(self.name)
        return self.image


def test_contestants_take_turns_and_each_starts_a_round() -> None:
    order: list[str] = []
    contestants = {name: Note(name, order) for name in "abc"}
    samples = take_turns(contestants, Effort(0.0, 3, 3), "cpu")
    assert "".join(order) == "abc" + "bca" + "cab"
    assert all(len(s.wall) == len(s.cpu) == 3 for s in samples.values())


def test_those_with_fewer_rounds_sit_out_evenly() -> None:
    order = list(turns({"slow": 2, "fast": 6, "middle": 3}))
    assert [("slow" in names, "middle" in names) for names in order] == [
        (False, False),
        (False, True),
        (True, False),
        (False, True),
        (False, False),
        (True, True),
    ]
    assert all("fast" in names for names in order)


@pytest.mark.parametrize("word", ["highest", "high", "medium"])
def test_everyone_is_timed_at_the_precision_of_the_case(word, monkeypatch) -> None:
    seen = set()

    def take_notes(contestants, effort, device) -> dict:
        seen.add(torch.get_float32_matmul_precision())
        return {}

    monkeypatch.setattr(contest, "take_turns", take_notes)
    before = torch.get_float32_matmul_precision()
    hold_contest(replace(STEP, precision=word), SUITE)
    assert seen == {word}
    assert torch.get_float32_matmul_precision() == before


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


@pytest.mark.parametrize("name", ["quick", "full"])
def test_a_plan_covers_every_combination(name) -> None:
    suite = SUITES[name]
    cases = list(objective_cases(suite, "cpu"))
    kinds = {("float32", "highest"), ("float32", "high"), ("bfloat16", "highest")}
    assert len(cases) == len(set(cases)) == len(suite.batches) * 2 * len(kinds) * 4
    assert len(set(map(str, cases))) == len(cases)
    assert {(c.dtype, c.precision) for c in cases} == kinds
    assert {(c.objective, c.mode) for c in cases} == {
        (objective, mode) for objective in (PLAIN, RELATIVE) for mode in (FORWARD, FORWARD_BACKWARD)
    }
    sizes = {(c.batch, c.width, c.dtype, c.precision) for c in cases}
    mining = list(mining_cases(suite, "cpu"))
    assert sizes == {(c.batch, c.width, c.dtype, c.precision) for c in mining}


def test_the_full_plan_has_the_sizes_that_the_targets_need() -> None:
    assert SUITES["full"].batches == (32, 128, 512, 1024, 4096, 8192)
    assert SUITES["full"].widths == (256, 1024)


def test_memory_is_measured_once_per_dtype() -> None:
    cases = list(memory_cases(SUITES["full"], "cpu"))
    assert len(cases) == len(set(cases)) == 2 * 2 * 2
    assert {(c.dtype, c.precision) for c in cases} == {
        ("float32", "highest"),
        ("bfloat16", "highest"),
    }
