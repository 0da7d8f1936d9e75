"""A pytest plugin for dear runs: of each test's parameters every two values meet, no product.

An instruction set and a dtype choose a kernel and count as one value, so every kernel still meets
every shape, every kind of sum and every layout, only not every shape with every kind.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

KERNEL = ("backend", "isa", "search", "dtype")
"""Parameters and fixtures that choose the compiled code."""


def pairs_of(item: Any) -> set[Any]:
    """What meets in a test; nothing where one parameter is all it has."""
    if not hasattr(item, "callspec"):
        return set()
    parameters = {name: repr(value) for name, value in item.callspec.params.items()}
    kernel = [parameters.pop(name, None) for name in KERNEL]
    values = [("kernel", *kernel), *parameters.items()]
    return {(item.location[0], item.originalname, *two) for two in combinations(values, 2)}


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Leave out every test of which each pair was met before."""
    met: set[Any] = set()
    kept, left_out = [], []
    for item in items:
        pairs = pairs_of(item)
        (left_out if pairs and pairs <= met else kept).append(item)
        met |= pairs
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept
