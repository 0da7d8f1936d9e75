"""That a call never waits for the GPU, found out without one; and which kernels it launches.

What `tools.aot.record` records, and torch's operators, of which those raise that a CUDA graph could
not capture: the ones whose result decides something on the host or whose shape depends on data, and
copies between the host and the device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

from tools.aot.record import DEVICE, Recorder, imagined_gpu

ALLOCATE = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
RENAME = ("_unsafe_view", "_reshape_alias", "lift_fresh")
"""Operators that launch nothing, besides those that return views."""

AS_NUMBER = ("__bool__", "__int__", "__float__", "__index__")
"""Methods of a tensor that need its value; on DEVICE some answer without an operator."""


class CaptureError(AssertionError):
    """A CUDA graph could not capture this."""


class LaunchRecorder(Recorder):
    """Records what would be launched, in order.

    operators: torch's, by name; a lower bound of its launches, because one operator may launch
    several kernels (a sort does). peak: most bytes on DEVICE that tensors made inside took at a
    time; what an operator takes for itself is not known.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[str] = []
        self.peak = 0
        self._stored: dict[int, tuple[StorageWeakRef, int]] = {}

    @property
    def count(self) -> int:
        """Launches so far."""
        return len(self.kernels) + len(self.operators)

    def run_kernel(self, function: Any, *arguments: Any, **options: Any) -> None:
        for argument in arguments:
            if isinstance(argument, Tensor) and argument.device != DEVICE:
                raise CaptureError(f"{function.__name__} would read a tensor of the host")
        super().run_kernel(function, *arguments, **options)

    def run_operator(self, operator: Any, arguments: Any, options: Any) -> Any:
        refuse_data_dependence(operator, arguments)
        try:
            result = super().run_operator(operator, arguments, options)
        except NotImplementedError as error:  # What a device without data says.
            raise CaptureError(f"{operator}: {error}") from error
        self.record(operator, arguments, result)
        self.note_memory(result)
        return result

    def note_memory(self, made: Any) -> None:
        """Take new tensors into account, and those that are gone."""
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.device == DEVICE:
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)
                self._stored.setdefault(reference.cdata, (reference, storage.nbytes()))
        self._stored = {k: v for k, v in self._stored.items() if not v[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._stored.values()))

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
    recorder = LaunchRecorder()
    with monkeypatch.context() as patch:
        for method in AS_NUMBER:
            patch.setattr(Tensor, method, refuse_value)
        for make in (torch.tensor, torch.as_tensor):
            patch.setattr(torch, make.__name__, from_host(make))
        with imagined_gpu(recorder):
            yield recorder
