"""Triton backend: both mining directions from one pass over similarity tiles, on any recent GPU.

Triton is imported with the first call that needs it. Without a GPU the kernels run on CPU tensors
in Triton's interpreter, which is slow and meant for checking, when TRITON_INTERPRET=1 is set.
"""

from __future__ import annotations

import functools
import importlib.util

import torch
from torch import Tensor

from goal_kernels.backends.answers import Forward, Found
from goal_kernels.backends.base import (
    Backend,
    Call,
    Pairing,
    SearchQuery,
    Verdict,
    WeightStage,
)
from goal_kernels.backends.scores import RankCounts
from goal_kernels.backends.triton import forward, search
from goal_kernels.backends.triton.apply import square_gradients
from goal_kernels.backends.triton.configs import DTYPES, LENGTH_LIMIT, MINIMUM_CAPABILITY
from goal_kernels.backends.triton.invert import LIST_ROWS, listed, with_lists
from goal_kernels.backends.triton.ranking import count_ranks
from goal_kernels.backends.triton.runtime import interpreting, on_device
from goal_kernels.backends.triton.weigh_configs import weighs


class TritonBackend(Backend):
    """Mining and gradients on CUDA tensors, or on CPU tensors in the interpreter."""

    name = "triton"
    ranks = True
    list_rows = LIST_ROWS

    def availability(self) -> Verdict:
        """Whether Triton is installed and has something to run on."""
        if not _installed():
            return Verdict(False, "the package triton is not installed; pip install triton.")
        if interpreting():
            return Verdict(True)
        return _device_verdict()

    def supports(self, call: Call) -> Verdict:
        """float32, bfloat16 and float16 on CUDA; on the CPU only in the interpreter, by name."""
        if call.dtype not in DTYPES:
            names = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
            return Verdict(False, f"there is no Triton kernel for {call.dtype}, only for {names}.")
        if call.device_type not in ("cpu", "cuda"):
            return Verdict(False, f"device {call.device_type} is not served, only cuda.")
        if call.device_type == "cpu" and not interpreting():
            return Verdict(
                False,
                "CPU tensors run only in Triton's interpreter; set TRITON_INTERPRET=1 before the "
                "program starts.",
            )
        if call.automatic and interpreting():
            return Verdict(
                False, "Triton's interpreter is for checking; ask for it by backend='triton'."
            )
        return Verdict(True)

    def search(self, image: Tensor, text: Tensor, pairing: Pairing, query: SearchQuery) -> Found:
        """See `Backend.search`: three launches.

        Raises: ValueError when there are 2**31 - 1024 rows or columns or more.
        """
        image, text = _check_length(_rows(image)), _check_length(_rows(text))
        with on_device(image):
            return search.search(image, text, pairing, query)

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        pairing: Pairing,
        query: SearchQuery,
        stage: WeightStage,
    ) -> Forward:
        """See `Backend.forward`. An element that has no Triton twin is weighed in torch."""
        if not weighs(stage):
            found = self.search(image, text, pairing, query)
            return listed(Forward.pack(found, stage.weigh(found.positive, found.mined)))
        image, text = _check_length(_rows(image)), _check_length(_rows(text))
        with on_device(image):
            return forward.forward(image, text, pairing, query, stage)

    def backward(
        self,
        grad_loss: Tensor,
        image: Tensor,
        text: Tensor,
        vectors: Tensor,
        hardest: Tensor,
        need: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """See `Backend.backward`; normalised rows are not made. Lists are, where missing."""
        embeddings = _rows(image), _rows(text)
        with on_device(image):
            state = vectors.contiguous(), with_lists(hardest)
            return square_gradients(grad_loss, embeddings, *state, need)

    def rank(self, image: Tensor, text: Tensor, text_to_image: Tensor) -> RankCounts:
        """See `Backend.rank`. Fast products tell most pairs apart, float64 decides the others.

        The workspace is at most 50 MiB and 100 bytes per row and column; embeddings whose rows
        do not start at multiples of 16 elements are copied.

        Raises: ValueError as `search`.
        """
        _check_length(image)
        _check_length(text)
        with on_device(image):
            return count_ranks(image, text, text_to_image)


@functools.cache
def _installed() -> bool:
    """Whether Triton can be imported; asked on every call, so the search is done once."""
    found = importlib.util.find_spec("triton")
    return found is not None and found.origin is not None  # a mere folder has no origin


@functools.cache
def _device_verdict() -> Verdict:
    """Whether every visible GPU can run the kernels."""
    if torch.version.cuda is None or not torch.cuda.is_available():
        return Verdict(
            False,
            "there is no CUDA device; TRITON_INTERPRET=1 runs the kernels on the CPU, slowly.",
        )
    for device in range(torch.cuda.device_count()):
        capability = torch.cuda.get_device_capability(device)
        if capability < MINIMUM_CAPABILITY:
            found = ".".join(map(str, capability))
            return Verdict(
                False,
                f"cuda:{device} has compute capability {found}, 8.0 is needed; hide older devices "
                "with CUDA_VISIBLE_DEVICES.",
            )
    return Verdict(True)


def _rows(embeddings: Tensor) -> Tensor:
    """The embeddings with unit stride along a row, as the kernels read them; a copy if needed."""
    return embeddings if embeddings.stride(1) == 1 else embeddings.contiguous()


def _check_length(embeddings: Tensor) -> Tensor:
    if embeddings.shape[0] >= LENGTH_LIMIT:
        raise ValueError(
            f"the triton backend takes fewer than {LENGTH_LIMIT} embeddings per side, got "
            f"{embeddings.shape[0]}; split the batch"
        )
    return embeddings
