"""Build, verify and measure on a machine with an NVIDIA GPU, without a network.

python -m tools.gpu_session                          results go to bench/results/<gpu>/
python -m tools.gpu_session --stages first,checks    some stages; run again for the others
python -m tools.gpu_session --dry-run                on the processor, in Triton's interpreter

Every job is kept in DIR/gpu_session.jsonl as soon as it is done, and what is kept there is not done
again: a session that was interrupted, or whose machine is lent for some minutes at a time, goes on.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from bench import command_parser
from bench.machine import RESULTS, commit, results_folder
from goal_kernels.data.files import write_text
from tools.gpu_session.plan import BUILD, DRY, REAL, STAGES, Scale, Size, plan
from tools.gpu_session.report import failed, render
from tools.gpu_session.watchdog import (
    BAD,
    CUT,
    FAILED,
    OK,
    ROOT,
    SKIPPED,
    Job,
    Reply,
    Watched,
    end_group,
)

NAME = "gpu_session"
STAGE_SECONDS = 600.0
OUTPUT_TAIL = 3000
INTERRUPTED = 130
STOPPING = (signal.SIGINT, signal.SIGTERM)

FAULTS_VARIABLE = "GPU_SESSION_FAULTS"
"""Faults to plan into a dry run, separated by commas: names that `work.fault` knows."""

FAULT_PATIENCE = 2.0


class Journal:
    """The session and its records, a line of JSON each, appended as they come.

    Of a job that was done again the last record counts. Raises: ValueError when the file is of
    another commit, or of the other kind of session (dry or real).
    """

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().split("\n")[:-1] if path.exists() else []  # the last was torn
        before, *records = [json.loads(line) for line in lines] or [head]
        for key in ("dry_run", "commit"):
            if before[key] != head[key]:
                raise ValueError(
                    f"--out: {path} has {key} {before[key]}, this is {head[key]}; choose another "
                    "folder, or delete the file to start anew"
                )
        self._records = {(r["stage"], r["title"]): r for r in records}
        write_text(path, "".join(json.dumps(x) + "\n" for x in (head, *self.records)))
        self._stream = path.open("a")

    @property
    def records(self) -> list[dict[str, Any]]:
        """The last one of every job."""
        return list(self._records.values())

    def add(self, record: dict[str, Any]) -> None:
        """Keep a record."""
        self._records[record["stage"], record["title"]] = record
        self._stream.write(json.dumps(record) + "\n")
        self._stream.flush()

    def has(self, stage: str, title: str) -> bool:
        """Whether a job has been done well."""
        return self._records.get((stage, title), {}).get("status") == OK


def build_commands() -> tuple[Sequence[str], ...]:
    """One is enough: the project's own; CMake where setuptools is too old."""
    folder = ROOT / "build" / NAME
    configure = (
        "import pybind11, subprocess, sys;"
        f"subprocess.run(['cmake', '--fresh', '-S{ROOT}', '-B{folder}',"
        "'-DGOAL_KERNELS_EMULATION=OFF',"
        f"'-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={ROOT / 'goal_kernels'}',"
        "'-DPython_EXECUTABLE=' + sys.executable,"
        "'-Dpybind11_DIR=' + pybind11.get_cmake_dir()], check=True);"
        f"subprocess.run(['cmake', '--build', '{folder}', '--parallel'], check=True)"
    )
    return (
        (sys.executable, "setup.py", "build_ext", "--inplace"),
        (sys.executable, "-c", configure),
    )


def build(seconds: float) -> Reply:
    """The native extension, in place; without it everything but native backends runs."""
    environment = {**os.environ, "GOAL_KERNELS_EMULATION": "OFF"}
    if shutil.which("ninja") is None:
        environment.setdefault("CMAKE_GENERATOR", "Unix Makefiles")
    environment.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count() or 1))
    end, printed = time.monotonic() + seconds, []
    for command in build_commands():
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            output = f"not done after {seconds:.0f} s"
        finally:
            end_group(process)
        if process.returncode == 0:
            return Reply(OK)
        printed.append(output[-OUTPUT_TAIL:])
    return Reply(FAILED, error="\n---\n".join(printed))


def worker_environment(device: str, cache: str) -> dict[str, str]:
    """Environment of a worker: imports from this tree; cache: an empty folder."""
    paths = [str(ROOT), str(ROOT / "python_tests"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    # Read when Triton's kernels are imported: interpreted without a GPU, compiled with one.
    environment.pop("TRITON_INTERPRET", None)
    if device == "cpu":
        return {**environment, "TRITON_INTERPRET": "1"}
    return {**environment, "TRITON_CACHE_DIR": cache, "TORCHINDUCTOR_CACHE_DIR": cache}


class Session:
    """The stages that were asked for, each within `seconds`; say prints a line of progress."""

    def __init__(self, journal: Journal, scale: Scale, seconds: float, say: Callable[[str], None]):
        self.journal = journal
        self.scale = scale
        self.seconds = seconds
        self.say = say
        self.began = time.monotonic()

    def run(self, stages: Sequence[str], sizes: Sequence[Size]) -> None:
        """Raises: whatever interrupts it, after ending every process."""
        with tempfile.TemporaryDirectory(prefix="gpu-session-") as cache:
            watched = Watched(worker_environment(self.scale.device, cache))
            try:
                for stage in stages:
                    if stage == BUILD:
                        start = time.monotonic()
                        self.note(stage, Job(BUILD, "native extension"), build(self.seconds), start)
                    else:
                        self._run_stage(stage, self._jobs(stage, sizes), watched)
            finally:
                watched.close()

    def _jobs(self, stage: str, sizes: Sequence[Size]) -> list[Job]:
        jobs = plan(stage, self.scale, sizes)
        faults = os.environ.get(FAULTS_VARIABLE, "")
        if stage == "first" and faults and self.scale.device == "cpu":
            arguments = {"names": ["sound", *faults.split(",")]}
            jobs.append(Job("fault", "faults on purpose", arguments, FAULT_PATIENCE))
        return [job for job in jobs if not self.journal.has(stage, job.title)]

    def _run_stage(self, stage: str, jobs: Sequence[Job], watched: Watched) -> None:
        """Do the jobs in order; those that are not begun in time are skipped."""
        end = time.monotonic() + self.seconds
        self.say(f"{stage}: {len(jobs)} jobs, at most {self.seconds:.0f} s")
        for job in jobs:
            start = time.monotonic()
            if start >= end:
                self.note(stage, job, Reply(SKIPPED, error="no time was left"), start)
            else:
                self.note(stage, job, watched.run_with_retries(job, end), start)

    def note(self, stage: str, job: Job, reply: Reply, start: float) -> None:
        """Keep and print what became of a job."""
        now = time.monotonic()
        record = {
            "stage": stage,
            "kind": job.kind,
            "title": job.title,
            "arguments": job.arguments,
            "status": reply.status,
            "result": reply.result,
            "error": reply.error,
            "at": round(start - self.began, 3),
            "seconds": round(now - start, 3),
        }
        self.journal.add(record)
        if reply.status == SKIPPED:
            return
        word = FAILED if failed(record) and reply.status not in BAD else reply.status
        self.say(f"[{now - self.began:6.1f} s] {word}, {now - start:.1f} s: {job.title}")
        for name, why in reply.result.get("failures", {}).items():
            self.say(f"           {name}: {why}")
        if reply.error and reply.status != CUT:
            self.say(f"           {reply.error}")


def parse_sizes(text: str) -> list[Size]:
    """ "4096x512,128x512" -> [(4096, 512), (128, 512)]."""
    try:
        pairs = [tuple(map(int, part.split("x"))) for part in text.split(",")]
        return [(batch, width) for batch, width in pairs]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected BxD, such as 4096x512, got {text!r}") from None


def parse_stages(text: str) -> list[str]:
    """Names of stages, in the order of the plan."""
    names, known = text.split(","), (BUILD, *STAGES)
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(known)}, got {name!r}")
    return [name for name in known if name in names]


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = command_parser("tools.gpu_session", __doc__)
    everything = ",".join((BUILD, *STAGES))
    parser.add_argument(
        "--stages", type=parse_stages, default=[BUILD, *STAGES], help=f"default: {everything}"
    )
    parser.add_argument("--sizes", type=parse_sizes, default=[], help="only these, as BxD,BxD")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: bench/results/<gpu>")
    parser.add_argument(
        "--budget", type=float, default=STAGE_SECONDS, help="seconds of a stage (%(default)s)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="tiny sizes on the processor; figures mean nothing"
    )
    return parser


def choose_folder(out: Path | None, dry_run: bool) -> Path:
    """Where results go. Raises: ValueError when made-up figures would lie among real ones."""
    if out is None:
        if dry_run:
            return Path(tempfile.mkdtemp(prefix="gpu-session-"))
        return results_folder(torch.cuda.get_device_name())
    if dry_run and out.resolve().is_relative_to(RESULTS):
        raise ValueError(f"--out: a dry run does not write to {RESULTS}")
    return out


def stop(signal_number: int, frame: object) -> None:
    """Turn the first request to end into an exception, so that results are written."""
    for each in STOPPING:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def say(line: str) -> None:
    """Print at once, also into a pipe."""
    print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a session. 0: all well, 1: something failed, 2: it cannot run here, 130: interrupted."""
    parser = make_parser()
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    if not options.dry_run and not torch.cuda.is_available():
        say("no CUDA device here; --dry-run shows on the processor that the session works.")
        return 2
    command = shlex.join(["python", "-m", "tools.gpu_session", *given])
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    head = {"command": command, "date": date, "commit": commit(), "dry_run": options.dry_run}
    try:
        folder = choose_folder(options.out, options.dry_run)
        journal = Journal(folder / f"{NAME}.jsonl", head)
    except ValueError as error:
        parser.error(str(error))
    stages = [name for name in options.stages if not (options.dry_run and name == BUILD)]
    session = Session(journal, DRY if options.dry_run else REAL, options.budget, say)
    for each in STOPPING:
        signal.signal(each, stop)
    status = 0
    try:
        session.run(stages, options.sizes)
    except KeyboardInterrupt:
        say("interrupted; the same command goes on.")
        status = INTERRUPTED
    table = folder / f"{NAME}.md"
    write_text(table, render(head, journal.records))
    say(str(table))
    return status or int(any(failed(record) for record in journal.records))


if __name__ == "__main__":
    sys.exit(main())
