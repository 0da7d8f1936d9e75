"""Single stages of the extension, as `csrc/cpu/mine.h` and `apply.h` define them."""

from __future__ import annotations

import torch
from torch import Tensor

from goal_kernels import native
from goal_kernels.backends.answers import UNSCALED, GradientTerms, Mined, Scales
from goal_kernels.backends.arguments import DTYPES, addresses, as_rows, matrix_argument
from goal_kernels.backends.base import Pairing, RelativeQuery, accumulate_dtype
from goal_kernels.backends.cpu import CpuBackend

INFO = native.build_info() if native.status()[0] else {}
ISAS = [*INFO.get("usable_isas", ["baseline"]), *INFO.get("emulated_isas", [])]
"""Every instruction set that this machine can run, or emulate."""


def mine(
    backend: CpuBackend,
    image: Tensor,
    text: Tensor,
    pairing: Pairing,
    relative: RelativeQuery,
    precision: str = "highest",
    scales: Scales = UNSCALED,
) -> tuple[Mined, str]:
    """What is mined at a given threshold, and by which product."""
    image, text = as_rows(image, text)
    lengths, value = (len(image), len(text)), accumulate_dtype(image.dtype)
    kept = 0 if relative.kind == "none" else 1
    sides = [
        (
            torch.empty(length, dtype=value),
            torch.empty(length, dtype=torch.int64),
            torch.empty(kept * length, dtype=value),
            torch.empty(kept * length, dtype=torch.int64),
        )
        for length in lengths
    ]
    image_scale, text_scale = addresses(*scales)
    product = native.load().mine(
        dtype=DTYPES[image.dtype],
        image=matrix_argument(image, image_scale),
        text=matrix_argument(text, text_scale),
        width=image.shape[1],
        pairing=addresses(*pairing),
        relative=(relative.kind, relative.threshold.data_ptr(), relative.beta),
        row=addresses(*sides[0]),
        column=addresses(*sides[1]),
        precision=precision,
        threads=torch.get_num_threads(),
        isa=backend.isa,
    )
    row, column = sides
    return Mined(*row[:2], *column[:2], *row[2:], *column[2:]), product


def apply(
    backend: CpuBackend,
    grad_loss: Tensor,
    image: Tensor,
    text: Tensor,
    terms: GradientTerms,
    need: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Both gradients of any two sides with any targets."""
    image, text = as_rows(image, text)
    weights = [weight.contiguous() for weight in terms[3:]]
    grads = tuple(
        torch.empty(side.shape, dtype=side.dtype) if wanted else None
        for side, wanted in zip((image, text), need, strict=True)
    )
    native.load().apply(
        DTYPES[image.dtype],
        matrix_argument(image),
        matrix_argument(text),
        image.shape[1],
        addresses(*terms[:3]),
        addresses(*weights, grad_loss),
        addresses(*grads),
        torch.get_num_threads(),
        backend.isa,
    )
    return grads
