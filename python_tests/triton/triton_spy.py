"""Watching what a call of the Triton backend would launch on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

NO_LAUNCH = {"empty", "new_empty", "detach", "alias", "view", "slice", "select", "unbind", "split"}
"""Operators of torch that only make or view tensors."""


class Launches(TorchDispatchMode):
    """Names of the kernels and torch operators that were launched, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in NO_LAUNCH:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


class _Watched:
    """A kernel that notes its launches. What the interpreter does with torch is not a launch."""

    def __init__(self, kernel: Any, name: str, launches: Launches) -> None:
        self._kernel, self._name, self._launches = kernel, name, launches

    def __getitem__(self, grid: Any) -> Any:
        def launch(*args: Any, **kwargs: Any) -> None:
            before = len(self._launches.names)
            self._kernel[grid](*args, **kwargs)
            self._launches.names[before:] = [self._name]

        return launch


class _Kernels:
    """Stands for the module of kernels."""

    def __init__(self, kernels: ModuleType, launches: Launches) -> None:
        self._kernels, self._launches = kernels, launches

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._kernels, name)
        return _Watched(value, name, self._launches) if name.endswith("_kernel") else value


@contextmanager
def watch_launches(monkeypatch: pytest.MonkeyPatch, *launchers: ModuleType) -> Iterator[list[str]]:
    """Collect what is launched inside; launchers: modules that call `load_kernels`."""
    launches = Launches()
    for launcher in launchers:
        kernels = _Kernels(launcher.load_kernels(), launches)
        monkeypatch.setattr(launcher, "load_kernels", lambda kernels=kernels: kernels)
    with launches, torch.no_grad():
        yield launches.names
