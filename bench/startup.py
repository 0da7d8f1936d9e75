"""What starting costs: processor time and memory of imports and commands, beside torch's.

python -m bench.startup             writes bench/results/startup.json and the table of docs/speed.md
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import date
from statistics import median
from typing import Any

import torch

from bench.machine import RESULTS, ROOT, device_name
from bench.report import update_readme
from goal_kernels.data.files import write_text
from goal_kernels.terminal import markdown_table

FILE = RESULTS / "startup.json"
PAGE = ROOT / "docs" / "speed.md"
PART = "startup"
ROUNDS = 5

ROWS = "import torch; x = torch.eye(128, 64); y = x.clone().requires_grad_(); "
PROGRAMS = {
    "Python alone": ["-c", "pass"],
    "`import goal_kernels`": ["-c", "import goal_kernels"],
    "`import torch`": ["-c", "import torch"],
    "torch: a product of [128, 64], backward": ["-c", f"{ROWS}(x @ y.T).sum().backward()"],
    "the same and `goal_loss`, backward": [
        "-c",
        f"{ROWS}(x @ y.T).sum().backward(); import goal_kernels as gk; "
        "gk.goal_loss(x, y, 'hinge/constant').backward()",
    ],
    "`goal-kernels --version`": ["-m", "goal_kernels", "--version"],
    "`goal-kernels --help`": ["-m", "goal_kernels", "--help"],
    "`goal-kernels recipes`": ["-m", "goal_kernels", "recipes"],
}


SPAWN = """
import json, os, sys
child = os.posix_spawn(sys.executable, [sys.executable, *sys.argv[1:]], os.environ,
                       file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
_, status, used = os.wait4(child, 0)
print(json.dumps([status, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""
"""A small process that starts the measured one: the peak of a child begins at its parent's size."""


def measure(arguments: list[str]) -> tuple[float, float]:
    """Processor seconds and peak resident MiB of one run of Python. Raises: RuntimeError."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    spawn = [sys.executable, "-S", "-c", SPAWN, *arguments]
    done = subprocess.run(spawn, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    status, seconds, mib = json.loads(done.stdout)
    if status:
        raise RuntimeError(f"{arguments}: ended with {os.waitstatus_to_exitcode(status)}")
    return seconds, mib


def run() -> dict[str, Any]:
    """All programs in turns: medians, and what they were measured on."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in PROGRAMS}
    for _ in range(ROUNDS + 1):
        for name, arguments in PROGRAMS.items():
            taken[name].append(measure(arguments))
    rows = {  # without the first round, which reads the files from the disk
        name: {"seconds": median(s for s, _ in each[1:]), "mib": median(m for _, m in each[1:])}
        for name, each in taken.items()
    }
    return {
        "rows": rows,
        "device": device_name("cpu"),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }


def render(result: dict[str, Any]) -> str:
    """The Markdown table, and what gave it."""
    rows = [[n, f"{row['seconds']:.2f}", f"{row['mib']:.0f}"] for n, row in result["rows"].items()]
    return "\n".join(
        [
            markdown_table(["", "processor seconds", "peak memory, MiB"], rows),
            "",
            f"Medians of {ROUNDS} runs in turns: `python -m bench.startup`, {result['device']}, "
            f"one thread, Python {result['python']}, torch {result['torch']}, {result['date']}.",
        ]
    )


if __name__ == "__main__":
    result = run()
    write_text(FILE, json.dumps(result, indent=2) + "\n")
    update_readme(PAGE, render(result), PART)
