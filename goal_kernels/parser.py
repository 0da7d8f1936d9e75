"""A parser of arguments whose errors take one line and name what may have been meant."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, with the nearest word that would be right."""

    given: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        """End the program with the message and where to look. Raises: SystemExit with status 2.

        What is missing may have been mistyped, which then is what to say.
        """
        given, self.given = self.given, ()
        if "required" in message and given:
            needed: list[Any] = [*self._actions, *self._mutually_exclusive_groups]
            for part in needed:
                part.required = False
            self._refuse_unknown(self.parse_known_args(given)[1])
        self.exit(2, f"{self.prog}: error: {message}; `{self.prog} --help` lists all\n")

    def parse_all(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse; the nearest option is named beside one that does not exist."""
        self.given = arguments
        chosen, unknown = self.parse_known_args(arguments)
        self._refuse_unknown(unknown)
        return chosen

    def _refuse_unknown(self, unknown: Sequence[str]) -> None:
        if unknown:
            near = nearest(unknown[0].partition("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{near}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(
                action, f"expected one of {', '.join(known)}, got {value!r}{nearest(value, known)}"
            )


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a message: the known word that looks most like `word`, empty when none does."""
    found = get_close_matches(str(word), list(known), 1)
    return f" (did you mean {found[0]}?)" if found else ""
