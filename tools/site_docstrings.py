"""Docstrings as the documentation site shows them (mkdocs.yml): short sections are paragraphs."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension

SECTION = re.compile(r"^([A-Z]\w+): (\S.*(?:\n[ \t]+\S.*)*)", re.MULTILINE)
"""`Returns: a text` that may go on in indented lines; Google's style wants it below."""

FIELD = re.compile(r"^([a-z]\w*(?:, \w+)*)(?: \[[^\]\n]*\])?: ", re.MULTILINE)
"""`name: what it is`, a line of the list of a NamedTuple's fields."""


FORMULA = re.compile(r"^(?!Args:)(\S.*:)\n((?: +\S.*\n?)+)", re.MULTILINE)
"""Indented lines behind a colon."""

STAR = re.compile(r"^(?! {4}).*", re.MULTILINE)


def shown(docstring: str) -> str:
    """The Markdown of a docstring; lists below `Args:` are left to the parser."""
    text = STAR.sub(lambda line: re.sub(r"(?<!\*)\*(?!\*)", r"\\*", line[0]), docstring)
    text = FORMULA.sub(r"\1\n\n\2\n", text)
    text = FIELD.sub(r"\n- `\1`: ", text)
    return SECTION.sub(lambda part: f"\n**{part[1]}:** " + re.sub(r"\n +", " ", part[2]), text)


class Docstrings(Extension):
    """For griffe, which reads the package."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Called for everything that was read."""
        if obj.docstring:
            obj.docstring.value = shown(obj.docstring.value)
