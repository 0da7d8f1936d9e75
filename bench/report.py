"""Everything readable from the JSON of one run: CSV, tables, picture, the README's table.

python -m bench.report                          the last run of `python -m bench`
python -m bench.report run.json --out folder    any other
python -m bench.report --update-readme docs/speed.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import command_parser
from bench.machine import results_folder
from bench.plot import training_steps, write_plot
from bench.results import Run, read_run, write_csv
from bench.tables import render, render_short
from goal_kernels.data.files import write_text

BENCH = Path(__file__).parent
LAST_RUN = BENCH / "out" / "last.json"


BENCH_PART = "bench"
DEMO_PART = "demo"


def markers(part: str) -> tuple[str, str]:
    """The comments that enclose a generated part."""
    return f"<!-- {part}:begin -->", f"<!-- {part}:end -->"


def replace_between(text: str, content: str, name: str, part: str = BENCH_PART) -> str:
    """`text` with what stands between the markers of `part` replaced by `content`.

    Raises: ValueError naming the file when there is not exactly one of each, in this order.
    """
    begin, end = markers(part)
    first, last = text.find(begin), text.find(end)
    if text.count(begin) != 1 or text.count(end) != 1 or last < first:
        raise ValueError(
            f"{name}: expected one line {begin} and after it one line {end}, found "
            f"{text.count(begin)} and {text.count(end)}; add them where the table belongs."
        )
    return text[: first + len(begin)] + "\n" + content.strip() + "\n" + text[last:]


def update_readme(path: Path, content: str, part: str = BENCH_PART) -> bool:
    """Replace a generated part of the file at `path`; whether that changed anything.

    Raises: ValueError as `replace_between`; OSError when the file cannot be read or written.
    """
    before = path.read_text(encoding="utf-8")
    after = replace_between(before, content, str(path), part)
    if after != before:
        write_text(path, after)
    return after != before


def write_report(run: Run, folder: Path) -> list[Path]:
    """Write results.csv, table.md and plot.png into `folder`, each atomically; where they lie.

    There is no plot when no training step was timed.
    """
    csv, table, plot = folder / "results.csv", folder / "table.md", folder / "plot.png"
    write_csv(run.records, csv)
    write_text(table, "# Benchmark results\n\n" + render(run))
    if not training_steps(run):
        plot.unlink(missing_ok=True)  # one of an earlier run would be taken for this one's
        return [csv, table]
    write_plot(run, plot)
    return [csv, table, plot]


def make_parser() -> argparse.ArgumentParser:
    """The command line of `python -m bench.report`."""
    parser = command_parser("bench.report", __doc__)
    parser.add_argument("json", nargs="?", type=Path, default=LAST_RUN, help="a run's JSON")
    parser.add_argument("--out", type=Path, help="folder to write to (default: by device)")
    parser.add_argument(
        "--update-readme", type=Path, metavar="FILE", help="replace the table in this file too"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report; 0, or 2 with a message when the input is not usable."""
    options = make_parser().parse_args(arguments)
    try:
        run = read_run(options.json)
        written = write_report(run, options.out or results_folder(run.machine["device"]))
        print(*written, sep="\n")
        if options.update_readme is not None:
            changed = update_readme(options.update_readme, render_short(run))
            print(f"{options.update_readme}: {'updated' if changed else 'already up to date'}")
    except (OSError, ValueError) as error:
        print(f"python -m bench.report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
