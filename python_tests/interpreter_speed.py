"""Triton's interpreter without work that it repeats; what it computes stays the same.

Before every call of one jit function by another it replaces the members of `triton.language`, which
the launch has replaced already: more than half of the time that an interpreted kernel takes. A
tenth of the rest is a table of all types, made anew for each type that is looked up.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any


class PatchOnce:
    """Stands in for `interpreter._patch_lang`: skips the modules that the running launch patched.

    A launch restores what it patched, the calls within it do not. So the first to ask is the
    launch, and what follows until it restores are its calls.
    """

    def __init__(self, patch: Callable[[Any], Any], languages: tuple[Any, ...]) -> None:
        self.patch = patch
        self.languages = languages
        self.patched: set[str] = set()
        self.visible = functools.cache(self._visible)

    def _visible(self, function: Any) -> frozenset[str]:
        """Names of the language modules among the globals of a function."""
        seen = list(function.__globals__.values())
        return frozenset(m.__name__ for m in self.languages if any(m is value for value in seen))

    def __call__(self, function: Any) -> Any:
        visible = self.visible(function)
        if self.patched and visible <= self.patched:
            return None
        scope = self.patch(function)
        if not self.patched:
            scope.restore = functools.partial(self._restore, scope.restore)
        self.patched |= visible
        return scope

    def _restore(self, restore: Callable[[], None]) -> None:
        self.patched.clear()
        restore()


class TypesOnce:
    """Stands in for `interpreter._get_np_dtype`: each scalar type is looked up once."""

    def __init__(self, look_up: Callable[[Any], Any]) -> None:
        self.look_up = look_up
        self.scalar = functools.cache(look_up)

    def __call__(self, kind: Any) -> Any:
        element = kind.scalar
        return self.look_up(kind) if element.is_ptr() else self.scalar(element)


def quicken() -> None:
    """Speed the interpreter up if it has been imported, once."""
    interpreter: Any = sys.modules.get("triton.runtime.interpreter")
    if interpreter is not None and not isinstance(interpreter._patch_lang, PatchOnce):
        languages = (interpreter.tl, interpreter.tl.core)
        interpreter._patch_lang = PatchOnce(interpreter._patch_lang, languages)
        interpreter._get_np_dtype = TypesOnce(interpreter._get_np_dtype)
