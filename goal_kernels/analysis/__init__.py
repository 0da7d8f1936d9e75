"""What any loss does to the gradients: landscapes over (p, n), batches taken apart, a catalogue.

Loaded with the first name that is used, so that the command line starts without torch. How to read
the results: docs/analysis.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; __getattr__ does it at run time
    from goal_kernels.analysis.catalogue import (
        CatalogueLoss,
        find_loss,
        list_losses,
        register_loss,
        unregister_loss,
    )
    from goal_kernels.analysis.landscape import Analysis, Corner, analyze

_HOMES = {
    "CatalogueLoss": "catalogue",
    "find_loss": "catalogue",
    "list_losses": "catalogue",
    "register_loss": "catalogue",
    "unregister_loss": "catalogue",
    "Analysis": "landscape",
    "Corner": "landscape",
    "analyze": "landscape",
}

__all__ = [  # noqa: RUF022, by module
    "CatalogueLoss",
    "find_loss",
    "list_losses",
    "register_loss",
    "unregister_loss",
    "Analysis",
    "Corner",
    "analyze",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"goal_kernels.analysis.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'goal_kernels.analysis' has no attribute {name!r}")
