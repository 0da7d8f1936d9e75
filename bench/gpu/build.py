"""The native extension, built in place: no network, no installation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from bench.gpu.watchdog import ROOT, end_group

COMMAND = (sys.executable, "setup.py", "build_ext", "--inplace")
OUTPUT_TAIL = 3000


def build_native(seconds: float) -> tuple[bool, str]:
    """Build within so many seconds. Returns: whether it worked, and the end of what was printed.

    Without it everything but the native backends runs all the same.
    """
    environment = dict(os.environ)
    if shutil.which("ninja") is None:
        environment.setdefault("CMAKE_GENERATOR", "Unix Makefiles")
    environment.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count() or 1))
    process = subprocess.Popen(
        COMMAND,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        end_group(process)
        return False, f"not done after {seconds:.0f} s"
    except BaseException:
        end_group(process)
        raise
    return process.returncode == 0, output[-OUTPUT_TAIL:]
