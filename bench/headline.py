"""The README's number and picture, from the committed results of one machine.

python -m bench.headline bench/results/intel-r-xeon-r-processor

Writes headline.svg beside results.csv and the sentence between the markers in README.md.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import command_parser
from bench.cases import FORWARD_BACKWARD, GOAL_LOSS
from bench.report import update_readme
from bench.results import PEAK_MEMORY, WALL_TIME
from bench.tables import number
from goal_kernels.data.files import write_text

README = Path(__file__).parent.parent / "README.md"
PART = "headline"
CASE = {
    "op": GOAL_LOSS,
    "mode": FORWARD_BACKWARD,
    "objective": "nca/sigmoid_ms",
    "B": "8192",
    "D": "1024",
    "dtype": "float32",
    "precision": "highest",
}
NAMES = {
    "eager": "torch, eager",
    "compiled": "torch.compile",
    "gemm": "X @ Y.T alone",
    "cpu": "goal_kernels",
}
PANELS = {WALL_TIME: "milliseconds a step", PEAK_MEMORY: "MiB beyond inputs and gradients"}

STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #57606a }
.title, text.own { font-weight: 600 }
rect { fill: #8c959f } .own { fill: #d9480f }
@media (prefers-color-scheme: dark) { text { fill: #adbac7 } .own { fill: #ff8a4c } }"""
WIDTH, ROW, LABEL, NUMBER = 480, 24, 104, 48


def read_case(path: Path) -> list[dict[str, str]]:
    """Rows of results.csv that belong to the case, `p50` the figure. Raises: OSError."""
    with path.open() as stream:
        return [row for row in csv.DictReader(stream) if CASE.items() <= row.items()]


def figures(rows: list[dict[str, str]], metric: str) -> dict[str, float]:
    """Method -> median, in the order of `NAMES`."""
    found = {row["backend"]: float(row["p50"]) for row in rows if row["metric"] == metric}
    return {name: found[name] for name in NAMES if name in found}


def _number(value: float) -> str:
    return number(value, "{:.2g}")


def sentence(rows: list[dict[str, str]]) -> str:
    """The number, what it is compared with, and what gave it."""
    time, memory = figures(rows, WALL_TIME), figures(rows, PEAK_MEMORY)
    row = rows[0]
    return (
        f"`{CASE['objective']}`, B = {CASE['B']}, D = {CASE['D']}, {CASE['dtype']}, forward and "
        f"backward on {row['threads']} cores: **{_number(time['cpu'])} ms and "
        f"{_number(memory['cpu'])} MiB**, in eager torch {_number(time['eager'])} ms and "
        f"{_number(memory['eager'])} MiB (`python -m bench --full --threads {row['threads']}`, "
        f"{row['device']}, torch {row['torch']}, {row['date']}; [all sizes and methods]"
        f"(docs/speed.md))."
    )


def picture(rows: list[dict[str, str]]) -> str:
    """SVG: bars of time, below them bars of memory, in the colours of the reader's scheme."""
    parts, top = [], 0
    for metric, title in PANELS.items():
        parts.append(f'<text class="title" x="0" y="{top + 16}">{title}</text>')
        top += ROW
        values = figures(rows, metric)
        for method, value in values.items():
            length = max((WIDTH - LABEL - NUMBER) * value / max(values.values()), 1)
            kind = "own" if method == "cpu" else "bar"
            parts += [
                f'<text class="{kind}" x="0" y="{top + 14}">{NAMES[method]}</text>',
                f'<rect class="{kind}" x="{LABEL}" y="{top}" width="{length:.1f}" '
                f'height="{ROW - 6}" rx="2"/>',
                f'<text class="{kind}" x="{LABEL + length + 6:.1f}" y="{top + 14}">'
                f"{_number(value)}</text>",
            ]
            top += ROW
        top += ROW // 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" '
        f'width="{WIDTH}" height="{top}" role="img">\n<style>\n{STYLE}\n</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write both; 0, or 2 with a message when the results are not usable."""
    parser = command_parser("bench.headline", __doc__)
    parser.add_argument("results", type=Path, help="the folder with results.csv")
    folder = parser.parse_args(arguments).results
    try:
        rows = read_case(folder / "results.csv")
        if not rows:
            raise ValueError(f"{folder / 'results.csv'}: expected rows of {CASE}, found none")
        write_text(folder / "headline.svg", picture(rows))
        update_readme(README, sentence(rows), PART)
    except (OSError, ValueError, KeyError) as error:
        print(f"python -m bench.headline: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
