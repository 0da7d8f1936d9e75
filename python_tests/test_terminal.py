"""What a terminal is given: signs that it has, tables that it holds."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from goal_kernels.terminal import Table, plain, show

COLUMNS = ["", "seeds", *(f"i2t R@{k}" for k in (1, 5, 10)), "rsum"]
LONG = "circle/linear_ms, model.image.pooling=mean, data.folder=data/goalworld"
ROWS = [
    ["hinge/constant", "5", "29.4 ± 0.3", "77.0 ± 10.2", "90.1 ± 0.1", "358.3 ± 12.9"],
    [LONG, "5", "31.0 ± 0.2", "78.8 ± 0.5", "91.5 ± 0.2", "360.1 ± 1.1"],
]
TABLE = Table("Recall in percent", COLUMNS, ROWS)


@pytest.mark.parametrize("width", [60, 40, 20])
def test_a_narrow_terminal_gets_every_digit(width) -> None:
    lines = plain(TABLE, width).splitlines()
    longest = max(len(cell) for row in ROWS for cell in row[1:])
    assert max(map(len, lines)) <= max(width, 2 + max(width // 3, 12) + 2 + longest)
    for row in ROWS:
        for cell in row[1:]:
            assert sum(cell in line for line in lines) >= 1, cell
    heads = [line for line in lines if re.search(r"seeds|R@|rsum", line)]
    assert sum("hinge/" in line for line in lines) == len(heads)  # beside each block


def test_columns_that_fit_stay_beside_each_other_and_aligned() -> None:
    text = plain(TABLE)
    rows = text.splitlines()[2:]
    assert [row[-len(cells[-1]) :] for row, cells in zip(rows, ROWS, strict=True)] == [
        cells[-1] for cells in ROWS
    ]
    blocks = plain(TABLE, 60).split("\n\n")
    assert len(blocks) == 2
    assert "seeds" in blocks[0]
    assert "rsum" in blocks[1]
    names = [re.sub(r"\s+", "", block) for block in blocks]
    assert all("data.folder=data/goalworld" in name for name in names)


def test_a_table_for_a_pipe_has_no_limit(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    show([TABLE])
    assert capsys.readouterr().out == plain(TABLE) + "\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show([TABLE])
    assert capsys.readouterr().out == plain(TABLE, 30) + "\n"


def test_an_ascii_terminal_reads_everything() -> None:
    program = """
from goal_kernels.terminal import Table, show, spell_out
import sys
spell_out()
show([Table("a ± b", ["", "Δ rsum"], [["x", "1 ± 2"], ["long", "12"]])])
print("VSE∞ – naïve → 5,000 × 25,000 … \u72d7")
print("±", file=sys.stderr)
"""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", program], capture_output=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode("ascii").splitlines()
    assert lines[:4] == ["a +- b", "        d rsum", "  x     1 +- 2", "  long      12"]
    assert lines[4] == "VSEinfinity - naive -> 5,000 x 25,000 ... \\u72d7"
    assert done.stderr == b"+-\n"
