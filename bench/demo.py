"""Tables of GoalWorld in README and docs, from the run folders that made them.

python -m bench.demo runs/goalworld --update-readme docs/demo.md
python -m bench.demo runs/goalworld_fusion* --update-readme docs/goalworld.md --command COMMAND

Keeps the figures, the machine and the versions in bench/results/NAME.json, NAME being that of the
first run folder, and writes the table from that file: of several runs, which differ in their seeds
alone, means and standard deviations. Run it on the machine that ran the training.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import command_parser
from bench.machine import RESULTS, device_name
from bench.report import DEMO_PART, update_readme
from goal_kernels.data.files import write_text
from goal_kernels.terminal import markdown_table

COLUMNS = [(side, f"R@{k}") for side in ("i2t", "t2i") for k in (1, 5, 10)]
PACKAGES = ("torch", "pytorch-lightning", "numpy")


def read_run_folders(folders: Sequence[Path], command: str) -> dict[str, Any]:
    """What is kept of runs: metrics.json of each, and machine, versions and date of the first.

    Args: command: what made them.

    Raises: OSError when a file is missing, KeyError when one is of another kind of run.
    """
    runs = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    environment = json.loads((folders[0] / "environment.json").read_text())
    return {
        "command": command,
        "date": environment["started"][:10],
        "device": device_name("cpu"),
        "processors": environment["processors"],
        "python": environment["python"],
        "packages": {name: environment["packages"][name] for name in PACKAGES},
        "runs": runs,
    }


def _cell(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1f}"


def _row(name: str, records: Sequence[dict[str, Any]]) -> list[str]:
    cells = [_cell([record[side][recall] for record in records]) for side, recall in COLUMNS]
    return [name, *cells, _cell([record["rsum"] for record in records])]


def _own_rows(runs: Sequence[dict[str, Any]]) -> list[list[str]]:
    """One row; of a model that scores pairs one for each ranking, the dual encoder's first."""
    rankings = runs[0].get("rankings")
    if not rankings:
        return [_row(f"this run (`{runs[0]['objective']['name']}`)", runs)]
    return [_row(name, [run["rankings"][name] for run in runs]) for name in rankings]


def render(result: dict[str, Any]) -> str:
    """The Markdown part: a table in percent, and what gave it."""
    runs = result["runs"]
    first, seeds = runs[0], ", ".join(str(run["seed"]) for run in runs)
    what = f"One run, seed {seeds},"
    if len(runs) > 1:
        what = f"Mean ± standard deviation of {len(runs)} runs, seeds {seeds}; each"
    seconds = statistics.fmean(run["seconds"] for run in runs)
    head = [f"GoalWorld {first['split']}, %", *(f"{a} {b}" for a, b in COLUMNS), "rsum"]
    rows = [_row("chance", [first["chance"]]), *_own_rows(runs), _row("oracle", [first["oracle"]])]
    versions = ", ".join(f"{name} {number}" for name, number in result["packages"].items())
    return "\n".join(
        [
            markdown_table(head, rows),
            "",
            f"{what} {first['epochs']} epochs, {seconds / 60:.1f} minutes of training and "
            f"evaluation{result.get('note', '')}: `{result['command']}` on {result['device']} with "
            f"{result['processors']} processors, Python {result['python']}, {versions}, "
            f"{result['date']}.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Keep the result and write the page's part; 0, or 2 with a message."""
    parser = command_parser("bench.demo", __doc__)
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="a run folder, such as runs/goalworld"
    )
    parser.add_argument("--update-readme", type=Path, metavar="FILE", help="the file to update")
    made = "goal-kernels fit --config goalworld"
    parser.add_argument("--command", default=made, help="what made the run")
    parser.add_argument("--note", help="what else is to be known of its time")
    options = parser.parse_args(arguments)
    try:
        result = read_run_folders(options.runs, options.command)
        if options.note:
            result["note"] = f" ({options.note})"
        file = RESULTS / f"{options.runs[0].name}.json"
        write_text(file, json.dumps(result, indent=2) + "\n")
        print(file)
        if options.update_readme is not None:
            update_readme(options.update_readme, render(result), DEMO_PART)
    except (OSError, ValueError, KeyError) as error:
        print(f"python -m bench.demo: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
