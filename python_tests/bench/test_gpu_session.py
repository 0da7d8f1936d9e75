"""The GPU session: what breaks costs its own job, wrong kernels are caught, and it all ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import pytest
import torch

from bench import gpu_session
from bench.cases import FORWARD_BACKWARD, GOAL_LOSS, PLAIN, RELATIVE, Case, Inputs, make_inputs
from bench.contestants import GEMM, Loss
from bench.gate import Judge
from bench.gpu import (
    build,
    environment,
    exactness,
    gates,
    sampler,
    samples,
    session,
    stability,
    variants,
    worker,
)
from bench.gpu.check_plan import check_plan
from bench.gpu.inputs import (
    CACHE_BYTES,
    HALF_TRAINED,
    HUB_COUNT,
    HUBS,
    RANDOM,
    busy_pairing,
    inputs_for,
    rotating_copies,
    whole_numbers,
)
from bench.gpu.jobs import CRASHED, CUT, FAILED, OK, SKIPPED, TIMED_OUT, WORK, Job, Reply
from bench.gpu.judge import DeviceJudge
from bench.gpu.kinds import BFLOAT16, HIGH, HIGHEST, KINDS
from bench.gpu.planning import NO_SUMS, State, training
from bench.gpu.results import Findings, Journal, Record, read_findings
from bench.gpu.rounds import MOST_CALLS, Clock, Lane, ProcessorClock, take_rounds
from bench.gpu.scale import DRY, REAL
from bench.gpu.speed_plan import product_plan, speed_plan
from bench.gpu.tables import render
from bench.gpu.targets import TARGETS, Target, best_figures
from bench.gpu.variants import Variant
from bench.gpu.watchdog import Watched
from goal_kernels import BackendUnavailableError, ops
from goal_kernels.backends.base import RELATIVE_KINDS, Pairing
from goal_kernels.backends.reference import ReferenceBackend

ROOT = Path(__file__).parent.parent.parent
SOON = 60.0
STEP = Case(GOAL_LOSS, FORWARD_BACKWARD, RELATIVE, 40, 24, "float32")


def quiet(name: str) -> None:
    """Nobody watches."""


# --- what breaks --------------------------------------------------------------------------------


@pytest.fixture
def watched():
    one = Watched(session.worker_environment("cpu", 1))
    yield one
    one.close()


def fault(*names: str, patience: float = 1.5) -> Job:
    return Job("fault", "on purpose", {"names": list(names)}, patience=patience)


def test_every_kind_of_job_has_a_function() -> None:
    for kind in WORK:
        assert callable(worker.load_function(kind))


def test_a_hang_and_a_crash_cost_their_own_try_only(watched) -> None:
    end = time.monotonic() + SOON
    hung = watched.run(fault("sound", "hang"), end)
    assert (hung.status, hung.at) == (TIMED_OUT, "hang")
    assert 1.5 <= hung.end - hung.start < 30
    crashed = watched.run(fault("crash"), end)
    assert (crashed.status, crashed.at) == (CRASHED, "crash")
    assert str(-signal.SIGABRT) in crashed.error
    failed = watched.run(fault("error"), end)
    assert (failed.status, failed.at) == (FAILED, "error")
    assert "an error on purpose" in failed.error
    assert watched.run(fault("sound"), end).result == {"passed": ["sound"]}
    assert watched.starts == 3  # an ordinary error is no reason for another process


def test_those_beside_a_culprit_get_another_try(watched) -> None:
    job = fault("first", "hang", "second", "crash", "last")
    reply = session.without_culprits(watched, job, time.monotonic() + SOON)
    assert reply.status == OK
    assert reply.result["passed"] == ["first", "second", "last"]
    assert set(reply.result["failures"]) == {"hang", "crash"}
    assert reply.result["failures"]["hang"].startswith(TIMED_OUT)
    alone = session.without_culprits(watched, fault("crash"), time.monotonic() + SOON)
    assert list(alone.result["failures"]) == ["crash"]


def test_the_end_of_the_session_cuts_a_job_short(watched) -> None:
    reply = watched.run(fault("hang", patience=SOON), time.monotonic() + 4)
    assert reply.status == CUT
    watched.retire()
    assert watched.run(fault("sound"), time.monotonic() + SOON).status == CUT


def test_a_lost_device_ends_the_process(monkeypatch) -> None:
    monkeypatch.setattr(worker, "device_is_lost", lambda: True)
    reply = worker.perform("fault", {"names": ["error"]}, quiet)
    assert reply["fatal"]
    assert reply["status"] == FAILED
    lines = []

    class Channel:
        def write(self, line: str) -> None:
            lines.append(json.loads(line))

        def flush(self) -> None:
            pass

    job = json.dumps(fault("error").as_dict()) + "\n"
    worker.serve([job, job], Channel())
    assert [m for m in lines if "status" in m] == [reply | {"error": lines[-1]["error"]}]


def test_a_process_that_says_it_is_lost_counts_as_crashed() -> None:
    script = (
        "import json; print(json.dumps({'at': ''})); input(); print(json.dumps({'at': 'x'}));"
        "print(json.dumps({'status': 'failed', 'result': {}, 'error': 'gone', 'fatal': True}))"
    )
    one = Watched(os.environ, (sys.executable, "-c", script))
    reply = one.run(fault("x"), time.monotonic() + SOON)
    one.close()
    assert (reply.status, reply.at, reply.error) == (CRASHED, "x", "gone")


# --- what is wrong ------------------------------------------------------------------------------


class Wrong(ReferenceBackend):
    """The reference with one answer spoilt, for some relative kinds."""

    part = ""
    relatives: tuple[str, ...] = RELATIVE_KINDS

    def search(self, image, text, pairing, query):
        found = super().search(image, text, pairing, query)
        if query.relative not in self.relatives:
            return found
        place, change = {
            "index": (found.indices, -1),
            "value": (found.values, 1.0),
            "sum": (found.sums, 1.0),
            "count": (found.counts, 3),
        }[self.part]
        if len(place):
            place[len(place) // 2] += change
        return found


def spoil(monkeypatch, part: str, relatives: tuple[str, ...] = RELATIVE_KINDS) -> None:
    """Let the operator answer through `Wrong`."""
    wrong = Wrong()
    wrong.part, wrong.relatives = part, relatives

    def search(name, image, text, pairing, query):
        return wrong.search(image, text, pairing, query)

    monkeypatch.setattr(ops, "search", search)


SHAPES = [[19, 26, 24], [1, 2, 8], [26, 19, 24]]


@pytest.mark.parametrize("kind", [BFLOAT16, HIGH], ids=str)
def test_exact_integers_pass(kind) -> None:
    found = exactness.check_exact(quiet, ["reference"], list(kind), SHAPES, "cpu")
    assert found["passed"] == ["reference"], found


@pytest.mark.parametrize(
    ("part", "relative"),
    [
        *product(("index", "value"), RELATIVE_KINDS),
        *product(("sum", "count"), ("linear", "exponential")),
    ],
)
def test_an_answer_that_is_not_exact_is_caught(part, relative, monkeypatch) -> None:
    spoil(monkeypatch, part, (relative,))
    found = exactness.check_exact(quiet, ["reference"], list(BFLOAT16), SHAPES, "cpu")
    assert part in found["failures"]["reference"]
    assert f"{relative}:" in found["failures"]["reference"]


def test_exact_integers_have_ties_and_absent_negatives() -> None:
    image, text = whole_numbers(26, 24, 1), whole_numbers(19, 24, 2)
    scores = image @ text.T
    assert torch.equal(scores, scores.round())
    assert (scores == scores.max(dim=1, keepdim=True).values).sum(dim=1).max() > 1
    pairing = busy_pairing(26, 19, "cpu")
    assert pairing.target.min() < 0
    assert pairing.target.max() >= 19
    _, mined = exactness.truth(whole_numbers(1, 8, 1), whole_numbers(2, 8, 2), Pairing(), "none")
    assert -1 in mined.column_index.tolist()


@pytest.mark.parametrize("part", ["", "index", "value", "sum", "count"])
def test_sampled_anchors_catch_what_is_wrong(part, monkeypatch) -> None:
    monkeypatch.setattr(samples, "ANCHORS", 41)  # the spoilt one is among them
    if part:
        spoil(monkeypatch, part)
    case = asdict(replace(STEP, batch=41))
    found = samples.check_sampled(quiet, ["reference"], case, HALF_TRAINED)
    assert found["passed"] == ([] if part else ["reference"])
    if part:
        assert part in found["failures"]["reference"] or "gap" in found["failures"]["reference"]


@pytest.mark.parametrize("objective", [PLAIN, RELATIVE])
def test_the_judge_on_the_device_says_what_the_other_says(objective) -> None:
    case = replace(STEP, objective=objective)
    inputs = make_inputs(case)
    Loss(case, inputs, "reference").verify(DeviceJudge(case, inputs))

    class WrongGradient(Loss):
        def run(self) -> torch.Tensor:
            loss = super().run()
            self.text.grad[self.text.grad.abs().sum(1).argmax()] *= -1
            return loss

    for judge in (Judge, DeviceJudge):
        with pytest.raises(AssertionError, match="grad_text"):
            WrongGradient(case, inputs, "reference").verify(judge(case, inputs))


def test_the_judge_on_the_device_sees_a_wrong_index_and_a_wrong_product() -> None:
    inputs = make_inputs(STEP)
    judge = DeviceJudge(STEP, inputs)
    hardest = Loss(STEP, inputs, "reference").hardest()
    judge.check_hardest(hardest, stored=False)
    index = hardest.hardest_image.clone()
    index[7] = (index[7] + 1) % 7
    with pytest.raises(AssertionError, match="hardest_image"):
        judge.check_hardest(hardest._replace(hardest_image=index), stored=False)
    similarity = inputs.image @ inputs.text.T
    judge.check_product(similarity)
    similarity[3, 5] += 1e-3
    with pytest.raises(AssertionError, match="similarity"):
        judge.check_product(similarity)


@pytest.mark.parametrize("kind", ["ids", "normalized"])
def test_options_of_the_loss_pass_and_a_missing_one_is_caught(kind, monkeypatch) -> None:
    check = worker.load_function(kind)
    arguments = {"names": ["reference"], "kind": list(BFLOAT16), "batch": 24, "width": 16}
    assert check(quiet, **arguments, device="cpu")["passed"] == ["reference"]
    import goal_kernels as gk

    loss = gk.goal_loss

    def forgetful(*given, **options):
        options.pop("image_ids", None)
        options.pop("normalize", None)
        return loss(*given, **options)

    monkeypatch.setattr(gk, "goal_loss", forgetful)
    assert "reference" in check(quiet, **arguments, device="cpu")["failures"]


def test_reruns_that_differ_are_caught(monkeypatch) -> None:
    case = asdict(replace(STEP, batch=24))
    assert stability.check_repeated(quiet, ["reference"], case, 3)["passed"] == ["reference"]
    take, taken = stability.take_step, []

    def unsteady(*arguments, **options):
        taken.append(take(*arguments, **options))
        if len(taken) == 3:
            taken[-1].grads[0][0, 0] += 1e-7
        return taken[-1]

    monkeypatch.setattr(stability, "take_step", unsteady)
    found = stability.check_repeated(quiet, ["reference"], case, 3)
    assert "rerun 2: grad_image differ" in found["failures"]["reference"]


def test_ranks_that_differ_are_caught(monkeypatch) -> None:
    import goal_kernels as gk

    check, ranks = worker.load_function("ranks"), gk.retrieval_ranks
    assert check(quiet, ["reference"], 9, 8, "cpu")["passed"] == ["reference"]

    def off_by_one(*arguments, backend):
        found = ranks(*arguments, backend="reference")
        return found._replace(t2i=found.t2i + (backend == "wrong"))

    monkeypatch.setattr(gk, "retrieval_ranks", off_by_one)
    assert "t2i" in check(quiet, ["wrong"], 9, 8, "cpu")["failures"]["wrong"]


# --- who takes part -----------------------------------------------------------------------------


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


# --- what is measured ---------------------------------------------------------------------------


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


def test_a_falling_clock_is_flagged() -> None:
    lines = ["1980, 650.1, 60", "1980, 640, 61", "[N/A], 1, 2", "1900, 600, 62", "nonsense"]
    readings = [sampler.parse_line(line, float(at)) for at, line in enumerate(lines)]
    readings = [r for r in readings if r is not None]
    assert [r.sm_mhz for r in readings] == [1980, 1980, 1900]
    steady = sampler.summarize(readings, 0.0, 1.5)
    assert (steady.sm_mhz, steady.flagged) == (1980, False)
    falling = sampler.summarize([sampler.Reading(-1.0, 345, 90, 40), *readings], -1.0, 9.0)
    assert (falling.sm_mhz_low, falling.celsius, falling.flagged) == (1900, 62, True)
    assert sampler.summarize(readings, 20.0, 30.0) is None


@pytest.fixture
def fake_smi(tmp_path, monkeypatch) -> None:
    """A program that answers like nvidia-smi, on a machine without one."""
    script = tmp_path / "nvidia-smi"
    script.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        f"*-lms*{sampler.PERIOD_MS}*) while :; do echo '1980, 650.5, 61'; sleep 0.05; done;;\n"
        "*driver_version*) echo 580.1;;\n"
        "*) exit 1;;\n"
        "esac\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


def test_the_clock_is_read_while_others_work(fake_smi) -> None:
    start = time.monotonic()
    with sampler.Sampler() as reader:
        while len(reader.readings) < 3 and time.monotonic() < start + SOON:
            time.sleep(0.02)
        process = reader._process
    load = reader.load(start, time.monotonic())
    assert (load.sm_mhz, load.power_w, load.celsius) == (1980, 650.5, 61)
    assert process.poll() is not None
    state = environment.smi_state()
    assert state["driver_version"] == "580.1"
    assert state["power.limit"] == ""  # what this version does not know is left out


def test_without_nvidia_smi_the_clock_is_unknown(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    with sampler.Sampler() as reader:
        assert reader.load(0.0, time.monotonic()) is None
    assert environment.smi_state() == {}
    assert environment.output_of("no-such-program") == ""


def test_a_build_that_fails_or_hangs_says_so(monkeypatch) -> None:
    def commands(*scripts: str) -> None:
        found = tuple((sys.executable, "-c", script) for script in scripts)
        monkeypatch.setattr(build, "attempts", lambda: found)

    commands("raise SystemExit('too old')", "print('fine')")
    assert build.build_native(SOON) == (True, "")
    commands("raise SystemExit('too old')", "import time; time.sleep(99)")
    start = time.monotonic()
    good, said = build.build_native(1.0)
    assert time.monotonic() < start + 20
    assert not good
    assert "too old" in said
    assert "not done" in said


# --- what is written ----------------------------------------------------------------------------


def contest(batch, width, objective=PLAIN, **times) -> Record:
    case = asdict(Case(GOAL_LOSS, FORWARD_BACKWARD, objective, batch, width, "bfloat16"))
    lanes = {
        name.replace("__", "@").replace("_", ":"): {"p20": ms, "p50": ms, "p80": ms}
        for name, ms in times.items()
    }
    arguments = {"case": case, "data": HALF_TRAINED, "names": list(lanes)}
    return Record("speed", "contest", "a contest", arguments, OK, 0.0, 1.0, {"lanes": lanes})


def test_targets_take_the_fastest_variant_over_the_replayed_product() -> None:
    records = [
        contest(4096, 512, gemm=1, gemm__graph=2.0, triton_strip__graph=5.0, triton_tile__graph=6),
        contest(4096, 1024, gemm__graph=1.0, triton__graph=3.0, cuda__graph=1.7, triton=0.1),
        contest(1024, 512, cuda__graph=0.029, gemm__graph=0.004),
        contest(4096, 512, RELATIVE, gemm__graph=2.0, triton_strip__graph=8.0),
    ]
    by_target = {(t.backend, t.batch, t.width): best_figures(t, records) for t in TARGETS}
    found = by_target["triton", 4096, None]
    assert [(f.name, f.width, f.objective, f.value) for f in found] == [
        ("triton:strip", 512, PLAIN, 2.5),
        ("triton", 1024, PLAIN, 3.0),
        ("triton:strip", 512, RELATIVE, 4.0),
    ]
    assert [f.value for f in by_target["cuda", 4096, 1024]] == [1.7]
    assert by_target["cuda", 4096, 512] == []
    assert [f.value for f in by_target["cuda", 1024, None]] == [29.0]
    report = render(Findings("a command", "2026-01-01", 460.0, False, records=records))
    assert (
        "| triton | hinge/constant | triton:strip | 4096 | 512 | met | 2.5 | 2.8 x GEMM |" in report
    )
    assert "| triton | hinge/constant | triton | 4096 | 1024 | **missed** | 3 |" in report
    assert "| cuda | – | – | 16384 | any | not measured |" in report
    assert "mean nothing" not in report


def test_the_targets_are_those_of_the_design() -> None:
    assert Target("triton", 16384, None, 1.6) in TARGETS
    assert {t.limit for t in TARGETS if t.backend == "cuda"} == {2.2, 1.8, 1.25, 1.12, 30.0}


def test_the_journal_holds_every_record_before_the_end(tmp_path) -> None:
    journal = Journal(tmp_path, Findings("a command", "2026-01-01", 9.0, True))
    record = contest(64, 32, gemm=1.0)
    journal.add(record)
    assert json.loads(journal.path.read_text()) == asdict(record)
    journal.findings.environment["device"] = "A Device 7"
    path = journal.close()
    assert path == tmp_path / "a-device-7" / "gpu_session.json"
    assert not journal.path.exists()
    assert read_findings(path) == journal.findings


def test_no_made_up_figures_among_the_results() -> None:
    with pytest.raises(ValueError, match="dry run"):
        gpu_session.choose_folder(ROOT / "bench" / "results", dry_run=True)
    with pytest.raises(ValueError, match="dry run"):
        gpu_session.choose_folder(ROOT / "bench" / "results" / "x", dry_run=True)
    chosen = gpu_session.choose_folder(None, dry_run=True)
    assert not chosen.is_relative_to(ROOT)
    chosen.rmdir()
    assert gpu_session.choose_folder(None, dry_run=False) == ROOT / "bench" / "results"


# --- the whole ----------------------------------------------------------------------------------

SCRIPT = [sys.executable, str(ROOT / "bench" / "gpu_session.py")]


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory) -> tuple[subprocess.CompletedProcess[str], Findings, str]:
    """One dry run with every fault in it: the process, its findings, its tables."""
    folder = tmp_path_factory.mktemp("session")
    environment = {**os.environ, session.FAULTS_VARIABLE: "hang,crash,error"}
    environment.pop("PYTHONPATH", None)  # it has to find itself
    done = subprocess.run(
        [*SCRIPT, "--dry-run", "--out", str(folder)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    paths = sorted(folder.glob("*/*"))
    assert [p.name for p in paths] == ["gpu_session.json", "gpu_session.md"], done.stderr
    return done, read_findings(paths[0]), paths[1].read_text()


def test_a_dry_run_does_everything_and_says_what_broke(dry_run) -> None:
    done, found, _ = dry_run
    assert done.returncode == 1, done.stdout + done.stderr
    bad = [record for record in found.records if record.bad]
    assert [record.title for record in bad] == ["faults on purpose"], done.stdout
    failures = bad[0].result["failures"]
    assert set(failures) == {"hang", "crash", "error"}
    assert bad[0].result["passed"] == ["sound"]
    assert {record.status for record in found.records} == {OK}
    done_kinds = {record.kind for record in found.records}
    assert done_kinds == set(WORK)
    assert found.seconds < found.budget
    assert found.environment["copy_gbs"] > 0


def test_a_dry_run_times_only_the_checked(dry_run) -> None:
    _, found, _ = dry_run
    contests = [r for r in found.records if r.kind == "contest"]
    backends = {n for n, why in found.environment["variants"].items() if not why[str(BFLOAT16)]}
    assert "triton" in backends
    for record in contests:
        assert not record.barred
        assert set(record.result["lanes"]) == set(record.arguments["names"])
        for figures in record.result["lanes"].values():
            assert 0 < figures["p20"] <= figures["p50"] <= figures["p80"]
            assert len(figures["samples"]) >= ProcessorClock.least_rounds
    passed = {
        (name, *gates.job_kind(Job(r.kind, r.title, r.arguments)))
        for r in found.records
        if r.stage == "correctness"
        for name in r.result["passed"]
    }
    for name in backends:
        assert (name, *BFLOAT16) in passed
        assert (name, *HIGHEST) in passed


def test_the_tables_of_a_dry_run_say_what_they_are(dry_run) -> None:
    _, _, report = dry_run
    assert "Dry run on a processor: the figures mean nothing." in report
    for part in (
        "hang: `timed out",
        "crash: `crashed",
        "Targets",
        "Gradients alone",
        "Peak memory",
    ):
        assert part in report
    assert "| met |" not in report
    assert "missed" not in report


def test_a_request_to_end_leaves_results_and_no_process(tmp_path) -> None:
    process = subprocess.Popen(
        [*SCRIPT, "--dry-run", "--out", str(tmp_path)],
        env={**os.environ, "MARK": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for line in process.stdout:
        if "exact integers" in line:
            break
    assert any(str(tmp_path) in found for found in _environments("bench.gpu.worker"))
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == gpu_session.INTERRUPTED, output
    found = read_findings(next(tmp_path.glob("*/gpu_session.json")))
    assert found.interrupted
    assert "exact integers" in "".join(record.title for record in found.records)
    assert "The session was interrupted." in next(tmp_path.glob("*/*.md")).read_text()
    assert not any(str(tmp_path) in found for found in _environments("bench.gpu.worker"))


def _environments(part: str) -> list[str]:
    """Environments of the running processes whose command line has `part` in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if part in (process / "cmdline").read_bytes().decode(errors="replace"):
                found.append((process / "environ").read_bytes().decode(errors="replace"))
    return found


def test_no_time_means_skipping_and_saying_so(tmp_path) -> None:
    findings = Findings("a command", "2026-01-01", 0.0, True)
    journal = Journal(tmp_path, findings)
    lines: list[str] = []
    session.Session(State(DRY), journal, 0.0, lines.append).run(build=False)
    journal.close()
    assert {record.status for record in findings.records} == {SKIPPED}
    assert not findings.failed
    assert "skipped, no time: environment" in render(findings)


def test_without_a_gpu_it_says_what_to_do(capsys, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_session.main([]) == 2
    assert "--dry-run" in capsys.readouterr().out


def test_training_names_its_sums() -> None:
    assert training(PLAIN).relative == NO_SUMS
    assert training(RELATIVE).relative == "exponential"
    assert training("nca/linear_ms").relative == "linear"
