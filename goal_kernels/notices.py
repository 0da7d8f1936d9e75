"""Warnings of the loss, each given once per process, as RuntimeWarning.

Nothing here waits for a device, and nothing is looked at while torch.compile or a transform of
torch.func traces, or while a dispatch mode watches: there may be no numbers then.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from goal_kernels.constants import LARGEST_COSINE

_INNER = ("goal_kernels.", "torch.")
"""Modules between the caller, whose line a warning names, and the place that warns."""

_given: set[str] = set()


def warn_once(about: str, message: str) -> None:
    """Warn unless this process was warned about it before. about: a word for it."""
    if torch.compiler.is_compiling() or about in _given:
        return
    _given.add(about)
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(_INNER):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, RuntimeWarning, stacklevel=level)


def expect(about: str) -> None:
    """Never warn about it in this process: what it would say is meant. about: as `warn_once`."""
    _given.add(about)


class SimilarityWatch:
    """Looks for similarities that rows of unit length cannot have.

    It looks at the calls 1, 2, 4, 8 ... of a process, so that looking costs nothing on average. On
    a GPU the largest is on its way while later calls are made, the first of which that finds it
    arrived warns.
    """

    def __init__(self) -> None:
        self._calls = 0
        self._pending: tuple[Tensor, Callable[[], bool]] | None = None

    def look(self, vectors: Tensor) -> None:
        """vectors: as in `Forward`, [VECTORS, B] at least; what is not finite says nothing."""
        if "length" in _given or not has_numbers(vectors):
            return
        self._calls += 1
        due = self._calls & (self._calls - 1) == 0
        pending = self._pending
        if pending is None:
            if not due:
                return
            largest = vectors[:3].detach().abs().nan_to_num(0.0, 0.0).amax()
            pending = largest.to("cpu", non_blocking=True), _query_of(largest)
        arriving, arrived = pending
        done = arrived()
        self._pending = None if done else pending
        if done and arriving.item() > LARGEST_COSINE:
            warn_once(
                "length",
                f"goal_loss: got a similarity of {arriving.item():.4g} in absolute value, expected "
                "cosines, which are at most 1: the rows are not of unit length. Pass "
                "normalize=True.",
            )


def has_numbers(tensor: Tensor) -> bool:
    """Whether numbers can be read, now or later; not within the capture of a CUDA graph."""
    if torch.compiler.is_compiling():
        return False
    if type(tensor) is not Tensor or torch._C._are_functorch_transforms_active():
        return False
    if torch._C._len_torch_dispatch_stack() > 0:
        return False
    return tensor.is_cpu or (tensor.is_cuda and not torch.cuda.is_current_stream_capturing())


def _query_of(tensor: Tensor) -> Callable[[], bool]:
    """Whether what was asked of the tensor's device so far is done."""
    if tensor.is_cpu:
        return lambda: True
    with torch.cuda.device(tensor.device):
        event = torch.cuda.Event()
        event.record()
    return event.query


similarity_watch = SimilarityWatch()
"""That of this process."""
