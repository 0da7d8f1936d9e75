"""The compiled extension `goal_kernels._native`: loaded when first needed, once."""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType
from typing import Any

# Before the extension: both want an OpenMP runtime of the same name, and the first to come decides
# which copy both use. Two copies would be two thread pools fighting for the cores.
import torch  # noqa: F401

MODULE = "goal_kernels._native"
REMEDY = (
    "Build it with `pip install .` (or `pip install -e .`) from a source tree; that needs a C++17 "
    "compiler and neither torch nor CUDA."
)

NEWEST = ("similarities",)
"""Functions that an extension of older sources lacks."""

BFLOAT16_ISAS = ("avx512_bf16", "amx")
"""Instruction sets with products of bfloat16 values."""


@cache
def _attempt() -> tuple[ModuleType | None, str]:
    """The module, or None and why it cannot be loaded. Tried once per process."""
    try:
        module = importlib.import_module(MODULE)
        missing = [name for name in NEWEST if not hasattr(module, name)]
        if missing:
            return None, f"the native extension is older than this source tree: no {missing[0]}."
        return module, ""
    except ImportError as error:
        return None, f"the native extension {MODULE} cannot be loaded ({error})."


def load() -> ModuleType:
    """The native module. Raises: ImportError with the reason and the remedy."""
    module, reason = _attempt()
    if module is None:
        raise ImportError(f"{reason} {REMEDY}", name=MODULE)
    return module


def status() -> tuple[bool, str]:
    """Whether the native module can be loaded, and if not, why, with the remedy. Never raises."""
    module, reason = _attempt()
    return (True, "") if module is not None else (False, f"{reason} {REMEDY}")


@cache
def weighs(triplet: str, pair: str) -> bool:
    """Whether the extension has twins of both elements, so that `forward` can weigh natively."""
    module = load()
    return triplet in module.TRIPLETS and pair in module.PAIRS


@cache
def multiplies_bfloat16() -> bool:
    """Whether the processor has products of bfloat16 values that the extension uses."""
    return bool(build_info()["isa"] in BFLOAT16_ISAS)


def build_info() -> dict[str, Any]:
    """How the extension was built and what it found on this machine.

    Returns: compiler (name and version), openmp (bool), isa (the instruction set in use),
        compiled_isas (all that this build has kernels for), usable_isas (those that can run here,
        slowest first), emulated_isas (slow stand-ins for tests, never chosen by themselves), cuda
        (built, devices, and the reason if there are none; when built also architecture, the
        one that the kernels need, and runtime_version and driver_version as 1000 * major +
        10 * minor).
    Raises: ImportError as `load`.
    """
    info: dict[str, Any] = load().build_info()
    return info
