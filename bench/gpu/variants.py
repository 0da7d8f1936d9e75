"""Every way the library has of doing a case, by name: "backend", or "backend:strategy"."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import ModuleType

from bench.gpu.kinds import Kind
from goal_kernels.backends import BACKENDS
from goal_kernels.backends.base import Call, Verdict

SEPARATOR = ":"
STRATEGIES = "strategies"
"""Function of a backend's module: () -> names of its mining strategies. Absent: there is one."""

USE_STRATEGY = "use_strategy"
"""Function of a backend's module: (name) -> context in which calls use that strategy or raise."""

USE_PROGRAMS = "use_programs"
"""Function of a backend's module: (count) -> context in which kernels launch so many programs."""

PROGRAM_COUNTS = (132, 66, 17, 1)
"""Grids that results must not depend on: a whole H100, half of it, a prime, a single one."""


def _module(backend: str) -> ModuleType:
    return importlib.import_module(f"goal_kernels.backends.{backend}")


@dataclass(frozen=True)
class Variant:
    """A backend and, where it has several, one of its strategies."""

    backend: str
    strategy: str = ""

    @classmethod
    def parse(cls, name: str) -> Variant:
        """From its name."""
        backend, _, strategy = name.partition(SEPARATOR)
        return cls(backend, strategy)

    def __str__(self) -> str:
        return SEPARATOR.join(part for part in (self.backend, self.strategy) if part)

    @property
    def sizes_its_grid(self) -> bool:
        """Whether the number of programs can be chosen."""
        return hasattr(_module(self.backend), USE_PROGRAMS)

    @contextmanager
    def used(self, programs: int | None = None) -> Iterator[None]:
        """Within, calls of this backend go this way."""
        module = _module(self.backend)
        with ExitStack() as stack:
            if self.strategy:
                stack.enter_context(getattr(module, USE_STRATEGY)(self.strategy))
            if programs is not None:
                stack.enter_context(getattr(module, USE_PROGRAMS)(programs))
            yield


def variant_names() -> tuple[str, ...]:
    """Of every backend that can run here at all, the fastest backend first."""
    names = []
    for backend in BACKENDS:
        if backend.availability().ok:
            list_names = getattr(_module(backend.name), STRATEGIES, tuple)
            strategies = tuple(list_names()) or ("",)
            names += [str(Variant(backend.name, strategy)) for strategy in strategies]
    return tuple(names)


def verdict(name: str, device: str, kind: Kind, width: int) -> Verdict:
    """Whether a variant's backend serves such a call."""
    backend = next(b for b in BACKENDS if b.name == Variant.parse(name).backend)
    available = backend.availability()
    call = Call(device, kind.torch_dtype, width, kind.precision)
    return backend.supports(call) if available.ok else available
