"""`graphed_loss`: the forward and the backward of a loss as two CUDA graphs.

A small batch takes less time to compute than to launch. A graph launches everything at once; in
return, shapes are fixed and results lie in memory that the next call overwrites. What this module
adds to `torch.cuda.make_graphed_callables` are the checks and copies that make that safe.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from goal_kernels import checks
from goal_kernels.modules import GOALLoss
from goal_kernels.objective import Objective

NAMES = ("image_embeddings", "text_embeddings", "image_ids", "text_ids")
"""The arguments of a loss, in order."""

WARMUP = 3
"""Calls before the capture, as in torch: the first compiles kernels, the others settle memory."""


class GraphedLoss:
    """A loss whose forward and backward are replayed; made by `graphed_loss`.

    call(image_embeddings, text_embeddings, image_ids=None, text_ids=None) -> 0-d loss. The
    arguments must be like those of the capture: the same ones, of the same shapes, dtypes, device
    and, while gradients are recorded, `requires_grad`.

    The backward of a call must come before the next call, and once: both use the same memory. The
    loss and the gradients of leaves are the caller's own; gradients that a hook sees, or that
    torch.autograd.grad returns for an embedding that was computed, are valid until the next call.
    """

    def __init__(self, criterion: GOALLoss, static: dict[str, Tensor], warmup: int) -> None:
        """Capture. static: contiguous tensors of our own, which become the inputs of the graphs."""
        self._static = static
        self._device = static[NAMES[0]].device
        self._calls = 0
        self._pending = 0

        def loss(*tensors: Tensor) -> Tensor:
            value = criterion(**dict(zip(static, tensors, strict=True)))
            assert isinstance(value, Tensor)  # without statistics
            return value

        # The operators leave autocast by themselves; torch refuses to capture inside of it.
        autocast = torch.autocast("cuda", enabled=False)
        with torch.cuda.device(self._device), autocast, _thread_local_capture():
            self._replay = torch.cuda.make_graphed_callables(
                loss, tuple(static.values()), num_warmup_iters=warmup
            )

    def __call__(
        self,
        image_embeddings: Tensor,
        text_embeddings: Tensor,
        image_ids: Tensor | None = None,
        text_ids: Tensor | None = None,
    ) -> Tensor:
        """[B, D], [B, D], optional ids [B] -> 0-d loss, float32 (float64 for float64 inputs).

        Raises: TypeError, ValueError naming the argument that differs from the capture; its
        backward RuntimeError after another call or a second time.
        """
        given = zip(NAMES, (image_embeddings, text_embeddings, image_ids, text_ids), strict=True)
        tensors = [self._check(name, value) for name, value in given if self._takes(name, value)]
        self._calls += 1
        self._pending = self._calls
        with torch.cuda.device(self._device):
            return _Own.apply(self._replay(*map(_own_gradient, tensors)), self)

    def _takes(self, name: str, value: Tensor | None) -> bool:
        if (value is None) == (name in self._static):
            expected, got = ("a tensor", "None") if value is None else ("None", "a tensor")
            raise ValueError(
                f"{name}: expected {expected} as at the capture, got {got}; make another "
                "graphed_loss for it."
            )
        return value is not None

    def _check(self, name: str, value: Any) -> Tensor:
        static = self._static[name]
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}.")
        if value.dtype != static.dtype:
            raise TypeError(
                f"{name}: expected {static.dtype} as at the capture, got {value.dtype}; cast it."
            )
        checks.check_same_device(name, value, static.device)
        if value.shape != static.shape:
            raise ValueError(
                f"{name}: expected shape {list(static.shape)} as at the capture, got "
                f"{list(value.shape)}; drop the last, smaller batch (drop_last=True), or make "
                "another graphed_loss for it."
            )
        if torch.is_grad_enabled() and value.requires_grad != static.requires_grad:
            raise ValueError(
                f"{name}: expected requires_grad={static.requires_grad} as at the capture, got "
                f"{value.requires_grad}; detach it, or make another graphed_loss for it."
            )
        return value

    def start_backward(self, call: int) -> None:
        """Allow the backward of a call. Raises: RuntimeError if its memory is gone."""
        if call != self._calls:
            raise RuntimeError(
                f"graphed_loss: expected the backward of call {self._calls}, the last one, got "
                f"that of call {call}, whose memory was overwritten; call backward before the "
                "next forward, or make one graphed_loss for each."
            )
        if self._pending != call:
            raise RuntimeError(
                "graphed_loss: expected one backward for each call, got a second one, whose "
                "memory was reused by the first; call the loss again."
            )
        self._pending = 0

    @property
    def calls(self) -> int:
        """How many calls there were."""
        return self._calls


@contextlib.contextmanager
def _thread_local_capture() -> Iterator[None]:
    """Inside, a capture forbids unsafe CUDA calls to its own thread alone.

    By default it forbids them to all, and ends with an error when a DataLoader pins memory in a
    thread of its own. `make_graphed_callables` has no option for it.
    """
    graph = torch.cuda.graph
    torch.cuda.graph = functools.partial(graph, capture_error_mode="thread_local")  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        torch.cuda.graph = graph  # type: ignore[misc]


class _Own(torch.autograd.Function):
    """A copy of the loss, which the next replay does not overwrite, and a check before backward."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, owner: GraphedLoss) -> Tensor:
        ctx.owner, ctx.call = owner, owner.calls
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        ctx.owner.start_backward(ctx.call)
        return grads[0], None


def _own_gradient(tensor: Tensor) -> Tensor:
    """The tensor, such that what becomes the `.grad` of a leaf is a copy.

    Autograd keeps the gradient it is given, here memory that the next replay overwrites.
    """
    if not (torch.is_grad_enabled() and tensor.requires_grad and tensor.is_leaf):
        return tensor
    view = tensor.view_as(tensor)
    view.register_hook(torch.clone)
    return view


def graphed_loss(
    criterion: GOALLoss | Objective | str,
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    *,
    image_ids: Tensor | None = None,
    text_ids: Tensor | None = None,
    warmup: int = WARMUP,
    **options: Any,
) -> GraphedLoss:
    """Capture the forward and backward of a loss as CUDA graphs, for batches of one shape.

        criterion = gk.graphed_loss("nca/sigmoid_ms", image, text, normalize=True)
        for image, text in batches:  # of the same shapes
            criterion(image, text).backward()

    The result equals the criterion's, bit for bit. What pays off is a batch so small that launching
    takes longer than computing.

    Args:
        criterion: a `GOALLoss`, or an objective with the options of `GOALLoss` as keywords. Later
            changes to it, and to torch.get_float32_matmul_precision(), have no effect.
        image_embeddings, text_embeddings: [B, D] on a CUDA device, as in `goal_loss`: samples, of
            which only shapes, dtypes, device and requires_grad matter.
        image_ids, text_ids: [B] integers if calls will bring them, as in `goal_loss`.
        warmup: how often the loss is computed before the capture, >= 1.

    Returns: a callable `GraphedLoss`; its docstring says what a call may do.

    Memory: the inputs once more, and what a forward and a backward need, for as long as it lives.

    Raises: TypeError, ValueError naming the argument, as `goal_loss`; also for embeddings that are
        not on a CUDA device and for return_stats=True. What the backend raises, among it
        RuntimeError where torch or the device cannot capture.
    """
    criterion = _as_criterion(criterion, options)
    checks.check_embeddings(image_embeddings, text_embeddings)
    rows, device = image_embeddings.shape[0], image_embeddings.device
    checks.check_batch(rows, text_embeddings.shape[0])
    if not image_embeddings.is_cuda:
        raise ValueError(
            f"image_embeddings: expected a CUDA device, got {device}; CUDA graphs exist nowhere "
            "else, so call the loss itself."
        )
    for name, ids in (("image_ids", image_ids), ("text_ids", text_ids)):
        if not (ids is None or isinstance(ids, Tensor)):
            raise TypeError(
                f"{name}: expected a torch.Tensor, whose place a graph remembers, got "
                f"{type(ids).__name__}; convert it with torch.as_tensor."
            )
    checks.check_ids(image_ids, text_ids, rows, rows, device)
    if isinstance(warmup, bool) or not isinstance(warmup, int) or warmup < 1:
        raise ValueError(f"warmup: expected an integer >= 1, got {warmup!r}; {WARMUP} is usual.")
    samples = zip(NAMES, (image_embeddings, text_embeddings, image_ids, text_ids), strict=True)
    static = {name: _static(sample) for name, sample in samples if sample is not None}
    return GraphedLoss(criterion, static, warmup)


def _static(sample: Tensor) -> Tensor:
    """A contiguous copy, a leaf that requires a gradient if the sample does."""
    copy = sample.detach().clone(memory_format=torch.contiguous_format)
    return copy.requires_grad_(sample.requires_grad)


def _as_criterion(criterion: GOALLoss | Objective | str, options: dict[str, Any]) -> GOALLoss:
    """A `GOALLoss` that answers a loss alone. Raises: TypeError, ValueError."""
    if not isinstance(criterion, GOALLoss):
        criterion = GOALLoss(criterion, **options)
    elif options:
        raise TypeError(
            f"{', '.join(options)}: expected no options beside a GOALLoss, which has its own; set "
            "them there, or pass its objective."
        )
    if criterion.return_stats:
        raise ValueError(
            "return_stats: expected False, got True; statistics are computed when they are read "
            "and cannot be replayed. Call goal_loss for them now and then."
        )
    return criterion
