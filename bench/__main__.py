"""Measure, check and report: the whole benchmark suite in one command."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import command_parser
from bench.cases import DEFAULT_SUITE, PRECISIONS, SUITES
from bench.machine import results_folder
from bench.report import BENCH, LAST_RUN, write_report
from bench.results import busy_warning, read_run
from bench.tables import render_short

EPILOG = """\
Every method of a case (X @ Y.T alone, eager torch, torch.compile, pytorch-metric-learning, the
backends) is checked against float64 and then timed in turns with the others. What is written: the
raw JSON, a tidy CSV, a Markdown table of every case and of the targets, and a plot. Leave the
machine alone while it runs.

  python -m bench                       quick suite, some minutes
  python -m bench --full                B = 32 to 8192 and more rounds, about twenty minutes
  python -m bench --smoke               checks that everything runs; figures mean nothing
  python -m bench -k "4096x1024 and float32"   only cases whose name matches the expression
  python -m bench --precision high      float32 products at this precision only
  python -m bench --device cuda         on a GPU
  python -m bench.report --update-readme docs/speed.md   puts the last run's table into that page
"""


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = command_parser("bench", __doc__, EPILOG)
    size = parser.add_mutually_exclusive_group()
    for suite in SUITES:
        size.add_argument(
            f"--{suite}", dest="suite", action="store_const", const=suite, default=DEFAULT_SUITE
        )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), metavar="N")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        action="append",
        default=[],
        help="of float32 products, for every method; may be repeated (default: highest and high)",
    )
    parser.add_argument("-k", dest="expression", default="", help="only cases whose name matches")
    parser.add_argument("--json", type=Path, help=f"raw results (default: {LAST_RUN})")
    parser.add_argument("--out", type=Path, help="folder of the report (default: by device)")
    return parser


def pytest_command(options: argparse.Namespace, raw: Path) -> list[str]:
    """The pytest call that measures."""
    return [
        *(sys.executable, "-m", "pytest", "-c", str(BENCH / "pytest.ini"), str(BENCH), "-q"),
        *("--suite", options.suite, "--device", options.device),
        *("--threads", str(options.threads)),
        *(f"--precision={precision}" for precision in options.precision),
        *("-k", options.expression, f"--benchmark-json={raw}"),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; pytest's exit status, which is not 0 when a method failed."""
    options = make_parser().parse_args(arguments)
    # Only a complete run may replace published results.
    partial = "smoke" if options.suite == "smoke" else "selected" if options.expression else ""
    raw = options.json or (LAST_RUN.with_name(f"{partial}.json") if partial else LAST_RUN)
    raw.parent.mkdir(parents=True, exist_ok=True)
    raw.unlink(missing_ok=True)  # a run that dies must not leave the report of an older one
    # Read by the OpenMP runtime when torch is loaded, so before the process that measures starts.
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    command = pytest_command(options, raw)
    status = subprocess.run(command, cwd=BENCH.parent, env=environment, check=False).returncode
    if not raw.exists() or not raw.stat().st_size:
        print("python -m bench: nothing was measured, see above.", file=sys.stderr)
        return status or 1
    run = read_run(raw)
    kept = LAST_RUN.with_name(partial) if partial else results_folder(run.machine["device"])
    folder = options.out or kept
    written = write_report(run, folder)
    print(f"\n{render_short(run)}")
    print(raw, *written, sep="\n")
    warning = busy_warning(run)
    if warning:
        print(f"python -m bench: {warning}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
