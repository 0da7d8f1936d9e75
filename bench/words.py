"""Words for cases and Markdown for tables, as every report uses them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.cases import MINE
from bench.records import Situation


def kind_name(dtype: str, precision: str) -> str:
    """How similarities are computed: the dtype and, where it matters, torch's word."""
    return f"{dtype} `{precision}`" if dtype == "float32" else dtype


def job_name(case: Situation) -> str:
    """The job of a case."""
    if case.op == MINE:
        return "mining alone"
    return f"`{case.objective}`, {case.mode.replace('_', ' + ')}"


def size_name(case: Situation) -> str:
    """B × D."""
    return f"{case.B} × {case.D}"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> str:
    """A Markdown table whose first `left` columns hold words, the others numbers."""
    rule = ["---"] * left + ["--:"] * (len(header) - left)
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))
