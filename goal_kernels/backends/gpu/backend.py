"""The GPU backends: `triton` chooses among its mining strategies, `cuda` is the Hopper kernel.

Both are one pipeline (`step.py`) and differ in how tiles of similarities are mined and ranked.
Triton is imported with the first call that needs it. Without a GPU the kernels run on CPU tensors
in Triton's interpreter, which is slow and meant for checking, when TRITON_INTERPRET=1 is set.
"""

from __future__ import annotations

import functools
import importlib.util

import torch
from torch import Tensor

from goal_kernels import native
from goal_kernels.backends.answers import VECTORS, Forward, Found, GradientTerms, Scales
from goal_kernels.backends.arguments import as_rows
from goal_kernels.backends.base import (
    Backend,
    Call,
    Pairing,
    SearchQuery,
    Verdict,
    WeightStage,
)
from goal_kernels.backends.gpu import hopper
from goal_kernels.backends.gpu.configs import (
    DTYPES,
    LENGTH_LIMIT,
    LIST_ROWS,
    MINIMUM_CAPABILITY,
)
from goal_kernels.backends.gpu.plan import AUTO, HOPPER, SCREEN, STRIP, TILE
from goal_kernels.backends.gpu.runtime import device_capability, interpreting, load_step, on_device
from goal_kernels.backends.reference import ReferenceBackend
from goal_kernels.backends.scores import RankCounts


class TritonBackend(Backend):
    """Mining and gradients on CUDA tensors, or on CPU tensors in the interpreter.

    strategies: what `use_strategy` may force here. strategy: the only one, AUTO to choose.
    """

    name = "triton"
    ranks = True
    list_rows = LIST_ROWS
    strategies: tuple[str, ...] = (TILE, STRIP, SCREEN)
    strategy = AUTO
    capabilities = (MINIMUM_CAPABILITY, (1000, 0), "8.0")

    def availability(self) -> Verdict:
        """Whether Triton is installed and some visible GPU can run the kernels."""
        if not _installed():
            return Verdict(False, "the package triton is not installed; pip install triton.")
        if interpreting():
            return Verdict(True)
        return _device_verdict(*self.capabilities)

    def supports(self, call: Call) -> Verdict:
        """float32, bfloat16 and float16 on CUDA; on the CPU only in the interpreter, by name."""
        if call.dtype not in DTYPES:
            names = ", ".join(DTYPES.values())
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
        return self._on_device(call)

    def _on_device(self, call: Call) -> Verdict:
        """Whether the current GPU serves, where the call is on a GPU and there are any."""
        if call.device_type != "cuda" or not torch.cuda.is_available():
            return Verdict(True)
        return _capability_verdict(torch.device("cuda"), *self.capabilities)

    def search(self, image: Tensor, text: Tensor, pairing: Pairing, query: SearchQuery) -> Found:
        """See `Backend.search`: three launches, four with sums of a large batch, seven screened.

        Raises: ValueError when there are 2**31 - 1024 rows or columns or more.
        """
        image, text = checked_rows(image, text)
        check_pairing(pairing, image, text)
        with on_device(image):
            return load_step().search(image, text, pairing, query, self.strategy)

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        pairing: Pairing,
        query: SearchQuery,
        stage: WeightStage,
    ) -> Forward:
        """See `Backend.forward`. An element that has no Triton twin is weighed in torch."""
        image, text = checked_rows(image, text)
        check_pairing(pairing, image, text)
        with on_device(image):
            return load_step().forward(image, text, pairing, query, stage, self.strategy)

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
        if len(vectors) not in (VECTORS, VECTORS + 2):
            raise ValueError(
                f"vectors: expected {VECTORS} or {VECTORS + 2} rows, got {len(vectors)}; pass what "
                "forward returned"
            )
        image, text = checked_rows(image, text)
        with on_device(image):
            return load_step().backward(grad_loss, image, text, vectors, hardest, need)

    def apply(
        self,
        grad_loss: Tensor,
        image: Tensor,
        text: Tensor,
        terms: GradientTerms,
        scales: Scales,
        need: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """See `Backend.apply`: torch's ordered sums, since the kernels know square batches only."""
        return ReferenceBackend().apply(grad_loss, image, text, terms, scales, need)

    def rank(self, image: Tensor, text: Tensor, text_to_image: Tensor) -> RankCounts:
        """See `Backend.rank`. Fast products tell most pairs apart, float64 decides the others.

        The workspace is at most 50 MiB and 100 bytes per row and column; embeddings whose rows
        do not start at multiples of 16 elements are copied.

        Raises: ValueError as `search`.
        """
        image, text = checked_rows(image, text)
        check_vector(text_to_image, "text_to_image", image, len(text))
        with on_device(image):
            return load_step().count_ranks(image, text, text_to_image)


class CudaBackend(TritonBackend):
    """The same pipeline with the CUDA kernels for compute capability 9.0 mining and ranking.

    Args:
        emulated: serve CPU tensors: the CUDA kernels emulated, the others in Triton's interpreter.
            For tests, never registered.
    """

    name = "cuda"
    strategies = (HOPPER,)
    strategy = HOPPER
    capabilities = (hopper.CAPABILITY, hopper.CAPABILITY, "9.0 (H100, H200)")

    def __init__(self, emulated: bool = False) -> None:
        self.emulated = emulated

    def availability(self) -> Verdict:
        """Whether the kernels were built, and a visible GPU can run them."""
        loaded = Verdict(*native.status())
        built = _built(self.emulated) if loaded.ok else loaded
        pipeline = super().availability() if built.ok else built
        if self.emulated or not pipeline.ok:
            return pipeline
        return _device_verdict(*self.capabilities)

    def supports(self, call: Call) -> Verdict:
        """float32 of precision high or medium, bfloat16 and float16, of any width; by name only."""
        served = "cpu" if self.emulated else "cuda"
        if call.device_type != served:
            return Verdict(False, f"it serves {served} tensors, these are on {call.device_type}.")
        if call.dtype not in DTYPES:
            names = ", ".join(DTYPES.values())
            return Verdict(False, f"it supports {names}, not {call.dtype}.")
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
        return self._on_device(call)

    def rank(self, image: Tensor, text: Tensor, text_to_image: Tensor) -> RankCounts:
        """See `Backend.rank`; no wider than `hopper.WIDEST`. Raises: ValueError."""
        image, text = checked_rows(image, text)
        check_vector(text_to_image, "text_to_image", image, len(text))
        with on_device(image):
            return hopper.count_ranks(image, text, text_to_image)


@functools.cache
def _installed() -> bool:
    """Whether Triton can be imported; asked on every call, so the search is done once."""
    found = importlib.util.find_spec("triton")
    return found is not None and found.origin is not None  # a mere folder has no origin


@functools.cache
def _device_verdict(least: tuple[int, int], most: tuple[int, int], needed: str) -> Verdict:
    """Whether a visible GPU has a compute capability from `least` to `most`."""
    if torch.version.cuda is None or not torch.cuda.is_available():
        return Verdict(
            False,
            "there is no CUDA device; TRITON_INTERPRET=1 runs Triton's kernels on the CPU, slowly.",
        )
    devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    verdicts = [_capability_verdict(device, least, most, needed) for device in devices]
    return next((verdict for verdict in verdicts if verdict.ok), verdicts[0])


def _capability_verdict(
    device: torch.device, least: tuple[int, int], most: tuple[int, int], needed: str
) -> Verdict:
    """Whether one GPU, the current one if `device` has no index, can run the kernels."""
    capability = device_capability(device)
    if least <= capability <= most:
        return Verdict(True)
    index = torch.cuda.current_device() if device.index is None else device.index
    return Verdict(
        False,
        f"cuda:{index} has compute capability {capability[0]}.{capability[1]}, {needed} is needed; "
        "choose another device by torch.cuda.set_device or CUDA_VISIBLE_DEVICES.",
    )


@functools.cache
def _built(emulated: bool) -> Verdict:
    """Whether the extension, which can be loaded, has the CUDA kernels or their emulation."""
    if emulated:
        reason = (
            "the extension was built without the emulation of the CUDA kernels; "
            "GOAL_KERNELS_EMULATION=ON builds it."
        )
        return Verdict(hasattr(native.load().cuda, "mine_emulated"), reason)
    info = native.build_info()["cuda"]
    if not info["built"]:
        return Verdict(
            False, "the extension was built without CUDA; install it where nvcc is on PATH."
        )
    # A driver runs code of its own major version of CUDA, whatever the minor one; 0: no driver.
    runtime, driver = info["runtime_version"] // 1000, info["driver_version"] // 1000
    return Verdict(
        driver == 0 or driver >= runtime,
        f"the extension was built with CUDA {runtime}, and the driver knows CUDA {driver} at most; "
        "update the driver, or install with an older nvcc on PATH.",
    )


def checked_rows(image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """Both matrices [rows, width] as the kernels read them, see `as_rows`."""
    kind = image.device.type
    image, text = as_rows(image, text, device_type=kind, dtypes=DTYPES)
    for name, matrix in (("image", image), ("text", text)):
        if matrix.shape[0] >= LENGTH_LIMIT:
            raise ValueError(
                f"{name}: expected fewer than {LENGTH_LIMIT} rows, got {matrix.shape[0]}; split "
                "the batch"
            )
    return image, text


def check_vector(tensor: Tensor | None, name: str, like: Tensor, length: int) -> None:
    """Raise ValueError unless it is None or `length` contiguous int64 on the device of `like`.

    The kernels trust this check.
    """
    if tensor is None:
        return
    fits = tensor.dtype == torch.int64 and tensor.device == like.device
    if not fits or tensor.numel() != length or not tensor.is_contiguous():
        raise ValueError(
            f"{name}: expected {length} contiguous elements of torch.int64 on {like.device}, got "
            f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device}, strides {tensor.stride()}; "
            "convert it or call .contiguous()"
        )


def check_pairing(pairing: Pairing, image: Tensor, text: Tensor) -> None:
    """Raise ValueError if index tensors are missing or of another length."""
    if (pairing.image_ids is None) != (pairing.text_ids is None):
        raise ValueError("image_ids, text_ids: expected both or none; pass the missing one")
    check_vector(pairing.target, "target", image, len(image))
    check_vector(pairing.image_ids, "image_ids", image, len(image))
    check_vector(pairing.text_ids, "text_ids", image, len(text))
