"""What calls of the library launch on a GPU, found out without one.

Calls run on tensors of the device "meta", which have no data and are told to be CUDA tensors, and
kernels are recorded instead of launched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from goal_kernels.backends.base import Verdict
from goal_kernels.backends.gpu import TritonBackend, hopper, runtime

DEVICE = torch.device("meta")
"""Stands for the GPU. (Fake tensors on "cuda" fail in torch's own indexing without CUDA.)"""


class Launch(NamedTuple):
    """One kernel: its name and its grid; of Triton's the function and what it was given."""

    kernel: str
    grid: tuple[int, ...]
    function: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]


class Recorder(TorchDispatchMode):
    """Records the kernels that would be launched, Triton's and our own, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[Launch] = []

    def run_kernel(self, function: Any, *arguments: Any, grid: Any, **options: Any) -> None:
        """Stands in for Triton's launch of a kernel."""
        if callable(grid):
            grid = grid(dict(zip(function.arg_names, arguments, strict=False)) | options)
        self.kernels.append(Launch(function.__name__, tuple(grid), function, arguments, options))

    def run_operator(self, operator: Any, arguments: Any, options: Any) -> Any:
        """Stands in for one of torch's operators."""
        return operator(*arguments, **options)

    def __torch_dispatch__(
        self, operator: Any, types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        options = options or {}
        if operator.namespace != "goal_kernels":
            return self.run_operator(operator, arguments, options)
        # The operators of this library: what they do, not what they return.
        with self:
            return operator._op_dk(
                torch._C.DispatchKey.CompositeExplicitAutograd, *arguments, **options
            )


@contextlib.contextmanager
def imagined_gpu(recorder: Recorder, capability: tuple[int, int] = (9, 0)) -> Iterator[None]:
    """Inside, tensors on DEVICE are on a GPU, and what would be launched there is recorded."""
    from triton.runtime import interpreter, jit

    def run(function: Any, *arguments: Any, warmup: bool, **options: Any) -> None:
        recorder.run_kernel(function, *arguments, **options)

    def run_cuda(kernel: str, *_: Any) -> None:
        recorder.kernels.append(Launch(kernel, (1,), None, (), {}))

    runtime.load_step()
    replaced: tuple[tuple[Any, str, Any], ...] = (
        (interpreter.InterpretedFunction, "run", run),
        (jit.JITFunction, "run", run),
        (runtime, "interpreting", lambda: False),
        (runtime, "INTERPRETED_CAPABILITY", capability),
        (hopper, "launch", run_cuda),
        (TritonBackend, "availability", lambda self: Verdict(True)),
        (TritonBackend, "supports", lambda self, call: Verdict(True)),
        (Tensor, "is_cuda", property(lambda self: self.device == DEVICE)),
        (torch, "is_autocast_enabled", lambda *device_type: False),
        (torch.cuda, "device", lambda device: contextlib.nullcontext()),
    )
    with contextlib.ExitStack() as stack:
        for owner, name, substitute in replaced:
            stack.enter_context(mock.patch.object(owner, name, substitute))
        stack.enter_context(recorder)
        yield
