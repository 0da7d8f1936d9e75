"""The process that touches the GPU: a job a line comes in, signs of life and a reply go out.

It is meant to be lost: whatever hangs or breaks here is ended from outside (`watchdog.py`), and a
CUDA error, after which nothing of this process can be trusted, ends it from inside.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, TextIO

import torch
from interpreter_speed import quicken

from bench.gpu.jobs import FAILED, OK, WORK

ERROR_LENGTH = 2000
"""Characters of a message that are kept, from its end."""


def describe_error(error: BaseException) -> str:
    """Kind and message, and the place where it was raised."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = f"{type(error).__name__}: {error} ({os.path.basename(place.filename)}:{place.lineno})"
    return text[-ERROR_LENGTH:]


def device_is_lost() -> bool:
    """Whether an earlier kernel of this process failed; such an error never goes away."""
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def load_function(kind: str) -> Callable[..., dict[str, Any]]:
    """The function behind a kind of job."""
    module, _, name = WORK[kind].partition(":")
    function: Callable[..., dict[str, Any]] = getattr(importlib.import_module(module), name)
    return function


def perform(kind: str, arguments: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """The reply to a job: status, result, error, and whether this process must end.

    Kernels run behind the host's back, so a job ends with a synchronisation, which makes an error
    that has not shown yet this job's and not the next one's.
    """
    try:
        work = load_function(kind)
        quicken()  # of use to a dry run, once Triton has been imported
        result = work(tell, **arguments)
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
    serve(sys.stdin, channel)


if __name__ == "__main__":
    main()
