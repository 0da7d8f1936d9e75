"""What can be said of the CUDA stages without a GPU: registers and memory of their machine code."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from goal_kernels import native

USAGE = re.compile(
    r"Function (?P<name>\S+):\s+REG:(?P<registers>\d+) STACK:(?P<stack>\d+) SHARED:(?P<shared>\d+) "
    r"LOCAL:(?P<local>\d+)"
)
REGISTERS = {"Scoring": 128}
"""Most registers a thread of each stage may have."""


@cache
def usages() -> list[dict[str, str]]:
    """Resource usage of every kernel."""
    if not native.build_info()["cuda"]["built"]:
        pytest.skip("built without CUDA")
    tool = shutil.which("cuobjdump")
    if tool is None:  # Triton brings one along
        triton = pytest.importorskip("triton")
        tool = str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump")
    command = [tool, "-res-usage", native.load().__file__]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [match.groupdict() for match in USAGE.finditer(text)]


@pytest.mark.parametrize("stage", REGISTERS)
def test_no_stage_spills(stage) -> None:
    found = [usage for usage in usages() if stage in usage["name"]]
    assert found
    for usage in found:
        assert (usage["stack"], usage["local"]) == ("0", "0"), usage
        assert int(usage["registers"]) <= REGISTERS[stage], usage
