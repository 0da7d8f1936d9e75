"""What the Triton launchers share: the kernels, imported late, and the device to launch on."""

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

KERNELS = "goal_kernels.backends.triton.kernels"


@functools.cache
def load_kernels() -> ModuleType:
    """The kernels; imports Triton on first use.

    Raises: RuntimeError when TRITON_INTERPRET was changed after Triton had been imported, which
    leaves Triton's own functions compiled and these interpreted, or the other way round.
    """
    kernels = importlib.import_module(KERNELS)
    import triton
    import triton.language as tl

    if isinstance(tl.zeros, triton.JITFunction) == kernels.INTERPRETED:
        raise RuntimeError(
            "TRITON_INTERPRET changed after triton was imported; set or unset it before the "
            "program starts, or at least before anything imports triton"
        )
    return kernels


def interpreting() -> bool:
    """Whether the kernels are interpreted, or would be if they were loaded now."""
    kernels = sys.modules.get(KERNELS)
    if kernels is not None:
        return bool(kernels.INTERPRETED)
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
