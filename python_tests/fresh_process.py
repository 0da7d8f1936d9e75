"""Programs in processes of their own that have imported torch and nothing else.

Importing torch takes longer than most of these programs, so one process does it and is forked for
each of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

SERVER = """
import json, os, sys, traceback, warnings
import torch

for line in sys.stdin:
    program, arguments, environment, folder, files = json.loads(line)
    child = os.fork()
    if child == 0:
        for descriptor, file in enumerate(files, start=1):
            os.dup2(os.open(file, os.O_WRONLY), descriptor)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        sys.argv = ["-c", *arguments]
        sys.path.insert(0, folder)
        warnings.simplefilter("ignore")
        status = 0
        try:
            exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
        except SystemExit as end:
            status = end.code
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status or 0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Done(NamedTuple):
    """How a program ended: its exit status, or minus the signal that ended it, and what it said."""

    returncode: int
    stdout: str
    stderr: str


@cache
def _server() -> subprocess.Popen[str]:
    """Ends with this process, which holds its standard input."""
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", SERVER], stdin=pipe, stdout=pipe, text=True)


def run_fresh(
    program: str,
    *arguments: str | int | Path,
    environment: Mapping[str, str | None] | None = None,
    folder: str | Path = ".",
) -> Done:
    """Run a program in a process that has imported torch, warnings ignored.

    Args: environment: variables that differ from those of this process, None: not set.
    """
    changed = {**os.environ, **(environment or {})}
    variables = {name: value for name, value in changed.items() if value is not None}
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as temporary:
        files = [Path(temporary, name) for name in ("stdout", "stderr")]
        for file in files:
            file.touch()
        task = program, list(map(str, arguments)), variables, str(Path(folder).absolute())
        server.stdin.write(json.dumps([*task, list(map(str, files))]) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        return Done(status, *(file.read_text() for file in files))
