"""The backends, in the order `auto` tries them, and the choice among them.

`auto` takes the first backend that is available and supports the call, and can say why it refused
the others. A backend that is named explicitly never falls back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from goal_kernels.backends.base import Backend, Call, Verdict
from goal_kernels.backends.chunked import ChunkedBackend
from goal_kernels.backends.cpu import CpuBackend
from goal_kernels.backends.gpu import CudaBackend, TritonBackend
from goal_kernels.backends.reference import ReferenceBackend

BACKENDS: tuple[Backend, ...] = (
    CpuBackend(),
    TritonBackend(),
    CudaBackend(),
    ChunkedBackend(),
    ReferenceBackend(),
)
"""Fastest first on the devices each supports. `auto` takes the chunked one at the latest."""

AUTO = "auto"


class BackendUnavailableError(RuntimeError):
    """The backend that was asked for cannot serve this call; the message says why."""


def backend_names() -> tuple[str, ...]:
    """Names of all backends, whether or not they can run here."""
    return tuple(backend.name for backend in BACKENDS)


def find_backend(name: str) -> Backend:
    """The backend of that name. Raises: ValueError listing what exists."""
    for backend in BACKENDS:
        if backend.name == name:
            return backend
    raise ValueError(
        f"backend: expected one of {', '.join((AUTO, *backend_names()))}, got {name!r}."
    )


def verdicts(call: Call | None = None) -> Iterator[tuple[Backend, Verdict]]:
    """Each backend with whether it can serve `call` (or run at all, when None), in auto's order."""
    for backend in BACKENDS:
        verdict = backend.availability()
        if verdict.ok and call is not None:
            verdict = backend.supports(call)
        yield backend, verdict


def resolve(
    name: str,
    device_type: str,
    dtype: torch.dtype,
    precision: str,
    deed: str = "",
    able: Callable[[Backend], bool] = lambda _: True,
) -> str:
    """The name of the backend that serves a call, see `Call`.

    deed, able: what not every backend does, such as "rank", and whether one does it.
    Raises: ValueError for an unknown name, BackendUnavailableError with the reason when a backend
    named explicitly cannot serve the call.
    """
    call = Call(device_type, dtype, precision, name == AUTO)
    if call.automatic:
        for backend in BACKENDS:
            if able(backend) and backend.availability().ok and backend.supports(call).ok:
                return backend.name
    backend = find_backend(name)
    if not able(backend):
        names = ", ".join(repr(b.name) for b in BACKENDS if able(b))
        raise BackendUnavailableError(
            f"backend {name!r} does not {deed}; use 'auto' or one of {names}."
        )
    verdict = backend.availability()
    if verdict.ok:
        verdict = backend.supports(call)
    if not verdict.ok:
        raise BackendUnavailableError(
            f"backend {name!r} cannot serve this call: {verdict.reason} Use backend='auto' to take "
            "the fastest that can."
        )
    return backend.name
