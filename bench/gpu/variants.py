"""Every way the library has of doing a case, by name: "backend", or "backend:strategy"."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from bench.gpu.kinds import Kind
from goal_kernels.backends import BACKENDS, find_backend
from goal_kernels.backends.base import Call, Verdict
from goal_kernels.backends.gpu import use_programs, use_strategy

SEPARATOR = ":"
PROGRAM_COUNTS = (132, 66, 17, 1)
"""Grids that results must not depend on: a whole H100, half of it, a prime, a single one."""


def _strategies(backend: str) -> tuple[str, ...]:
    """Names of the mining strategies of a GPU backend; none of any other."""
    return getattr(find_backend(backend), "strategies", ())


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
        return bool(_strategies(self.backend))

    @contextmanager
    def used(self, programs: int | None = None) -> Iterator[None]:
        """Within, calls of this backend go this way."""
        with ExitStack() as stack:
            if self.strategy:
                stack.enter_context(use_strategy(self.strategy))
            if programs is not None:
                stack.enter_context(use_programs(programs))
            yield


def variant_names() -> tuple[str, ...]:
    """Of every backend that can run here at all, the fastest backend first."""
    names = []
    for backend in BACKENDS:
        if backend.availability().ok:
            several = _strategies(backend.name)
            strategies = several if len(several) > 1 else ("",)
            names += [str(Variant(backend.name, strategy)) for strategy in strategies]
    return tuple(names)


def verdict(name: str, device: str, kind: Kind, width: int) -> Verdict:
    """Whether a variant's backend serves such a call."""
    backend = next(b for b in BACKENDS if b.name == Variant.parse(name).backend)
    available = backend.availability()
    call = Call(device, kind.torch_dtype, width, kind.precision)
    return backend.supports(call) if available.ok else available
