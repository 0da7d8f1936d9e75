"""Runs the stages of a session one after the other, within its time, whatever breaks on the way."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from bench.gpu.build import build_native
from bench.gpu.check_plan import check_plan
from bench.gpu.faults import FAULTS
from bench.gpu.jobs import BAD, CUT, FAILED, OK, SKIPPED, Job, Reply
from bench.gpu.planning import Planned, State, open_to_all
from bench.gpu.results import Journal, Record
from bench.gpu.sampler import Sampler
from bench.gpu.speed_plan import (
    memory_plan,
    product_plan,
    rank_plan,
    rival_check_plan,
    rival_plan,
    speed_plan,
)
from bench.gpu.watchdog import ROOT, Watched

FAULTS_VARIABLE = "GPU_SESSION_FAULTS"
"""Faults to plan into a dry run, separated by commas: see `faults.FAULTS`."""

FAULT_PATIENCE = 3.0
CLOSING_SECONDS = 10.0
"""Of the budget, for writing results."""


class Stage(NamedTuple):
    """A part of a session.

    share: of the budget; what a stage leaves over goes to the next ones. plan: made when the stage
    begins, from what is known then. parallel: whether jobs may run beside each other.
    """

    name: str
    share: float
    plan: Callable[[State], list[Planned]]
    parallel: bool = False


def _environment_plan(state: State) -> list[Planned]:
    arguments = {"device": state.scale.device, "copied": state.scale.copied}
    return open_to_all([Job("describe", "environment", arguments)])


def _fault_plan(state: State) -> list[Planned]:
    if state.scale.device != "cpu":
        return []
    chosen = [f for f in os.environ.get(FAULTS_VARIABLE, "").split(",") if f in FAULTS]
    names = ["sound", *chosen]
    jobs = [Job("fault", "faults on purpose", {"names": names}, patience=FAULT_PATIENCE)]
    return open_to_all(jobs if chosen else [])


BUILD = "build"
BUILD_SHARE = 0.15
ENVIRONMENT = "environment"
SPEED = "speed"
STAGES = (
    Stage(ENVIRONMENT, 0.05, _environment_plan),
    Stage("faults", 0.0, _fault_plan),
    Stage("products", 0.08, product_plan),
    Stage("correctness", 0.28, check_plan, parallel=True),
    Stage(SPEED, 0.30, speed_plan),
    Stage("ranks", 0.04, rank_plan),
    Stage("memory", 0.04, memory_plan),
    Stage("rival checks", 0.05, rival_check_plan),
    Stage("rivals", 0.05, rival_plan),
)


def worker_environment(device: str, workers: int) -> dict[str, str]:
    """Environment of a worker process: imports from this tree, its share of the cores."""
    paths = [str(ROOT), str(ROOT / "python_tests"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))
    # Read when Triton's kernels are imported: interpreted without a GPU, compiled with one.
    environment.pop("TRITON_INTERPRET", None)
    return {**environment, "TRITON_INTERPRET": "1"} if device == "cpu" else environment


def without_culprits(watched: Watched, job: Job, end: float) -> Reply:
    """Run a job; who breaks it is noted as failed, and the others get another try."""
    culprits: dict[str, str] = {}
    start = None
    while True:
        reply = watched.run(job, end)
        start = reply.start if start is None else start
        if not (reply.status in BAD and reply.at in job.arguments.get("names", ())):
            break
        culprits[reply.at] = f"{reply.status}: {reply.error}"
        job = job.without(reply.at)
        if not job.arguments["names"] or time.monotonic() >= end:
            reply = Reply(OK, end=reply.end)
            break
    if culprits:
        reply.result.setdefault("failures", {}).update(culprits)
    reply.start = start
    return reply


@dataclass
class Session:
    """One run. deadlines are `time.monotonic`; say prints a line of progress."""

    state: State
    journal: Journal
    budget: float
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self.began = time.monotonic()
        self.end = self.began + self.budget - CLOSING_SECONDS
        self._workers: list[Watched] = []
        self._sampler = Sampler()

    def run(self, build: bool) -> None:
        """All stages. Raises: whatever interrupts it, after ending every process."""
        share = BUILD_SHARE if build else 0.0
        whole = share + sum(stage.share for stage in STAGES)
        try:
            with self._sampler:
                if build:
                    self._build(share * self.budget)
                for stage in STAGES:
                    share += stage.share
                    deadline = self.began + share / whole * self.budget
                    self._run_stage(stage, min(self.end, deadline))
        finally:
            self._close_workers()

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began

    def _stamp(self) -> str:
        return f"[{self.elapsed:6.1f} s]"

    def _build(self, seconds: float) -> None:
        self.say(f"{self._stamp()} {BUILD}: native extension, up to {seconds:.0f} s")
        start = time.monotonic()
        good, output = build_native(seconds)
        reply = Reply(OK if good else FAILED, {}, output, "", start)
        reply.end = time.monotonic()
        self._note(Record.of(BUILD, Job(BUILD, "native extension"), reply, self.began))

    def _close_workers(self) -> None:
        for watched in self._workers:
            watched.retire()
        self._workers.clear()

    def _run_stage(self, stage: Stage, deadline: float) -> None:
        """Do the jobs of a stage in order; those that are not begun by `deadline` are skipped."""
        planned = stage.plan(self.state)
        if not planned:
            return
        scale = self.state.scale
        beside = stage.parallel or scale.device == "cpu"  # where nothing is measured
        most = min(scale.workers, os.cpu_count() or 1) if beside else 1
        count = min(most, len(planned))
        left = max(0.0, deadline - time.monotonic())
        self.say(f"{self._stamp()} {stage.name}: {len(planned)} jobs, {left:.0f} s")
        waiting: queue.SimpleQueue[Planned] = queue.SimpleQueue()
        for one in planned:
            waiting.put(one)
        self._hire(count)
        stop = threading.Event()
        threads = [
            threading.Thread(
                target=self._work_off, args=(stage, waiting, watched, deadline, stop), daemon=True
            )
            for watched in self._workers
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():  # an interrupt gets through between two waits
                    thread.join(0.2)
        except BaseException:
            stop.set()
            raise

    def _hire(self, count: int) -> None:
        """Keep so many workers; jobs that measure have the device to themselves."""
        for watched in self._workers[count:]:
            watched.retire()
        del self._workers[count:]
        environment = worker_environment(self.state.scale.device, count)
        self._workers += [Watched(environment) for _ in range(count - len(self._workers))]

    def _work_off(
        self,
        stage: Stage,
        waiting: queue.SimpleQueue[Planned],
        watched: Watched,
        deadline: float,
        stop: threading.Event,
    ) -> None:
        while not stop.is_set():
            try:
                job, barred = waiting.get_nowait()
            except queue.Empty:
                return
            now = time.monotonic()
            if now >= deadline:
                reply = Reply(SKIPPED, error="no time was left", start=now, end=now)
            elif barred and not job.arguments["names"]:
                reply = Reply(SKIPPED, error="nobody may take part", start=now, end=now)
            else:
                reply = without_culprits(watched, job, self.end)
            if stop.is_set():
                return
            self._learn(job, reply)
            record = Record.of(stage.name, job, reply, self.began)
            record.barred = barred
            window = reply.result.get("window")
            load = self._sampler.load(*window) if window else None
            record.load = load._asdict() if load else None
            self._note(record)

    def _learn(self, job: Job, reply: Reply) -> None:
        """What later stages need to know."""
        if job.relatives:
            self.state.gates.note(job, reply)
        if job.kind == "describe" and reply.status == OK:
            self.journal.findings.environment = reply.result
            self.state.variants = reply.result["variants"]
            self.state.rankers = reply.result["rankers"]

    def _note(self, record: Record) -> None:
        self.journal.add(record)
        if record.status == SKIPPED and not record.barred:
            return
        word = FAILED if record.bad and record.status not in BAD else record.status
        self.say(f"{self._stamp()}   {word}, {record.seconds:.1f} s: {record.title}")
        for name, why in record.result.get("failures", {}).items():
            self.say(f"             {name}: {why}")
        if record.error and record.status != CUT:
            self.say(f"             {record.error}")
