"""How the CUDA part is built: what an old toolkit gets, and what fails a compilation."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
COMPILE = ROOT / "csrc" / "cuda" / "compile.py"
SERIALISED = "ptxas info : (C7515) Potential Performance Loss: wgmma.mma_async are serialized"


def compiled(says: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """`compile.py` before a compiler that says something and exits with a status."""
    compiler = f"import sys; print({says!r}, file=sys.stderr); sys.exit({status})"
    command = [sys.executable, str(COMPILE), sys.executable, "-c", compiler]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_serialised_products_fail_the_build() -> None:
    done = compiled(SERIALISED)
    assert done.returncode == 1
    assert "error: (C7515)" in done.stderr


@pytest.mark.parametrize("status", [0, 2])
def test_other_messages_pass_through(status: int) -> None:
    done = compiled("ptxas info : Used 168 registers (C7600 is no loss)", status)
    assert done.returncode == status
    assert "Used 168 registers" in done.stdout


def configured(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """What CMake says of the source tree, which it does not compile."""
    if shutil.which("cmake") is None or shutil.which("nvcc") is None:
        pytest.skip("needs cmake and nvcc")
    pybind11 = importlib.util.find_spec("pybind11")
    if pybind11 is None or pybind11.origin is None:
        pytest.skip("needs pybind11")
    command = [
        *("cmake", f"-S{ROOT}", f"-B{folder}", f"-DPython_EXECUTABLE={sys.executable}"),
        f"-Dpybind11_DIR={Path(pybind11.origin).parent / 'share' / 'cmake' / 'pybind11'}",
        *options,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_old_toolkit_is_left_out_with_a_reason(tmp_path) -> None:
    """As a newer one than there is would be asked for."""
    old = "-DGOAL_KERNELS_OLDEST_NVCC=99.1"
    done = configured(tmp_path, old)
    assert done.returncode == 0, done.stderr
    assert "CUDA OFF (nvcc " in done.stdout
    assert "is older than 99.1)" in done.stdout
    done = configured(tmp_path, old, "-DGOAL_KERNELS_CUDA=ON")  # compilers are known now
    assert done.returncode != 0
    assert "99.1" in done.stderr
