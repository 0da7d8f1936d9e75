"""Losses over all negatives against other packages' Triton kernels, run in its interpreter.

The packages ask for CUDA tensors and for the GPU they tune themselves to; here they are told that
CPU tensors are, on compute capability 8.0. (Inf-CL's kernels hold inline assembly, which the
interpreter does not run: tools.gpu_session compares with it.)
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from cases import paired_batch
from real_packages import real_package
from torch import Tensor

import goal_kernels as gk
from goal_kernels.backends.gpu.runtime import interpreting

BATCH, WIDTH, SCALE, BIAS = 40, 32, 14.0, -9.0

pytestmark = pytest.mark.skipif(not interpreting(), reason="TRITON_INTERPRET is not set")


@pytest.fixture(autouse=True)
def _imagined_gpu(monkeypatch) -> Iterator[None]:
    monkeypatch.setenv("MEMEFF_INPUT_PRECISION", "ieee")
    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "is_cuda", property(lambda _: True))
        patch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 0))
        yield


def memeff(image: Tensor, text: Tensor) -> Tensor:
    """The mean of both directions."""
    loss = real_package("memeff").MemoryEfficientCLIPLoss
    return 2 * loss(1 / SCALE, normalized_inputs=True, stable=False)(image, text)


def siglip_kernel(image: Tensor, text: Tensor) -> Tensor:
    module = real_package("siglip_kernel.fused_siglip_kernel")
    factors = torch.tensor(SCALE).log(), torch.tensor(BIAS)
    return module.fully_fused_siglip_loss(image, text, *factors, autotune=False)


@pytest.mark.parametrize("theirs", [memeff, siglip_kernel])
def test_the_same_loss_and_gradients(theirs, monkeypatch) -> None:
    image, text = paired_batch(BATCH, WIDTH, torch.float32, noise=3.0)  # a loss that is not small
    expected_inputs = tuple(x.clone().requires_grad_() for x in (image, text))
    expected = theirs(*expected_inputs)
    gradients = torch.autograd.grad(expected, expected_inputs)
    monkeypatch.undo()
    inputs = tuple(x.requires_grad_() for x in (image, text))
    if theirs is siglip_kernel:
        found = gk.siglip_loss(*inputs, scale=SCALE, bias=BIAS, reduction="mean")
    else:
        found = gk.info_nce_loss(*inputs, scale=SCALE, reduction="mean")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    for left, right in zip(torch.autograd.grad(found, inputs), gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-5 * right.abs().max().item())
