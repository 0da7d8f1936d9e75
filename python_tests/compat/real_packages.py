"""The packages that `goal_kernels.compat` stands in for, where they are installed."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import pytest
import torch

_KEPT: list[torch.library.Library] = []


def real_package(name: str) -> ModuleType:
    """Import it or a module of it, or skip the test.

    A torchvision that was built for CUDA declares its operators only beside such a torch, and its
    import stops at the first that is missing; declared here, none is called. open_clip imports it,
    and transformers when it is there.
    """
    if find_spec(name.partition(".")[0]) is None:
        pytest.skip(f"{name} is not installed")
    if not torch.backends.cuda.is_built() and find_spec("torchvision") and not _KEPT:
        library = torch.library.Library("torchvision", "FRAGMENT")
        _KEPT.append(library)
        for operator in ("nms", "qnms"):
            if not torch._C._dispatch_has_kernel(f"torchvision::{operator}"):
                library.define(f"{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor")
    return import_module(name)
