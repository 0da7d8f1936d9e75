"""Build, verify and measure on a machine with an NVIDIA GPU, within minutes, without a network.

python bench/gpu_session.py              results go to bench/results/<gpu>/
python bench/gpu_session.py --dry-run    the same on the processor in Triton's interpreter
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

BENCH = Path(__file__).resolve().parent
RESULTS = BENCH / "results"
DEFAULT_BUDGET = 460.0
"""Seconds: under eight minutes with room for the start of Python."""

INTERRUPTED = 130
STOPPING = (signal.SIGINT, signal.SIGTERM)


def find_modules() -> None:
    """Import from this tree: the folder of a script hides packages behind its own files."""
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != BENCH]
    sys.path[:0] = [str(BENCH.parent), str(BENCH.parent / "python_tests")]


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python bench/gpu_session.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, help="folder of results (default: bench/results)")
    parser.add_argument(
        "--budget", type=float, default=DEFAULT_BUDGET, help="seconds in all (default: %(default)s)"
    )
    parser.add_argument("--no-build", action="store_true", help="leave the native extension alone")
    parser.add_argument(
        "--dry-run", action="store_true", help="tiny sizes on the processor; figures mean nothing"
    )
    return parser


def choose_folder(out: Path | None, dry_run: bool) -> Path:
    """Where results go. Raises: ValueError when made-up figures would lie among real ones."""
    if out is None:
        return Path(tempfile.mkdtemp(prefix="gpu-session-")) if dry_run else RESULTS
    if dry_run and out.resolve().is_relative_to(RESULTS):
        raise ValueError(f"--out: a dry run does not write to {RESULTS}")
    return out


def stop(signal_number: int, frame: object) -> None:
    """Turn the first request to end into an exception, so that results are written."""
    for each in STOPPING:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def say(line: str) -> None:
    """Print at once, also into a pipe."""
    print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a session. 0: all well, 1: something failed, 2: it cannot run here, 130: interrupted."""
    find_modules()
    import torch

    from bench.gpu.planning import State
    from bench.gpu.results import Findings, Journal
    from bench.gpu.scale import DRY, REAL
    from bench.gpu.session import Session
    from bench.gpu.tables import render
    from goal_kernels.data.files import write_text

    parser = make_parser()
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    if not options.dry_run and not torch.cuda.is_available():
        say("no CUDA device here; --dry-run shows on the processor that the script works.")
        return 2
    try:
        folder = choose_folder(options.out, options.dry_run)
    except ValueError as error:
        parser.error(str(error))
    command = shlex.join(["python", "bench/gpu_session.py", *given])
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    journal = Journal(folder, Findings(command, date, options.budget, options.dry_run))
    findings = journal.findings
    session = Session(State(DRY if options.dry_run else REAL), journal, options.budget, say)
    for each in STOPPING:
        signal.signal(each, stop)
    try:
        session.run(build=not (options.no_build or options.dry_run))
    except KeyboardInterrupt:
        findings.interrupted = True
    findings.seconds = round(session.elapsed, 1)
    path = journal.close()
    table = path.with_suffix(".md")
    write_text(table, render(findings))
    say(f"{path}\n{table}")
    if findings.interrupted:
        return INTERRUPTED
    return 1 if findings.failed else 0


if __name__ == "__main__":
    sys.exit(main())
