"""The table of losses over all negatives in docs/whole_batch.md, from the file of a run.

python -m bench.whole_batch_page bench/results/intel-r-xeon-r-processor/whole_batch.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import command_parser
from bench.lineup import GEMM
from bench.report import update_readme
from bench.tables import ABSENT
from bench.whole_batch import COMPILED, EAGER, OURS
from goal_kernels.terminal import markdown_table

PAGE = Path(__file__).parent.parent / "docs" / "whole_batch.md"
PART = "whole-batch"
HEADS = (
    *("loss", "dtype", "B × D", "product ms", "library ms", "library / product"),
    *("library / eager", "compiled / eager", "library MiB", "eager MiB"),
)


def render(run: Mapping[str, Any]) -> str:
    """A table in Markdown, a row a case, and what was measured on."""
    rows = [_row(case) for case in run["cases"]]
    return (
        f"{markdown_table(HEADS, rows, 3)}\n\n"
        f"`{run['command']}`, {run['date']}, {run['device']} ({run['threads']} threads, "
        f"{run['isa']}), torch {run['torch']}, Python {run['python']}, commit `{run['commit']}`. "
        f"`{ABSENT}`: no time, because the answer was not that of float64.\n"
    )


def _row(case: Mapping[str, Any]) -> list[str]:
    def value(method: str, field: str, digits: int, factor: float = 1.0) -> str:
        found = case["methods"].get(method, {}).get(field)
        return ABSENT if found is None else f"{factor * found:,.{digits}f}"

    size = f"{case['batch']} × {case['width']}"
    return [
        *(f"`{case['loss']}`", case["dtype"], size),
        value(GEMM, "median_seconds", 0, 1000),
        value(OURS, "median_seconds", 0, 1000),
        *(value(OURS, field, 2) for field in ("to_gemm", "to_eager")),
        value(COMPILED, "to_eager", 2),
        *(value(method, "peak_mib", 0) for method in (OURS, EAGER)),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Update the page."""
    parser = command_parser("bench.whole_batch_page", __doc__)
    parser.add_argument("file", type=Path, help="whole_batch.json of `python -m bench.whole_batch`")
    options = parser.parse_args(arguments)
    update_readme(PAGE, render(json.loads(options.file.read_text())), PART)
    return 0


if __name__ == "__main__":
    sys.exit(main())
