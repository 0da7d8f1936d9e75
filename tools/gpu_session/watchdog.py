"""Runs a worker process that may hang or crash: watches, ends and restarts it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
COMMAND = (sys.executable, "-m", "tools.gpu_session.work")

OK = "ok"
FAILED = "failed"
TIMED_OUT = "timed out"
CRASHED = "crashed"
CUT = "cut short"
SKIPPED = "skipped"
BAD = (FAILED, TIMED_OUT, CRASHED)
"""What makes the session fail. A job cut short or skipped for lack of time does not."""

PATIENCE = 60.0
"""Seconds without a heartbeat after which a job counts as hung: several compilations."""

START_PATIENCE = 120.0
"""Seconds that a process has to import everything, on a cold disk too."""

END_PATIENCE = 15.0
"""Seconds that the driver has to clean up after a process that was killed."""

OVER = "the time of its stage was over"
LOG_TAIL = 2000
"""Characters of the process's log that explain a crash."""


@dataclass(frozen=True)
class Job:
    """One unit of work for the worker.

    kind: name of a function in `work`. arguments: JSON values for it; "without" lists methods to
    leave out. patience: seconds between heartbeats.
    """

    kind: str
    title: str
    arguments: dict[str, Any] = field(default_factory=dict)
    patience: float = PATIENCE


@dataclass
class Reply:
    """What became of a job. at: the method at work last. error: empty when all is well."""

    status: str
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    at: str = ""


def end_group(process: subprocess.Popen[str]) -> None:
    """End a process and all that it started; one stuck in the driver is left to the system."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_PATIENCE)


class Watched:
    """One worker, started when first needed and again after each loss. One job at a time.

    environment: of the process. command: another program that speaks the same lines, for tests.
    """

    def __init__(self, environment: Mapping[str, str], command: tuple[str, ...] = COMMAND) -> None:
        self._environment = dict(environment)
        self._command = command
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - as long as we live
        self.starts = 0

    def _start(self) -> subprocess.Popen[str]:
        self._log.seek(0)
        self._log.truncate()
        process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,  # so that an interrupt reaches it through us alone
        )
        # A queue of its own: a late line of a lost process must not answer for the next one.
        lines: queue.Queue[str | None] = queue.Queue()
        self._lines = lines

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        self._process = process
        self.starts += 1
        return process

    def _log_tail(self) -> str:
        size = os.fstat(self._log.fileno()).st_size
        data = os.pread(self._log.fileno(), LOG_TAIL, max(0, size - LOG_TAIL))
        return data.decode(errors="replace").strip()

    def close(self) -> None:
        """End the process if there is one; the next job starts another."""
        if self._process is not None:
            end_group(self._process)
            self._process = None

    def run(self, job: Job, end: float) -> Reply:
        """Do one job; never raises for what the job does.

        end: `time.monotonic` at which all is over, whatever the job is at.
        """
        at, patience = "", job.patience
        process = self._process
        try:
            if process is None:
                process = self._start()
                self._await(START_PATIENCE, end)
            assert process.stdin is not None
            process.stdin.write(json.dumps(asdict(job)) + "\n")
            process.stdin.flush()
            while True:
                message = self._await(patience, end)
                if "status" in message:
                    break
                at = message["at"]
        except queue.Empty:
            over = time.monotonic() >= end
            self.close()
            if over:
                return Reply(CUT, error=OVER, at=at)
            return Reply(TIMED_OUT, error=f"no heartbeat for {patience:.0f} s", at=at)
        except (EOFError, BrokenPipeError, json.JSONDecodeError):
            assert process is not None
            self.close()
            error = f"the process ended with status {process.returncode}: {self._log_tail()}"
            return Reply(CRASHED, error=error, at=at)
        if message.pop("fatal"):
            self.close()
            return Reply(CRASHED, message["result"], message["error"], at)
        return Reply(message["status"], message["result"], message["error"], at)

    def _await(self, patience: float, end: float) -> dict[str, Any]:
        """The next message. Raises: queue.Empty when it takes too long, EOFError at the end."""
        line = self._lines.get(timeout=max(0.0, min(patience, end - time.monotonic())))
        if line is None:
            raise EOFError
        message: dict[str, Any] = json.loads(line)
        return message

    def run_with_retries(self, job: Job, end: float) -> Reply:
        """Run a job; record a method that breaks the process as failed, retry the others."""
        broken: dict[str, str] = {}
        while True:
            reply = self.run(job, end)
            if reply.status not in BAD or not reply.at or reply.at in broken:
                break
            broken[reply.at] = f"{reply.status}: {reply.error}"
            job = replace(job, arguments={**job.arguments, "without": list(broken)})
            if time.monotonic() >= end:
                reply = Reply(CUT, error=OVER)
                break
        if broken:
            reply.result.setdefault("failures", {}).update(broken)
        return reply
