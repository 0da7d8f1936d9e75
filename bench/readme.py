"""Generated parts of a Markdown file, between two markers."""

from __future__ import annotations

from pathlib import Path

from bench.files import write_atomically

BEGIN = "<!-- bench:begin -->"
END = "<!-- bench:end -->"


def replace_between(text: str, content: str, name: str) -> str:
    """`text` with what stands between the markers replaced by `content`.

    Raises: ValueError naming the file when there is not exactly one of each, in this order.
    """
    first, last = text.find(BEGIN), text.find(END)
    if text.count(BEGIN) != 1 or text.count(END) != 1 or last < first:
        raise ValueError(
            f"{name}: expected one line {BEGIN} and after it one line {END}, found "
            f"{text.count(BEGIN)} and {text.count(END)}; add them where the table belongs."
        )
    return text[: first + len(BEGIN)] + "\n" + content.strip() + "\n" + text[last:]


def update_readme(path: Path, content: str) -> bool:
    """Replace the generated part of the file at `path`; whether that changed anything.

    Raises: ValueError as `replace_between`; OSError when the file cannot be read or written.
    """
    before = path.read_text()
    after = replace_between(before, content, str(path))
    if after != before:
        write_atomically(path, lambda temporary: temporary.write_text(after))
    return after != before
