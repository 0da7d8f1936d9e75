"""The calls of the library whose launches are compiled: a table, one call a row.

A case runs on an imagined GPU of each of its architectures. What it launches there is compiled as
Triton would compile it for that launch, once, however many cases launch the same.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

import goal_kernels as gk
from goal_kernels.backends.choice import find_backend
from goal_kernels.backends.gpu import kernels, use_strategy
from goal_kernels.backends.gpu.plan import TILE
from tools.aot.record import DEVICE, Recorder, imagined_gpu
from tools.aot.variant import Variant

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

QUICK: tuple[int, ...] = ()
MAIN = (80, 90, 100)
FULL = (90,)
"""Architectures of a case, compute capabilities times ten; a quick case is one of each of them."""


class Case(NamedTuple):
    """One call of the library.

    architectures: QUICK, MAIN or FULL.
    shape: "pairs x width", or "images x texts x width" where it is told which belong together.
    dtype: a word of DTYPES, followed by the precision of float32 products unless it is "highest".
    call: an objective or the name of a loss, for it and its gradients; "mine"; or "rank".
    options: words. ids: of images and texts. normalize, i2t, t2i: as of `goal_loss`. own: the
        triplet element is not one of the library's. offset: rows are parts of longer ones, and not
        aligned. tile: mined by that strategy, whatever the plan says.
    """

    architectures: tuple[int, ...]
    shape: str
    dtype: str
    call: str
    options: str = ""

    @property
    def label(self) -> str:
        """The case in words."""
        return " ".join(filter(None, self[1:]))

    def on(self, arch: int) -> bool:
        """Whether it is one of an architecture."""
        return not self.architectures or arch in self.architectures


CASES = (
    # Every kernel. The batches: a multiple of 16, an even one that is not, an odd one; the small
    # are mined tile by tile, the large by strips or screened, and above 4096 positives are sorted.
    Case(QUICK, "5000x512", "bf16", "circle/linear_ms", "ids"),
    Case(QUICK, "1000x512", "bf16", "mine"),
    Case(QUICK, "5000x512", "fp32", "mine"),
    Case(QUICK, "5000x512", "bf16", "rank"),
    Case(QUICK, "5000x512", "bf16", "info_nce_loss"),
    Case(QUICK, "5000x512", "bf16", "sum_of_hinges_loss"),
    Case(QUICK, "5000x512", "bf16", "siglip_loss"),
    # Large batches: each kind of sums, and each product that tensor cores do.
    Case(FULL, "16384x512", "bf16", "hinge/constant"),
    Case(MAIN, "5000x512", "bf16", "hinge/constant"),
    Case(MAIN, "5000x512", "bf16", "hinge/constant", "ids"),
    Case(MAIN, "16384x512", "bf16", "nca/sigmoid_ms", "ids"),
    Case(MAIN, "10001x1024", "bf16", "nca/sigmoid_ms", "normalize"),
    Case(FULL, "16384x512", "bf16", "nca/linear_ms"),
    Case(FULL, "5000x256", "fp16", "circle/sigmoid_ms", "ids"),
    Case(FULL, "5000x512", "fp32 high", "hinge/constant"),
    Case(MAIN, "5000x512", "fp32 high", "nca/sigmoid_ms"),
    Case(FULL, "5000x512", "fp32 high", "nca/linear_ms", "ids"),
    Case(FULL, "5000x512", "fp32 medium", "hinge/constant", "ids"),
    Case(FULL, "5000x512", "fp32 medium", "nca/sigmoid_ms", "ids normalize"),
    Case(MAIN, "16384x300", "fp32 medium", "nca/linear_ms"),
    # Screened: products of bfloat16 copies, and those of candidates in full precision.
    Case(MAIN, "5000x512", "fp32", "hinge/constant", "ids"),
    Case(FULL, "5000x5001x300", "fp32", "mine", "normalize"),
    # Tile by tile: likewise, and products in full precision.
    Case(MAIN, "5000x512", "fp32", "circle/sigmoid_ms", "ids"),
    Case(FULL, "5000x512", "bf16", "circle/linear_ms", "tile ids"),
    Case(MAIN, "1000x512", "bf16", "nca/sigmoid_ms", "normalize"),
    Case(MAIN, "1024x512", "bf16", "circle/linear_ms", "ids"),
    Case(FULL, "1024x1024", "bf16", "constant/constant", "i2t"),
    Case(FULL, "1000x512", "fp16", "nca/linear", "t2i"),
    Case(FULL, "1000x512", "fp32", "nca/linear_ms", "normalize"),
    Case(FULL, "1000x512", "fp32", "hinge/constant", "ids"),
    Case(FULL, "1000x512", "fp32", "circle/sigmoid_ms"),
    Case(FULL, "1000x512", "fp32 high", "circle/sigmoid", "ids"),
    Case(MAIN, "1000x512", "fp32 high", "nca/sigmoid_ms", "normalize"),
    Case(FULL, "1000x512", "fp32 high", "nca/linear_ms", "ids"),
    Case(FULL, "1000x512", "fp32 medium", "hinge/constant"),
    Case(FULL, "1000x512", "fp32 medium", "nca/linear_ms", "ids"),
    Case(FULL, "1000x512", "fp32 medium", "nca/sigmoid_ms"),
    Case(FULL, "1000x65", "bf16", "circle/linear_ms", "offset ids"),
    # Mining alone, elements of one's own, ranks.
    Case(FULL, "5000x25000x512", "bf16", "mine", "normalize"),
    Case(MAIN, "1000x3000x512", "bf16", "mine", "ids"),
    Case(FULL, "1000x3000x512", "fp32 high", "mine", "ids"),
    Case(FULL, "1x1", "fp32", "mine", "normalize"),
    Case(MAIN, "1000x512", "bf16", "nca/linear_ms", "own"),
    Case(FULL, "3000x5000x512", "bf16", "nca/sigmoid_ms"),
    Case(FULL, "5000x512", "fp32 high", "nca/sigmoid_ms", "own"),
    Case(MAIN, "1000x5000x512", "fp32", "rank"),
    Case(FULL, "5001x300", "fp16", "rank"),
    # Losses over all negatives.
    Case(MAIN, "5000x512", "bf16", "info_nce_loss", "ids"),
    Case(FULL, "5001x512", "fp32 high", "info_nce_loss", "i2t"),
    Case(FULL, "5000x512", "bf16", "multi_similarity_loss"),
    Case(FULL, "5000x512", "bf16", "circle_loss"),
    Case(FULL, "5000x512", "bf16", "sum_of_hinges_loss", "ids"),
    Case(MAIN, "5000x512", "bf16", "soft_margin_loss"),
    Case(MAIN, "5000x512", "bf16", "siglip_loss", "ids"),
)


def run(case: Case) -> None:
    """Call the library on DEVICE."""
    images, *texts, width = map(int, case.shape.split("x"))
    dtype, *precision = case.dtype.split()
    words = case.options.split()

    def rows(length: int) -> Tensor:
        offset = int("offset" in words)
        whole = torch.empty(length, width + offset, dtype=DTYPES[dtype], device=DEVICE)
        return whole[:, offset:]

    def integers(length: int) -> Tensor:
        return torch.empty(length, dtype=torch.int64, device=DEVICE)

    image, text = rows(images), rows(*texts or [images])
    if case.call == "rank":
        find_backend("triton").rank(image, text, integers(len(text)))
        return
    options: dict[str, Any] = {
        "precision": precision[0] if precision else "highest",
        "normalize": "normalize" in words,
    }
    if "ids" in words:
        options |= {"image_ids": integers(images), "text_ids": integers(len(text))}
    direction = next((word for word in words if word in ("i2t", "t2i")), "both")
    leaves = image.requires_grad_(), text.requires_grad_()
    if case.call.endswith("_loss"):
        options |= {} if case.call == "siglip_loss" else {"direction": direction}
        loss = getattr(gk, case.call)(*leaves, **options)
        torch.autograd.grad(loss, leaves, torch.empty((), device=DEVICE))
        return
    options["backend"] = "triton"
    with use_strategy(TILE) if TILE in words else contextlib.nullcontext():
        if case.call == "mine":
            gk.mine(image, text, target=integers(images) if texts else None, **options)
            return
        if texts:
            options["text_to_image"] = integers(*texts)
        triplet, _, pair = case.call.partition("/")
        objective = gk.Objective((lambda p, n: n - p) if "own" in words else triplet, pair)
        loss = gk.goal_loss(*leaves, objective, direction=direction, **options)
        torch.autograd.grad(loss, leaves, torch.empty((), device=DEVICE))


def variants(arch: int, cases: Iterable[Case]) -> list[Variant]:
    """All that the cases launch on an architecture, each once."""
    found: dict[str, Variant] = {}
    for case in cases:
        recorder = Recorder()
        with imagined_gpu(recorder, (arch // 10, arch % 10)):
            run(case)
        for launch in recorder.kernels:
            variant = Variant.of_launch(launch, arch)
            found.setdefault(repr(variant), replace(variant, label=case.label))
    return list(found.values())


def kernel_names() -> set[str]:
    """Every kernel of the package; by convention the jit functions that are launched end so."""
    modules = pkgutil.iter_modules(kernels.__path__, f"{kernels.__name__}.")
    return {
        name
        for module in modules
        for name in vars(importlib.import_module(module.name))
        if name.endswith("_kernel")
    }
