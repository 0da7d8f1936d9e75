"""The table of docs/evaluation.md says what the code says."""

from __future__ import annotations

from pathlib import Path

import tie_table

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"


def test_the_page_shows_what_is_counted() -> None:
    """All but the last column, which is up to numpy's sort on this processor."""
    table = PAGE.read_text().split("<!-- ties:begin -->")[1].split("<!-- ties:end -->")[0]
    shown = [line.strip("| ").split(" | ") for line in table.strip().splitlines()[2:]]
    made = [[name, *tie_table.cells(s, False)] for name, s in tie_table.situations().items()]
    assert [row[:-1] for row in shown] == made
