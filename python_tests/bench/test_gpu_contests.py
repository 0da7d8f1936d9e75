"""Contests of a GPU session: who takes part, what is planned, how rounds are taken."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
import torch

from bench.cases import FORWARD_BACKWARD, GOAL_LOSS, RELATIVE, Case, Inputs
from bench.contestants import GEMM
from bench.gpu import (
    gates,
    variants,
)
from bench.gpu.check_plan import check_plan
from bench.gpu.inputs import (
    CACHE_BYTES,
    HALF_TRAINED,
    HUB_COUNT,
    HUBS,
    RANDOM,
    inputs_for,
    rotating_copies,
)
from bench.gpu.jobs import CRASHED, CUT, OK, SKIPPED, Job, Reply
from bench.gpu.kinds import BFLOAT16, HIGHEST, KINDS
from bench.gpu.planning import State
from bench.gpu.rounds import MOST_CALLS, Clock, Lane, take_rounds
from bench.gpu.scale import REAL
from bench.gpu.speed_plan import product_plan, speed_plan
from bench.gpu.targets import TARGETS
from bench.gpu.variants import Variant
from goal_kernels import BackendUnavailableError
from goal_kernels.backends.base import RELATIVE_KINDS

STEP = Case(GOAL_LOSS, FORWARD_BACKWARD, RELATIVE, 40, 24, "float32")


def quiet(name: str) -> None:
    """Nobody watches."""


def test_strategies_are_variants_of_their_backend(monkeypatch) -> None:
    from goal_kernels.backends import reference

    seen = []

    @contextlib.contextmanager
    def use(value):
        seen.append(value)
        yield

    assert "reference" in variants.variant_names()
    monkeypatch.setattr(reference, variants.STRATEGIES, lambda: ("dense", "tiled"), raising=False)
    monkeypatch.setattr(reference, variants.USE_STRATEGY, use, raising=False)
    assert {"reference:dense", "reference:tiled"} <= set(variants.variant_names())
    variant = Variant.parse("reference:tiled")
    assert not variant.sizes_its_grid
    monkeypatch.setattr(reference, variants.USE_PROGRAMS, use, raising=False)
    assert variant.sizes_its_grid
    with variant.used(17):
        assert seen == ["tiled", 17]
    assert variants.verdict("reference:tiled", "cpu", HIGHEST, 64).ok
    assert not variants.verdict("cpu", "cuda", BFLOAT16, 64).ok


def check(names, relatives, **changes) -> tuple[Job, Reply]:
    arguments = {"names": list(names), "kind": list(BFLOAT16)}
    reply = Reply(OK, {"passed": list(names), "failures": {}})
    return Job("exact", "a check", arguments, relatives), replace(reply, **changes)


def test_only_the_checked_are_timed() -> None:
    gate = gates.Gates()
    gate.note(*check(["a", "b", "c"], ("none", "linear")))
    gate.note(*check(["b"], ("none",), result={"passed": [], "failures": {"b": "wrong"}}))
    gate.note(*check(["c"], ("linear",), status=CRASHED, result={}, error="gone"))
    gate.note(*check(["a"], RELATIVE_KINDS, status=SKIPPED, result={}))
    gate.note(*check(["a"], RELATIVE_KINDS, status=CUT, result={}))

    def verdict(name, relative, kind=BFLOAT16):
        return gate.verdict(name, kind, relative)

    assert verdict("a", "none").ok
    assert verdict("a@graph", "linear").ok
    assert verdict("a", "exponential").reason == "was not checked"
    assert verdict("a", "none", HIGHEST).reason == "was not checked"
    assert "wrong" in verdict("b", "none").reason
    assert verdict("b", "linear").ok
    assert verdict("c", "none").ok
    assert "gone" in verdict("c@graph", "linear").reason
    assert verdict(GEMM, "linear", HIGHEST).ok


def state_of(scale, *names) -> State:
    served = {name: {str(kind): "" for kind in KINDS} for name in names}
    return State(scale, variants=served, rankers=["reference"])


def test_the_real_plan_has_what_the_targets_and_the_contract_need() -> None:
    state = state_of(REAL, "triton:strip", "triton:tile", "reference")
    planned = check_plan(state)
    for job, _ in planned:
        for name in job.arguments["names"]:
            if job.relatives and name != "reference":
                state.gates.note(job, Reply(OK, {"passed": [name]}))
    kinds = {job.kind for job, _ in planned}
    assert kinds == {
        "judged", "exact", "repeated", "captured", "sampled", "ids", "normalized", "ranks",
    }  # fmt: skip
    objectives = {j.arguments["case"]["objective"] for j, _ in planned if j.kind == "judged"}
    assert len(objectives) == 20 + 1  # and mining
    contests = [job for job, barred in speed_plan(state) if not barred]
    sizes = {}
    for job in contests:
        case = job.arguments["case"]
        sizes.setdefault((case["op"], case["dtype"]), set()).add((case["batch"], case["width"]))
        assert "reference" not in job.arguments["names"]
    steps = sizes[GOAL_LOSS, "bfloat16"]
    assert {b for b, _ in steps} >= {128, 512, 1024, 2048, 4096, 16384, 65536}
    for target in TARGETS:
        wanted = {512, 1024} if target.width is None else {target.width}
        assert {(target.batch, width) for width in wanted} <= steps
    assert (4096, 512) in sizes[GOAL_LOSS, "float32"]
    assert {"mine", "apply"} <= {op for op, _ in sizes}
    first = contests[0].arguments["names"]
    assert {"gemm@graph", "eager@graph", "triton:strip@graph", "triton:tile"} <= set(first)
    assert {kind for job, _ in product_plan(state) for kind, _ in job.arguments["kinds"]} == {
        "bfloat16",
        "float32",
    }


def test_the_unchecked_are_kept_out_of_contests_with_a_reason() -> None:
    job, barred = speed_plan(state_of(REAL, "triton"))[0]
    assert job.arguments["names"] == ["gemm", "gemm@graph"]
    assert barred["triton@graph"] == "was not checked"


class FakeClock(Clock):
    """A second per call, and a note of who was called."""

    def __init__(self) -> None:
        self.sizes = []

    def seconds(self, calls) -> float:
        self.sizes.append(len(calls))
        for call in calls:
            call()
        return float(len(calls))


def test_rounds_rotate_copies_and_stop_in_time() -> None:
    called = []
    lanes = {
        name: Lane([lambda name=name, k=k: called.append((name, k)) for k in range(3)])
        for name in "ab"
    }
    take_rounds(lanes, FakeClock(), 0.0, quiet)
    for name, lane in lanes.items():
        assert lane.samples == [1.0] * 3
        assert [k for n, k in called if n == name] == [0, 1, 2, 0]
    assert lanes["a"].figures()["p50"] == 1e3


@pytest.mark.parametrize(
    ("full", "seconds", "calls"),
    [(False, 1.0, 1), (False, 1e-3, 5), (False, 1e-6, MOST_CALLS), (True, 1e-3, MOST_CALLS),
     (True, 0.02, 3), (True, 1.0, 1)],
)  # fmt: skip
def test_short_jobs_are_repeated_within_a_sample(full, seconds, calls) -> None:
    lane = Lane([], full=full)
    lane.settle(seconds)
    assert lane.calls == calls


def test_inputs_have_hubs_and_copies_outgrow_the_cache() -> None:
    case = replace(STEP, batch=200, width=64)
    image, text = inputs_for(case, HUBS)
    similarity = (image @ text.T).fill_diagonal_(-9)
    hubs = set(range(200 - HUB_COUNT, 200))
    for hardest in (similarity.argmax(1), similarity.argmax(0)):
        assert sum(k in hubs for k in hardest.tolist()) > 150
        assert hardest.bincount().max() > 200 / HUB_COUNT / 2
    for data in (RANDOM, HUBS, HALF_TRAINED):
        rows = inputs_for(case, data)
        assert torch.allclose(rows.image.norm(dim=1), torch.ones(200), atol=1e-5)

    class OnDevice(torch.Tensor):
        is_cuda = True

    rows = torch.ones(1000, 1000).as_subclass(OnDevice)
    assert len(rotating_copies(Inputs(rows, rows))) == -(-CACHE_BYTES // 8_000_000)
    assert len(rotating_copies(Inputs(rows, rows), most=3)) == 3


def test_out_of_memory_and_refusals_are_no_failures() -> None:
    from bench.gpu.verdicts import check_each

    def judge(name: str) -> None:
        if name == "large":
            raise torch.OutOfMemoryError("no memory\nand more")
        if name == "other":
            raise BackendUnavailableError("not this one")
        assert name != "wrong", "it is wrong"

    found = check_each(["large", "other", "wrong", "good"], quiet, judge)
    assert found["oom"] == {"large": "no memory"}
    assert found["refused"] == {"other": "not this one"}
    assert "it is wrong" in found["failures"]["wrong"]
    assert found["passed"] == ["good"]
