"""Counts what Triton would compile for batches of many sizes; run without the interpreter.

    python count_compiles.py FIRST LAST COUNT

The launches of each step are recorded, and Triton's own binder tells which of them share a kernel.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from launches import DEVICE, LaunchRecorder, recording
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.jit import create_function_from_signature

import goal_kernels as gk


def main(first: int, last: int, count: int) -> None:
    backend, binders, kernels = make_backend(GPUTarget("cuda", 90, 32)), {}, set()

    def run(self: LaunchRecorder, function: Any, *arguments: Any, grid: Any, **options: Any):
        if function not in binders:
            binders[function] = create_function_from_signature(
                function.signature, function.params, backend
            )
        _, specialization, others = binders[function](*arguments, **options)
        kernels.add((function.__name__, str(specialization), str(others)))

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(LaunchRecorder, "run_kernel", run)
    with recording(monkeypatch):
        for batch in torch.linspace(first, last, count).long().tolist():
            image, text = (
                torch.empty(batch, 512, dtype=torch.bfloat16, device=DEVICE, requires_grad=True)
                for _ in range(2)
            )
            loss = gk.goal_loss(image, text, "nca/sigmoid_ms", backend="triton")
            torch.autograd.grad(loss, (image, text), torch.empty((), device=DEVICE))
    print(len(kernels))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
