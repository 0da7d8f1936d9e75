"""Generated parts of a Markdown file, between two markers."""

from __future__ import annotations

from pathlib import Path

from goal_kernels.data.files import write_text

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
    before = path.read_text()
    after = replace_between(before, content, str(path), part)
    if after != before:
        write_text(path, after)
    return after != before
