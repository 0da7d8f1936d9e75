"""The wheels of dist/ beside old and new torch and numpy, in fresh environments.

python -m tools.matrix                     every cell whose Python and wheel are here
python -m tools.matrix --only 3.13/2.15.0  one; the others keep the rows they have

Each cell is an environment in build/matrix with the wheel and nothing of this source tree but its
tests: the README's training loop as printed, and those of `TESTS`. Rows go to
bench/results/matrix.json, the table to docs/install.md. `make wheels` comes first; a cell downloads
up to 3 GB and takes minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import command_parser
from bench.machine import RESULTS, ROOT
from bench.report import update_readme
from goal_kernels.data.files import write_text
from goal_kernels.terminal import markdown_table

WORK = ROOT / "build" / "matrix"
FILE = RESULTS / "matrix.json"
PAGE = ROOT / "docs" / "install.md"
PART = "matrix"

TESTS = (
    "test_documents.py::test_python_runs_as_printed[README.md]",
    "test_golden.py",
    "test_reference.py",
    "test_package.py",
    "native/test_native_forward.py",
    "native/test_native_module.py",
)
SOURCES = ("python_tests", "README.md", "docs", "bench", "tools", "pyproject.toml", "mkdocs.yml")
"""What the tests read, without the package: that is to come from the wheel."""


class Cell(NamedTuple):
    """Versions that pip is told; `python` is that of the interpreter."""

    python: str
    torch: str
    numpy: str

    @property
    def name(self) -> str:
        """What `--only` takes, and the row in the results."""
        return f"{self.python}/{self.torch}"


CELLS = (
    Cell("3.10", "2.11.0", "1.26.4"),
    Cell("3.10", "2.14.1", "2.2.6"),
    Cell("3.11", "2.12.0", "2.0.2"),
    Cell("3.11", "2.13.0", "2.4.6"),
    Cell("3.12", "2.14.1", "2.3.5"),
    Cell("3.13", "2.15.0", "2.4.6"),
)
"""Oldest and newest of each, and each version once. torch 2.15 is not made for Python 3.10."""

ASK = """
import importlib.metadata as metadata, json, platform
import goal_kernels as gk
names = ("torch", "numpy", "triton")
row = {name: metadata.version(name) for name in names}
row |= {"python": platform.python_version(), "backends": gk.available_backends()}
row |= {"package": gk.__file__, "isa": gk.native.build_info()["isa"]}
print(json.dumps(row))
"""


def wheel_for(python: str, folder: Path) -> Path:
    """The wheel of a version of Python. Raises: FileNotFoundError with the remedy."""
    tag = f"cp{python.replace('.', '')}"
    found = sorted(folder.glob(f"goal_kernels-*-{tag}-{tag}-*.whl"))
    if not found:
        raise FileNotFoundError(f"{folder}: no wheel for Python {python}; run `make wheels` first")
    return found[-1]


def lay_out_tests(folder: Path) -> None:
    """A copy of what the tests read, in which the package is not."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)


def run_cell(cell: Cell, wheel: Path, keep: bool) -> dict[str, Any]:
    """Install and test; the row. What fails is in the row, and whole in build/matrix/*.log."""
    environment, tests = WORK / cell.name.replace("/", "-"), WORK / "tests"
    shutil.rmtree(environment, ignore_errors=True)
    subprocess.run([f"python{cell.python}", "-m", "venv", str(environment)], check=True)
    python = str(environment / "bin" / "python")
    versions = [f"torch=={cell.torch}", f"numpy=={cell.numpy}"]
    install = [python, "-m", "pip", "install", "--quiet", "--no-compile"]
    install += [str(wheel), "pytest", *versions]
    inside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    row: dict[str, Any] = {"torch": cell.torch, "numpy": cell.numpy, "wheel": wheel.name}
    log = WORK / f"{environment.name}.log"
    started = time.monotonic()
    with log.open("w") as stream:
        told = {"cwd": tests, "env": inside, "stdout": stream, "stderr": stream}
        installed = subprocess.run(install, **told).returncode == 0
        row["result"] = "not installed"
        if installed:
            asked = subprocess.run([python, "-c", ASK], cwd=tests, env=inside, capture_output=True)
            stream.write(asked.stderr.decode())
            row["result"] = "does not import"
            if asked.returncode == 0:
                row |= json.loads(asked.stdout)
                assert row.pop("package").startswith(str(environment)), "not the wheel's package"
                paths = [f"python_tests/{test}" for test in TESTS]
                test = [python, "-m", "pytest", "-p", "no:cacheprovider", *paths]
                status = subprocess.run(test, **told).returncode
                row["result"] = "passes" if status == 0 else "fails"
    row["tests"] = log.read_text().strip().rpartition("\n")[2]
    row["seconds"] = round(time.monotonic() - started)
    row["date"] = time.strftime("%Y-%m-%d")
    if not keep:
        shutil.rmtree(environment)
    return row


def render(rows: dict[str, dict[str, Any]]) -> str:
    """The Markdown table of all rows."""
    heads = ["Python", "torch", "triton", "numpy", "wheel, README and tests", "date"]
    cells = []
    for name, row in sorted(
        rows.items(), key=lambda item: [int(x) for x in item[0].replace("/", ".").split(".")]
    ):
        python = row.get("python", name.partition("/")[0])
        versions = [python, row["torch"], row.get("triton", ""), row["numpy"]]
        cells.append([*versions, f"{row['result']}: {row['tests']}", row["date"]])
    table = markdown_table(heads, cells, len(heads))
    return "\n".join([table, "", "`make wheels`, then `python -m tools.matrix`, on Linux x86-64."])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cells; 0, or 1 when one does not pass, 2 when there is nothing to run."""
    parser = command_parser("tools.matrix", __doc__)
    parser.add_argument("--only", action="append", metavar="PYTHON/TORCH", help="may be repeated")
    parser.add_argument("--wheels", type=Path, default=ROOT / "dist", metavar="DIR")
    parser.add_argument("--keep", action="store_true", help="keep the environments")
    options = parser.parse_args(arguments)
    chosen = [cell for cell in CELLS if not options.only or cell.name in options.only]
    if not chosen:
        print(f"python -m tools.matrix: expected one of {[c.name for c in CELLS]}", file=sys.stderr)
        return 2
    lay_out_tests(WORK / "tests")
    failed = 0
    for cell in chosen:
        if subprocess.run([f"python{cell.python}", "-c", ""], stderr=subprocess.DEVNULL).returncode:
            print(f"{cell.name}: no python{cell.python} here, left out")
            continue
        row = run_cell(cell, wheel_for(cell.python, options.wheels), options.keep)
        rows = json.loads(FILE.read_text()) if FILE.exists() else {}
        rows[cell.name] = row
        print(f"{cell.name}, numpy {cell.numpy}: {row['result']}, {row['tests']}", flush=True)
        failed += row["result"] != "passes"
        write_text(FILE, json.dumps(rows, indent=2) + "\n")
        update_readme(PAGE, render(rows), PART)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
