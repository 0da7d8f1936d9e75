"""The `cuda` backend: native kernels for NVIDIA Hopper GPUs, on tensor cores. Never stores [N, M].

float16 and bfloat16 are multiplied exactly and accumulated in float32; float32 is split into two
bfloat16 parts ("high") or rounded to one ("medium"), and the similarities of mined pairs are
computed anew in float32. When `emulated` the same code runs on the processor, warp by warp.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from goal_kernels import native
from goal_kernels.backends.answers import (
    UNSCALED,
    VECTORS,
    Forward,
    Found,
    GradientTerms,
    Mined,
    unpack_terms,
)
from goal_kernels.backends.base import (
    Call,
    Pairing,
    RelativeQuery,
    SearchQuery,
    Verdict,
    WeightStage,
)
from goal_kernels.backends.composed import ComposedBackend
from goal_kernels.backends.cuda.batch import Batch
from goal_kernels.backends.cuda.gradients import Gradients, Values
from goal_kernels.backends.cuda.kernels import DTYPES, Kernels
from goal_kernels.backends.cuda.ranking import count_ranks
from goal_kernels.backends.scores import RankCounts

CAPABILITY = (9, 0)
"""The only one: code for warpgroup products runs on no newer architecture."""


class CudaBackend(ComposedBackend):
    """The CUDA stages behind the contract.

    Args:
        emulated: run them on the processor, on CPU tensors; slow, for tests, never registered.
        programs: see `Kernels`.
    """

    name = "cuda"
    ranks = True

    def __init__(self, emulated: bool = False, programs: int = 0) -> None:
        self.kernels = Kernels(emulated, programs)

    def availability(self) -> Verdict:
        """Whether the kernels were built, and every visible GPU can run them."""
        loaded = Verdict(*native.status())
        if not loaded.ok:
            return loaded
        return _emulation_verdict() if self.kernels.emulated else _device_verdict()

    def supports(self, call: Call) -> Verdict:
        """float32 of precision high or medium, bfloat16 and float16, of any width; by name only."""
        served = self.kernels.device_type
        if call.device_type != served:
            return Verdict(False, f"it serves {served} tensors, these are on {call.device_type}.")
        if call.dtype not in DTYPES:
            supported = ", ".join(DTYPES.values())
            return Verdict(False, f"it supports {supported}, not {call.dtype}.")
        if call.dtype == torch.float32 and call.precision == "highest":
            return Verdict(
                False,
                "tensor cores do not multiply float32 in full: precision='high' splits it into "
                "two bfloat16 parts, backend='triton' serves 'highest'.",
            )
        if call.automatic:
            return Verdict(
                False,
                "its kernels have not been verified on a GPU yet; ask for it by backend='cuda'.",
            )
        return Verdict(True)

    def mine(
        self,
        image: Tensor,
        text: Tensor,
        pairing: Pairing,
        relative: RelativeQuery,
        precision: str,
    ) -> Mined:
        """See `Backend.mine`."""
        query = SearchQuery(relative.kind, 0.0, relative.beta, False, precision)
        threshold = None if relative.kind == "none" else relative.threshold
        with self.kernels.on_device(image):
            return Batch(self.kernels, image, text, pairing, query, threshold).search().mined

    def search(self, image: Tensor, text: Tensor, pairing: Pairing, query: SearchQuery) -> Found:
        """See `Backend.search`. Three launches, four with relative sums."""
        with self.kernels.on_device(image):
            return Batch(self.kernels, image, text, pairing, query).search()

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        pairing: Pairing,
        query: SearchQuery,
        stage: WeightStage,
    ) -> Forward:
        """See `Backend.forward`. An element that has no native twin is weighed in torch."""
        if not native.weighs(stage.triplet, stage.pair):
            return super().forward(image, text, pairing, query, stage)
        with self.kernels.on_device(image):
            return Batch(self.kernels, image, text, pairing, query).forward(stage)

    def apply(
        self,
        grad_loss: Tensor,
        image: Tensor,
        text: Tensor,
        terms: GradientTerms,
        need: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """See `Backend.apply`."""
        with self.kernels.on_device(image):
            gradients = Gradients(self.kernels)
            return gradients.apply(grad_loss, image, text, terms, need, UNSCALED, Values())

    def backward(
        self,
        grad_loss: Tensor,
        image: Tensor,
        text: Tensor,
        vectors: Tensor,
        hardest: Tensor,
        need: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """See `Backend.backward`; normalised rows are not made."""
        if len(vectors) not in (VECTORS, VECTORS + 2):
            raise ValueError(
                f"vectors: expected {VECTORS} or {VECTORS + 2} rows, got {len(vectors)}; pass what "
                "forward returned"
            )
        vectors = vectors.contiguous()
        terms, scales = unpack_terms(vectors, hardest.contiguous())
        values = Values() if scales.image is None else Values(*vectors[:3].unbind())
        with self.kernels.on_device(image):
            gradients = Gradients(self.kernels)
            return gradients.apply(grad_loss, image, text, terms, need, scales, values)

    def rank(self, image: Tensor, text: Tensor, text_to_image: Tensor) -> RankCounts:
        """See `Backend.rank`; no wider than `ranking.WIDEST`."""
        with self.kernels.on_device(image):
            return count_ranks(self.kernels, image, text, text_to_image)


def _emulation_verdict() -> Verdict:
    """Whether the emulation was built."""
    if hasattr(native.load().cuda, "mine_emulated"):
        return Verdict(True)
    return Verdict(
        False,
        "the extension was built without the emulation of the CUDA kernels; GOAL_KERNELS_EMULATION="
        "ON builds it.",
    )


@functools.cache
def _device_verdict() -> Verdict:
    """Whether the kernels were built, and every visible GPU can run them."""
    if not native.build_info()["cuda"]["built"]:
        return Verdict(
            False, "the extension was built without CUDA; install it where nvcc is on PATH."
        )
    if torch.version.cuda is None or not torch.cuda.is_available():
        return Verdict(False, "there is no CUDA device.")
    for device in range(torch.cuda.device_count()):
        capability = torch.cuda.get_device_capability(device)
        if capability != CAPABILITY:
            found = ".".join(map(str, capability))
            return Verdict(
                False,
                f"cuda:{device} has compute capability {found}, the kernels need 9.0 (H100, H200); "
                "hide other devices with CUDA_VISIBLE_DEVICES.",
            )
    return Verdict(True)
