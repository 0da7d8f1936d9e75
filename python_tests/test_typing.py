"""A user's type checker sees the library, also where it is installed as editable."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_mypy_sees_the_types_through_an_editable_install(tmp_path: Path) -> None:
    """From another folder, in an environment where a path in a .pth file is all there is."""
    pytest.importorskip("mypy")
    pytest.importorskip("setuptools")
    tree, wheels = tmp_path / "tree", tmp_path / "wheels"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "goal_kernels"):
        (tree / name).symlink_to(ROOT / name)  # without setup.py: nothing to compile
    build = f"from setuptools import build_meta; build_meta.build_editable({str(wheels)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=tree, check=True, capture_output=True)
    venv.create(tmp_path / "venv", symlinks=True)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (wheel,) = wheels.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(packages)
    (packages / "torch.pth").write_text(str(Path(torch.__file__).parent.parent))
    snippet = tmp_path / "snippet.py"
    snippet.write_text((ROOT / "python_tests/typed_use.py").read_text())
    found = subprocess.run(
        [
            # The options of `make lint`, whose cache then holds what torch declares.
            *(sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")),
            *("--python-executable", str(tmp_path / "venv/bin/python")),
            *("--cache-dir", str(ROOT / ".mypy_cache"), str(snippet)),
        ],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
