"""The demo's table in the README, from the run folder that `make demo` left.

python -m bench.demo runs/goalworld --update-readme README.md

Keeps the figures, the machine and the versions in bench/results/goalworld.json and writes the table
of the README from that file. Run it on the machine that ran the demo.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.machine import device_name
from bench.report import DEMO_PART, update_readme
from goal_kernels.data.files import write_text

RESULT = Path(__file__).parent / "results" / "goalworld.json"
COLUMNS = [(side, f"R@{k}") for side in ("i2t", "t2i") for k in (1, 5, 10)]
PACKAGES = ("torch", "pytorch-lightning", "numpy")


def read_run_folder(folder: Path) -> dict[str, Any]:
    """What is kept of a run: metrics.json, and machine, versions and date of environment.json.

    Raises: OSError when a file is missing, KeyError when one is of another kind of run.
    """
    metrics = json.loads((folder / "metrics.json").read_text())
    environment = json.loads((folder / "environment.json").read_text())
    return {
        "command": "make demo",
        "date": environment["started"][:10],
        "device": device_name("cpu"),
        "processors": environment["processors"],
        "python": environment["python"],
        "packages": {name: environment["packages"][name] for name in PACKAGES},
        "metrics": metrics,
    }


def _row(name: str, metrics: dict[str, Any]) -> str:
    cells = [f"{metrics[side][recall]:.1f}" for side, recall in COLUMNS]
    return f"| {name} | {' | '.join(cells)} | {metrics['rsum']:.1f} |"


def render(result: dict[str, Any]) -> str:
    """The Markdown part: a table in percent, and what gave it."""
    metrics = result["metrics"]
    head = " | ".join(f"{side} {recall}" for side, recall in COLUMNS)
    versions = ", ".join(f"{name} {number}" for name, number in result["packages"].items())
    return "\n".join(
        [
            f"| GoalWorld {metrics['split']}, % | {head} | rsum |",
            "|---|" + "--:|" * (len(COLUMNS) + 1),
            _row("chance", metrics["chance"]),
            _row(f"this run (`{metrics['objective']['name']}`)", metrics),
            _row("oracle", metrics["oracle"]),
            "",
            f"One run, seed {metrics['seed']}, {metrics['epochs']} epochs, "
            f"{metrics['seconds'] / 60:.1f} minutes of training and evaluation: "
            f"`{result['command']}` on {result['device']} with {result['processors']} processors, "
            f"Python {result['python']}, {versions}, {result['date']}.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Keep the result and write the README's part; 0, or 2 with a message."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="the run folder, such as runs/goalworld")
    parser.add_argument("--update-readme", type=Path, metavar="FILE", help="the file to update")
    options = parser.parse_args(arguments)
    try:
        result = read_run_folder(options.run)
        text = json.dumps(result, indent=2) + "\n"
        write_text(RESULT, text)
        print(RESULT)
        if options.update_readme is not None:
            update_readme(options.update_readme, render(result), DEMO_PART)
    except (OSError, ValueError, KeyError) as error:
        print(f"python -m bench.demo: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
