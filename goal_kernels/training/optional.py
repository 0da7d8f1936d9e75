"""Packages that only some models need."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from types import ModuleType

from goal_kernels.extras import install


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
            f"{argument}: needs {package}, which cannot be imported ({error}); {install(extra)}"
        ) from error
    except RuntimeError as error:  # how a torchvision says so that was made for another torch
        raise MissingPackageError(
            f"{argument}: needs {package}, whose import failed beside torch "
            f"{version('torch')} ({error}); install the {package} that was made for this torch"
        ) from error
