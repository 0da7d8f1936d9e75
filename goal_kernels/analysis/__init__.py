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
    from goal_kernels.analysis.dissection import Anchors, Dissection, dissect
    from goal_kernels.analysis.landscape import Analysis, Corner, analyze
    from goal_kernels.analysis.nearest import Nearest, nearest_objective

_HOMES = {
    "catalogue": "CatalogueLoss find_loss list_losses register_loss unregister_loss",
    "dissection": "Anchors Dissection dissect",
    "landscape": "Analysis Corner analyze",
    "nearest": "Nearest nearest_objective",
}

__all__ = [
    "Analysis",
    "Anchors",
    "CatalogueLoss",
    "Corner",
    "Dissection",
    "Nearest",
    "analyze",
    "dissect",
    "find_loss",
    "list_losses",
    "nearest_objective",
    "register_loss",
    "unregister_loss",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names.split():
            return getattr(import_module(f"goal_kernels.analysis.{home}"), name)
    raise AttributeError(f"module 'goal_kernels.analysis' has no attribute {name!r}")
