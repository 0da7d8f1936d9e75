"""The extension on processors other than x86: no option and no header of theirs."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CROSS = "aarch64-linux-gnu-g++"


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Source -> how CMake compiles it for aarch64; this machine's compiler serves for that."""
    pybind11 = pytest.importorskip("pybind11")
    pytest.importorskip("cmake")
    build = tmp_path_factory.mktemp("aarch64")
    configure = [
        *(sys.executable, "-m", "cmake", "-S", str(ROOT), "-B", str(build), "-G", "Unix Makefiles"),
        *("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"),
        "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        *("-DGOAL_KERNELS_CUDA=OFF", "-DGOAL_KERNELS_EMULATION=OFF"),
        f"-DCMAKE_CXX_COMPILER={shutil.which(CROSS) or shutil.which('g++') or 'c++'}",
    ]
    done = subprocess.run(configure, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = json.loads((build / "compile_commands.json").read_text())
    return {str(Path(each["file"]).relative_to(ROOT)): each["command"] for each in written}


def test_no_option_of_x86_and_every_source(commands: dict[str, str]) -> None:
    for source, command in commands.items():
        options = shlex.split(command)
        assert not [o for o in options if o.startswith("-m")], source
        assert "-DGOAL_KERNELS_X86" not in options
    present = {str(p.relative_to(ROOT)) for p in (ROOT / "csrc/cpu").glob("*.cpp")}
    assert present - set(commands) == {"csrc/cpu/kernels_bfloat16.cpp"}  # AVX512_BF16 alone


@pytest.mark.parametrize("source", ["csrc/cpu/isa.cpp", "csrc/cpu/row_kernel.cpp"])
def test_sources_compile_without_x86(source: str, commands: dict[str, str]) -> None:
    """For aarch64 where that compiler is here, else as the portable code of this machine."""
    words = shlex.split(commands[source])
    checked = [*words[: words.index("-o")], "-fsyntax-only", str(ROOT / source)]
    done = subprocess.run(checked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
