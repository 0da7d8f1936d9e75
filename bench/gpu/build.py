"""The native extension, built in place: no network, no installation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence

from bench.gpu.watchdog import ROOT, end_group

OUTPUT_TAIL = 3000
FOLDER = ROOT / "build" / "gpu_session"
"""Of the second attempt; setup.py has its own."""


def attempts() -> tuple[Sequence[str], ...]:
    """Commands, one is enough: the project's own; CMake where setuptools is too old."""
    configure = (
        "import pybind11, subprocess, sys;"
        f"subprocess.run(['cmake', '--fresh', '-S{ROOT}', '-B{FOLDER}',"
        f"'-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={ROOT / 'goal_kernels'}',"
        "'-DPython_EXECUTABLE=' + sys.executable,"
        "'-Dpybind11_DIR=' + pybind11.get_cmake_dir()], check=True);"
        f"subprocess.run(['cmake', '--build', '{FOLDER}', '--parallel'], check=True)"
    )
    return (
        (sys.executable, "setup.py", "build_ext", "--inplace"),
        (sys.executable, "-c", configure),
    )


def run_command(command: Sequence[str], seconds: float) -> tuple[bool, str]:
    """Run a build. Returns: whether it worked within the time, and the end of what it printed."""
    environment = dict(os.environ)
    if shutil.which("ninja") is None:
        environment.setdefault("CMAKE_GENERATOR", "Unix Makefiles")
    environment.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count() or 1))
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
        output, _ = process.communicate(timeout=max(0.0, seconds))
    except subprocess.TimeoutExpired:
        end_group(process)
        return False, f"not done after {seconds:.0f} s"
    except BaseException:
        end_group(process)
        raise
    return process.returncode == 0, output[-OUTPUT_TAIL:]


def build_native(seconds: float) -> tuple[bool, str]:
    """Build within so many seconds. Returns: whether it worked, and what was printed if not.

    Without it everything but the native backends runs all the same.
    """
    end = time.monotonic() + seconds
    printed = []
    for command in attempts():
        good, output = run_command(command, end - time.monotonic())
        if good:
            return True, ""
        printed.append(output)
    return False, "\n---\n".join(printed)
