"""What a call would launch on a GPU, and that it never waits for one: found out without a GPU.

The call runs on tensors of the device "meta", which have no data and are told to be CUDA tensors.
Kernels are recorded instead of launched. Torch operators are recorded too, and those raise that a
CUDA graph could not capture: the ones whose result decides something on the host or whose shape
depends on data, and copies between the host and the device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from goal_kernels.backends.base import Verdict
from goal_kernels.backends.gpu import TritonBackend, hopper, runtime

DEVICE = torch.device("meta")
"""Stands for the GPU. (Fake tensors on "cuda" fail in torch's own indexing without CUDA.)"""

HOPPER = SimpleNamespace(
    name="H100", major=9, minor=0, multi_processor_count=132, shared_memory_per_block_optin=232448
)
"""What `torch.cuda.get_device_properties` answers."""

ALLOCATE = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
RENAME = ("_unsafe_view", "_reshape_alias", "lift_fresh")
"""Operators that launch nothing, besides those that return views."""

AS_NUMBER = ("__bool__", "__int__", "__float__", "__index__")
"""Methods of a tensor that need its value; on DEVICE some answer without an operator."""


class CaptureError(AssertionError):
    """A CUDA graph could not capture this."""


class KernelLaunch(NamedTuple):
    """One recorded kernel: its name and its grid."""

    kernel: str
    grid: tuple[int, ...]


class LaunchRecorder(TorchDispatchMode):
    """Records what would be launched, in order.

    kernels: Triton's and our own. operators: torch's, by name; a lower bound of its launches,
    because one operator may launch several kernels (a sort does).
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[KernelLaunch] = []
        self.operators: list[str] = []

    @property
    def count(self) -> int:
        """Launches so far."""
        return len(self.kernels) + len(self.operators)

    def run_kernel(self, function: Any, *arguments: Any, grid: Any, **options: Any) -> None:
        """Stands in for Triton's launch of a kernel."""
        if callable(grid):
            grid = grid(dict(zip(function.arg_names, arguments, strict=False)) | options)
        for argument in arguments:
            if isinstance(argument, Tensor) and argument.device != DEVICE:
                raise CaptureError(f"{function.__name__} would read a tensor of the host")
        self.kernels.append(KernelLaunch(function.__name__, tuple(grid)))

    def run_cuda(self, kernel: str) -> None:
        """Stands in for the launch of a CUDA kernel of this library."""
        self.kernels.append(KernelLaunch(kernel, (1,)))

    def __torch_dispatch__(
        self, operator: Any, types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        options = options or {}
        if operator.namespace == "goal_kernels":
            # The operators of this library: what they do, not what they return.
            with self:
                return operator._op_dk(
                    torch._C.DispatchKey.CompositeExplicitAutograd, *arguments, **options
                )
        refuse_data_dependence(operator, arguments)
        try:
            result = operator(*arguments, **options)
        except NotImplementedError as error:  # What a device without data says.
            raise CaptureError(f"{operator}: {error}") from error
        self.record(operator, arguments, result)
        return result

    def record(self, operator: Any, arguments: Any, result: Any) -> None:
        """Note an operator that does something on the device."""
        name = operator.name().removeprefix("aten::").partition(".")[0]
        given = [x for x in tree_leaves(arguments) if isinstance(x, Tensor)]
        made = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        if not made or name in ALLOCATE or name in RENAME or operator.is_view:
            return
        if not any(x.device == DEVICE for x in made):
            if any(x.device == DEVICE for x in given):
                raise CaptureError(f"{name} copies from the device to the host")
            return
        # A number in a tensor of its own is read on the host when the kernel is launched.
        hosted = [x for x in given if x.device != DEVICE]
        if any(x.dim() > 0 or name in ("_to_copy", "copy_") for x in hosted):
            raise CaptureError(f"{name} copies from the host to the device")
        self.operators.append(name)


def refuse_value(tensor: Tensor) -> None:
    """Stands in for the methods AS_NUMBER."""
    raise CaptureError(f"the value of a tensor is needed: {tensor.shape} {tensor.device}")


def from_host(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A constructor from numbers of the host; on DEVICE it calls no operator that copies them."""

    def guarded(*arguments: Any, **options: Any) -> Tensor:
        made = make(*arguments, **options)
        if made.device == DEVICE and not isinstance(arguments[0], Tensor):
            raise CaptureError(f"{make.__name__} copies from the host to the device")
        return made

    return guarded


def refuse_data_dependence(operator: Any, arguments: Any) -> None:
    """Raise for an operator that waits for the device."""
    if torch.Tag.data_dependent_output in operator.tags:
        raise CaptureError(f"{operator} waits for a value")
    dynamic = torch.Tag.dynamic_output_shape in operator.tags
    if operator.name().startswith(("aten::index.", "aten::index_put")):
        # Numbers give the shape they have; a mask is turned into them by waiting for their count.
        masks = (torch.bool, torch.uint8)
        dynamic = any(i is not None and i.dtype in masks for i in arguments[1])
    if dynamic:
        raise CaptureError(f"{operator} waits for a shape")


@contextlib.contextmanager
def recording(monkeypatch: pytest.MonkeyPatch) -> Iterator[LaunchRecorder]:
    """Inside, tensors on DEVICE are on a GPU, and what would be launched there is recorded."""
    from triton.runtime import interpreter, jit

    recorder = LaunchRecorder()
    with monkeypatch.context() as patch:
        for kind in (interpreter.InterpretedFunction, jit.JITFunction):
            patch.setattr(
                kind, "run", lambda self, *a, warmup, **k: recorder.run_kernel(self, *a, **k)
            )
        runtime.load_step()
        patch.setattr(runtime, "interpreting", lambda: False)
        patch.setattr(hopper, "launch", lambda kernel, *_: recorder.run_cuda(kernel))
        patch.setattr(TritonBackend, "availability", lambda self: Verdict(True))
        patch.setattr(TritonBackend, "supports", lambda self, call: Verdict(True))
        patch.setattr(Tensor, "is_cuda", property(lambda self: self.device == DEVICE))
        for method in AS_NUMBER:
            patch.setattr(Tensor, method, refuse_value)
        for make in (torch.tensor, torch.as_tensor):
            patch.setattr(torch, make.__name__, from_host(make))
        patch.setattr(torch, "is_autocast_enabled", lambda *device_type: False)
        patch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
        patch.setattr(torch.cuda, "get_device_properties", lambda device=None: HOPPER)
        patch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
        with recorder:
            yield recorder
