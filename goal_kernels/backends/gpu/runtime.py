"""How the launchers meet Triton, which is imported with the first call, and the device."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

STEP = "goal_kernels.backends.gpu.step"
COMMON = "goal_kernels.backends.gpu.kernels.common"


@functools.cache
def load_step() -> ModuleType:
    """The module `step`; imports Triton on first use.

    Raises: RuntimeError when TRITON_INTERPRET was changed after Triton had been imported, which
    leaves Triton's own functions compiled and these interpreted, or the other way round.
    """
    step = importlib.import_module(STEP)
    import triton
    import triton.language as tl

    if isinstance(tl.zeros, triton.JITFunction) == interpreting():
        raise RuntimeError(
            "TRITON_INTERPRET changed after triton was imported; set or unset it before the "
            "program starts, or at least before anything imports triton"
        )
    return step


def interpreting() -> bool:
    """Whether the kernels are interpreted, or would be if they were loaded now."""
    common = sys.modules.get(COMMON)
    if common is not None:
        return bool(common.INTERPRETED)
    # Triton's own reading of the variable.
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


def on_device(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Where to launch kernels on `tensor`: Triton launches on the current device.

    The interpreter is numpy, and computes masked lanes too: infinity minus infinity in a lane that
    is thrown away is no reason to warn.
    """
    if tensor.is_cuda:
        return torch.cuda.device(tensor.device)
    return np.errstate(invalid="ignore", over="ignore")


@functools.cache
def multiprocessors(device: torch.device) -> int:
    """Of a GPU; 1 in the interpreter, which runs programs one after another."""
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


@functools.cache
def _capability(index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)


INTERPRETED_CAPABILITY = (9, 0)
"""What the interpreter passes for: it runs the paths of the devices the kernels were made for."""


def device_capability(device: torch.device) -> tuple[int, int]:
    """Compute capability of a CUDA device; `INTERPRETED_CAPABILITY` of any other."""
    if device.type != "cuda":
        return INTERPRETED_CAPABILITY
    return _capability(torch.cuda.current_device() if device.index is None else device.index)
