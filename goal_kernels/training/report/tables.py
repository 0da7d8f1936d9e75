"""What the tables and charts of the report share: names of the directions, a row of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

DIRECTIONS = {"t2i": "text → image", "i2t": "image → text"}


def table_row(name: str, cells: Sequence[float]) -> str:
    """A `<tr>` of a heading and numbers with one decimal."""
    values = "".join(f"<td>{cell:.1f}</td>" for cell in cells)
    return f'<tr><th scope="row">{escape(name)}</th>{values}</tr>'
