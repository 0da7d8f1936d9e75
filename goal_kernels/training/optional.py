"""Packages that only some models need."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


class MissingPackageError(ValueError):
    """An option asks for a package that is not installed."""


def need(package: str, extra: str, argument: str) -> ModuleType:
    """Import a package that `argument` needs.

    Raises: MissingPackageError naming the argument and the extra that brings the package.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingPackageError(
            f"{argument}: needs {package}, which cannot be imported ({error}); "
            f"pip install 'goal-kernels[{extra}]'"
        ) from error
