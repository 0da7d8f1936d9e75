"""The worker process that uses the GPU: reads a job a line, writes heartbeats and a reply.

It may be lost: what hangs or crashes here is ended by `watchdog.py`, and a CUDA error, after which
no result of this process can be trusted, ends it from inside.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, TextIO

import torch
from interpreter_speed import quicken
from torch import Tensor

from bench.cases import Case, Effort, Suite, make_inputs
from bench.contest import (
    ERROR_LENGTH,
    ContestResult,
    Tell,
    describe_error,
    device_is_lost,
    float32_precision,
    hold_contest,
)
from bench.costs import ImpossibleThroughputError
from bench.lineup import (
    BASELINES,
    FULLGRAPH,
    GEMM,
    GRAPH,
    GRAPHED_LOSS,
    has_programs,
    line_up,
    make_method,
    using,
)
from bench.machine import describe_machine, installed_version, output_of
from bench.methods import Loss
from bench.ranks import RankCase, hold_rank_contest
from bench.results import measure
from bench.whole_batch import EAGER, OURS, RIVALS, WholeBatchCase, module_of
from bench.whole_batch import hold_contest as hold_whole_batch_contest
from goal_kernels import native
from goal_kernels.backends.choice import verdicts
from goal_kernels.backends.gpu import CudaBackend
from tools.gpu_session.tile_scores import Tiles, faults
from tools.gpu_session.watchdog import FAILED, OK, ROOT

RERUNS = 20
PROGRAM_COUNTS = (132, 66, 17, 1)
"""Grids that results must not depend on: a whole H100, half of it, a prime, a single one."""

SMI_FIELDS = (
    "name",
    "driver_version",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "power.limit",
    "power.draw",
    "temperature.gpu",
    "ecc.mode.current",
    "memory.used",
    "mig.mode.current",
)
PACKAGES = ("pytorch-metric-learning", "memeff", "siglip-kernel", "inf-cl")
"""Packages beside which a reader would like to see us, timed where they are installed."""


def _suite(effort: Effort, **options: Any) -> Suite:
    options = {"ways": (GRAPH,), "compiling": False, "metric_learning_limit": 0, **options}
    return Suite((), (), (), effort, strategies=True, **options)


SUITES = {
    "first": _suite(Effort(0.02, 3, 5), ways=(GRAPH, GRAPHED_LOSS, FULLGRAPH)),
    "checks": _suite(Effort(0.0, 1, 1)),
    "steps": _suite(Effort(0.15, 3, 15), ways=(GRAPH, GRAPHED_LOSS)),
    "large": _suite(Effort(0.5, 3, 7)),
    "rivals": _suite(Effort(0.15, 3, 15), ways=(), compiling=True, metric_learning_limit=4096),
}
"""Effort and methods of contests."""


def smi_state(fields: Sequence[str] = SMI_FIELDS) -> dict[str, str]:
    """What nvidia-smi says about the GPU, field by field, for not every version knows all."""
    if shutil.which("nvidia-smi") is None:
        return {}
    index = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"

    def query(field: str) -> str:
        return output_of(
            "nvidia-smi", "-i", index, f"--query-gpu={field}", "--format=csv,noheader,nounits"
        )

    return {field: query(field) for field in fields}


def _properties() -> dict[str, Any]:
    """What torch knows about the GPU."""
    p = torch.cuda.get_device_properties(0)
    gib = [round(size / 2**30, 1) for size in torch.cuda.mem_get_info()]
    found = {"multiprocessors": p.multi_processor_count, "capability": f"{p.major}.{p.minor}"}
    found |= {"free_gib": gib[0], "memory_gib": gib[1], "cuda": str(torch.version.cuda)}
    return {**found, "l2_mib": getattr(p, "L2_cache_size", 0) / 2**20}


def describe(tell: Tell, device: str) -> dict[str, Any]:
    """Everything a reader needs to judge a figure."""
    tell("machine")
    found = describe_machine(device)
    found |= _properties() if device == "cuda" else {}
    release = re.search(r"release ([\d.]+)", output_of("nvcc", "--version"))
    found |= {"nvidia_smi": smi_state(), "nvcc": release.group(1) if release else "-"}
    found |= {"rivals": {name: installed_version(name) for name in PACKAGES}}
    found["native"] = native.status()[1] or str(native.build_info().get("isa"))
    found["backends"] = {backend.name: verdict.reason for backend, verdict in verdicts()}
    return found


def _not_timed(result: ContestResult) -> dict[str, Any]:
    return {"failures": result.failures, "refused": result.refused, "oom": result.oom}


def tile_scores(
    tell: Tell, cases: Sequence[Sequence[Any]], device: str, without: Sequence[str] = ()
) -> dict[str, Any]:
    """Products of the Hopper tile kernel, every number of them: what all of it rests on."""
    names = {f"tiles of {tiles}": tiles for tiles in (Tiles(*case) for case in cases)}
    verdict = CudaBackend(emulated=device == "cpu").availability()
    if not verdict.ok:
        return {"refused": dict.fromkeys(names, verdict.reason)}
    passed, failures = [], {}
    for name, tiles in names.items():
        if name in without:
            continue
        tell(name)
        found = list(faults(tiles, device))
        if found:
            failures[name] = f"{found[0]}; {len(found)} such places"
        else:
            passed.append(name)
    return {"passed": passed, "failures": failures}


def contest(
    tell: Tell, case: dict[str, Any], suite: str, without: Sequence[str] = ()
) -> dict[str, Any]:
    """A contest of the harness: lanes {method: figures}, and of the others why not."""
    situation, chosen = Case(**case), SUITES[suite]
    if situation.device == "cpu":  # a dry run measures nothing, and interprets where it checks
        chosen = replace(chosen, compiling=False, ways=(GRAPH,), effort=Effort(0.0, 1, 1))
        chosen = replace(chosen, strategies=suite == "checks")
    result = hold_contest(situation, chosen, tell, without)
    load = smi_state(("clocks.sm", "power.draw", "temperature.gpu"))  # still warm from the rounds
    lanes = {}
    for name, lane in result.lanes.items():
        try:
            figures = measure(situation, name, result)
        except ImpossibleThroughputError as error:
            result.failures[name] = str(error)
            continue
        more = {"first_s": lane.first, "mib": lane.mib, "calls": lane.calls}
        lanes[name] = {**figures, **more, "rounds": len(lane.wall)}
    result.lanes.clear()
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return {**_not_timed(result), "lanes": lanes, "load": load}


def ranks(tell: Tell, case: list[Any], without: Sequence[str] = ()) -> dict[str, Any]:
    """Ranks of a test set: lanes {method: median ms}, and of the others why not."""
    result = hold_rank_contest(RankCase(*case), SUITES["steps"].effort, tell, without)
    lanes = {name: 1e3 * lane.median for name, lane in result.lanes.items()}
    return {**_not_timed(result), "lanes": lanes}


def whole_batch(tell: Tell, case: list[Any], without: Sequence[str] = ()) -> dict[str, Any]:
    """A loss over all negatives: lanes {method: median ms}, and of the others why not."""
    situation = WholeBatchCase(*case)
    rivals = RIVALS[situation.loss] if situation.device == "cuda" else ()
    missing = {name: "not installed" for name in rivals if find_spec(module_of(name)) is None}
    names = [x for x in (GEMM, EAGER, OURS, *rivals) if x not in (*missing, *without)]
    effort = SUITES["steps" if situation.device == "cuda" else "checks"].effort
    result = hold_whole_batch_contest(situation, effort, names, tell)
    lanes = {name: 1e3 * lane.median for name, lane in result.lanes.items()}
    return {**_not_timed(result), "refused": missing, "lanes": lanes}


def _parts(method: Loss) -> dict[str, Tensor]:
    """Everything a step answers, by name."""
    outcome = method.outcome()
    assert outcome.gradients is not None
    grads = dict(zip(("grad_image", "grad_text"), outcome.gradients, strict=True))
    return {"loss": outcome.value, **grads, **outcome.hardest._asdict()}


def _require_equal(found: dict[str, Tensor], expected: dict[str, Tensor], what: str) -> None:
    wrong = [name for name, value in expected.items() if not torch.equal(found[name], value)]
    assert not wrong, f"{what}: {', '.join(wrong)} differ"


def _repeat(name: str, method: Loss, tell: Tell) -> None:
    """The same bits again: repeated, on another stream, on other grids."""
    first = _parts(method)
    for rerun in range(1, RERUNS if method.image.is_cuda else 2):
        tell(name)
        _require_equal(_parts(method), first, f"rerun {rerun}")
    if method.image.is_cuda:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            found = _parts(method)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        _require_equal(found, first, "second stream")
    counts = PROGRAM_COUNTS if method.image.is_cuda else PROGRAM_COUNTS[-1:]
    for programs in counts if has_programs(name) else ():
        tell(name)
        with using(name, programs):
            _require_equal(_parts(method), first, f"{programs} programs")


def repeated(tell: Tell, case: dict[str, Any], without: Sequence[str] = ()) -> dict[str, Any]:
    """Every method of the library: results that do not depend on the run, the stream, the grid."""
    situation, result, passed = Case(**case), ContestResult(), []
    inputs = make_inputs(situation)
    with float32_precision(situation.precision):
        for name, verdict in line_up(situation, _suite(Effort(0.0, 1, 1), ways=())):
            if name in BASELINES or name in without or not verdict.ok:
                continue
            tell(name)
            with result.attempt(name), using(name):
                method = make_method(name, situation, inputs)
                assert isinstance(method, Loss)
                _repeat(name, method, tell)
                passed.append(name)
    return {**_not_timed(result), "passed": passed}


def pytest_files(tell: Tell, files: Sequence[str], without: Sequence[str] = ()) -> dict[str, Any]:
    """Files of the test suite, each in a process of its own. A line of output is a heartbeat."""
    passed, failures = [], {}
    for name in files:
        if name in without:
            continue
        command = [sys.executable, "-m", "pytest", "-v", *name.split()]
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                tell(name)
                lines.append(line)
        if process.returncode in (0, 5):  # 5: nothing of it is for this machine
            passed.append(name)
        else:
            failures[name] = "".join(lines)[-ERROR_LENGTH:]
    return {"passed": passed, "failures": failures}


def fault(tell: Tell, names: Sequence[str], without: Sequence[str] = ()) -> dict[str, Any]:
    """Go wrong in turn as each name says, so that a dry run proves what a broken kernel costs."""
    remaining = [name for name in names if name not in without]
    for name in remaining:
        tell(name)
        if name == "hang":
            time.sleep(3600)
        if name == "crash":
            os.abort()
        if name == "error":
            raise RuntimeError("an error on purpose")
    return {"passed": remaining}


WORK: dict[str, Callable[..., dict[str, Any]]] = {
    work.__name__: work
    for work in (describe, tile_scores, contest, ranks, whole_batch, repeated, pytest_files, fault)
}
"""Kind of a job -> function(tell, **arguments) -> dict. `tell(name)` is the heartbeat."""


def perform(kind: str, arguments: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """The reply to a job: status, result, error, and whether this process must end.

    Kernels run behind the host's back, so a job ends with a synchronisation, which makes an error
    that has not shown yet this job's and not the next one's.
    """
    try:
        result = WORK[kind](tell, **arguments)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
    except Exception as error:
        message = describe_error(error)
        traceback.print_exc(file=sys.stderr)
        return {"status": FAILED, "result": {}, "error": message, "fatal": device_is_lost()}
    return {"status": OK, "result": result, "error": "", "fatal": False}


def serve(jobs: TextIO, channel: TextIO) -> None:
    """Answer one job after the other until there are no more or the device is lost."""

    def send(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    send({"at": ""})  # imports are done: the watchdog's clock for the first job starts here
    for line in jobs:
        job = json.loads(line)
        reply = perform(job["kind"], job["arguments"], lambda name: send({"at": name}))
        send(reply)
        if reply["fatal"]:
            return


def main() -> None:
    """Serve standard input; what libraries print goes to the log that is standard error."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if os.environ.get("TRITON_INTERPRET") and find_spec("triton"):
        importlib.import_module("triton.runtime.interpreter")
        quicken()
    serve(sys.stdin, channel)


if __name__ == "__main__":
    main()
