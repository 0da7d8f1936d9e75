"""The judge lets every honest method through and stops wrong ones; turns are really taken."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
import torch
from pytorch_metric_learning.reducers import AvgNonZeroReducer

import goal_kernels as gk
from bench import contest
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
    timed_cases,
)
from bench.contest import ContestResult, Lane, ProcessorClock, hold_contest, take_turns, turns
from bench.eager import EagerPipeline
from bench.judge import Judge
from bench.lineup import EAGER, GEMM, line_up
from bench.lineup import make_method as make
from bench.memory import extra_mib_apart
from bench.methods import Gemm, Loss, Method, Mining, Pipeline
from bench.results import measure
from bench.rivals import MetricLearning

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
def test_every_method_passes_its_check(case) -> None:
    result = hold_contest(case, SUITE)
    assert result.failures == {}
    taking_part = {name for name, verdict in line_up(case, SUITE) if verdict.ok}
    assert set(result.lanes) == taking_part >= {"gemm", "gemm_out", "eager", "reference"}
    assert ("pml" in taking_part) == (case.objective == PLAIN)
    assert all(len(x.wall) == len(x.busy) == 3 for x in result.lanes.values())
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
def test_a_wrong_method_reports_no_time(wrong, message, monkeypatch) -> None:
    def make_wrong(name: str, *where) -> Method:
        if name == "reference":
            return wrong(*where) if wrong is WrongProduct else wrong(*where, "reference")
        return make(name, *where)

    monkeypatch.setattr(contest, "make_method", make_wrong)
    result = hold_contest(STEP, SUITE)
    assert "reference" not in result.lanes
    assert message in result.failures["reference"]
    assert "eager" in result.lanes


@pytest.mark.parametrize("case", METRIC_LEARNING_CASES, ids=str)
def test_pytorch_metric_learning_computes_the_same_hinge(case) -> None:
    inputs = make_inputs(case)
    method = MetricLearning(case, inputs)
    method.verify(Judge(case, inputs))
    expected = gk.goal_loss(inputs.image, inputs.text, PLAIN, backend="reference")
    # bfloat16 keeps eight bits of the sum.
    assert method.loss().item() == pytest.approx(expected.item(), rel=2e-2)


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
    method = MetricLearning(METRIC_LEARNING_CASES[0], inputs)
    setattr(method.triplet_loss, part, other)
    with pytest.raises(AssertionError, match=message):
        method.verify(Judge(METRIC_LEARNING_CASES[0], inputs))


def test_pytorch_metric_learning_takes_part_where_it_can() -> None:
    small, large = SUITES["quick"], SUITES["full"]
    plain = Case(GOAL_LOSS, FORWARD, PLAIN, 4096, 256, "float32")
    others = replace(plain, batch=64, objective=RELATIVE)
    assert dict(line_up(plain, large))["pml"].ok
    for case, suite, reason in (
        (plain, small, "up to B = 1024"),
        (others, large, "hinge/constant"),
        (replace(plain, op=MINE, objective=NO_OBJECTIVE), large, "hinge/constant"),
    ):
        verdict = dict(line_up(case, suite))["pml"]
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
    image, text, _ = make_inputs(STEP)
    pairs = zip(traced(image, text).gradients, function(image, text).gradients, strict=True)
    for found, expected in pairs:
        assert torch.equal(found, expected)


class Note(Gemm):
    """Writes down when it runs."""

    def __init__(self, name: str, order: list[str]) -> None:
        super().__init__(STEP, make_inputs(STEP))
        self.name, self.order = name, order

    def run(self) -> torch.Tensor:
        self.order.append(self.name)
        return self.image


def test_methods_take_turns_in_drawn_orders() -> None:
    order: list[str] = []
    result = ContestResult({name: Lane(name, [Note(name, order)]) for name in "abc"})
    take_turns(result, Effort(0.0, 3, 3), ProcessorClock())
    assert ["".join(sorted(order[i : i + 3])) for i in (0, 3, 6)] == ["abc"] * 3
    assert all(len(x.wall) == len(x.busy) == 3 for x in result.lanes.values())
    turned = [tuple(names) for names in turns(dict.fromkeys("abc", 60))]
    assert turned == [tuple(names) for names in turns(dict.fromkeys("abc", 60))]
    assert {turned.count(one) > 3 for one in permutations("abc")} == {True}


class Large(Gemm):
    """Has no memory for its second run."""

    runs = 0

    def run(self) -> torch.Tensor:
        self.runs += 1
        if self.runs == 2:
            raise torch.OutOfMemoryError("no memory\nand more")
        return super().run()


def test_who_runs_out_of_memory_is_dropped_alone() -> None:
    inputs = make_inputs(STEP)
    lanes = {
        "large": Lane("large", [Large(STEP, inputs)]),
        "gemm": Lane("gemm", [Gemm(STEP, inputs)]),
    }
    result = ContestResult(lanes)
    take_turns(result, Effort(0.0, 3, 3), ProcessorClock())
    assert result.oom == {"large": "no memory"}
    assert list(result.lanes) == ["gemm"]
    assert len(result.lanes["gemm"].wall) == 3


class LongClock:
    """A second per call, and many calls a sample."""

    def time(self, calls) -> tuple[float, float]:
        for call in calls:
            call()
        return float(len(calls)), 0.0

    def calls(self, seconds, full) -> int:
        return 4


def test_a_sample_of_many_calls_goes_round_the_copies() -> None:
    order: list[str] = []
    lane = Lane("x", [Note(name, order) for name in "abc"])
    result = ContestResult({"x": lane})
    take_turns(result, Effort(0.0, 3, 3), LongClock())
    assert "".join(order) == "a" + "bcab" + "cabc" + "abca"
    assert lane.wall == [1.0] * 3


@pytest.mark.parametrize(
    ("full", "seconds", "calls"),
    [(False, 1.0, 1), (False, 1e-3, 5), (False, 1e-6, 20), (True, 1e-3, 20), (True, 0.02, 3)],
)
def test_short_jobs_are_repeated_within_a_sample(full, seconds, calls) -> None:
    assert contest.DeviceClock.calls(None, seconds, full) == calls


def test_replayed_graphs_are_compared_with_a_replayed_product() -> None:
    times = {"gemm": 2.0, "gemm@graph": 1.0, "auto": 3.0, "auto@graph": 2.5, "auto@fullgraph": 5.0}
    result = ContestResult({name: Lane(name, [], [wall]) for name, wall in times.items()})
    assert result.ratio("auto", GEMM) == 1.5
    assert result.ratio("auto@graph", GEMM) == 2.5
    assert result.ratio("auto@fullgraph", GEMM) == 2.5


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
def test_every_method_is_timed_at_the_precision_of_the_case(word, monkeypatch) -> None:
    seen = set()

    def take_notes(*_) -> None:
        seen.add(torch.get_float32_matmul_precision())

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
        image, text, _ = make_inputs(case)
        similarity = image @ text.T
        beyond = similarity >= similarity.diagonal().min() - 0.1
        assert 0.005 < (beyond.float().mean() - 1 / batch) < 0.5
        assert torch.allclose(image.norm(dim=1), torch.ones(batch))
        assert torch.equal(text, make_inputs(case).text)


def test_memory_of_the_product_is_its_matrix() -> None:
    """[2048, 2048] float32 is 16 MiB; in place there is only what the vendor library packs."""
    case = Case(GOAL_LOSS, FORWARD_BACKWARD, PLAIN, 2048, 16, "float32")
    in_place = extra_mib_apart("gemm_out", case, threads=1)
    assert in_place < 6.0
    assert 15.0 < extra_mib_apart("gemm", case, threads=1) - in_place < 17.0


@pytest.mark.parametrize("name", ["quick", "full"])
def test_a_plan_covers_every_combination(name) -> None:
    suite = SUITES[name]
    cases = [case for case in timed_cases(suite, "cpu") if case.op == GOAL_LOSS]
    kinds = {("float32", "highest"), ("float32", "high"), ("bfloat16", "highest")}
    assert len(cases) == len(set(cases)) == len(suite.batches) * 2 * len(kinds) * 4
    assert len(set(map(str, cases))) == len(cases)
    assert {(c.dtype, c.precision) for c in cases} == kinds
    assert {(c.objective, c.mode) for c in cases} == {
        (objective, mode) for objective in (PLAIN, RELATIVE) for mode in (FORWARD, FORWARD_BACKWARD)
    }
    sizes = {(c.batch, c.width, c.dtype, c.precision) for c in cases}
    mining = [case for case in timed_cases(suite, "cpu") if case.op == MINE]
    assert sizes == {(c.batch, c.width, c.dtype, c.precision) for c in mining}


def test_the_full_plan_has_the_sizes_that_the_targets_need() -> None:
    assert SUITES["full"].batches == (32, 64, 128, 512, 1024, 4096, 8192)
    assert SUITES["full"].widths == (256, 1024)


def test_memory_is_measured_once_per_dtype() -> None:
    cases = list(memory_cases(SUITES["full"], "cpu"))
    assert len(cases) == len(set(cases)) == 2 * 2 * 2
    assert {(c.dtype, c.precision) for c in cases} == {
        ("float32", "highest"),
        ("bfloat16", "highest"),
    }
