"""Large batches of negatives in small memory: encode in chunks, twice.

Ordinary accumulation of gradients adds up the losses of small batches, in which every anchor meets
the negatives of its own small batch alone. Here the loss sees all pairs at once. The embeddings are
computed chunk by chunk without a graph, the loss and its gradient with respect to them in one go,
and then each chunk is encoded again, with a graph, to carry its part of that gradient to the
parameters. Activations of one chunk exist at a time; the price is a second forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Chunk = TypeVar("Chunk")
RandomState = tuple[Tensor, "Tensor | None"]


@contextmanager
def _running_statistics_kept(module: nn.Module | None) -> Iterator[None]:
    """Batch statistics are used as in training, and not entered into the running ones."""
    tracking = [
        part
        for part in (module.modules() if module is not None else ())
        if isinstance(part, _BatchNorm) and part.training and part.track_running_stats
    ]
    for part in tracking:
        part.track_running_stats = False
    try:
        yield
    finally:
        for part in tracking:
            part.track_running_stats = True


def _random_state() -> RandomState:
    """State of torch's generators: the CPU's, and the current GPU's once one is in use."""
    gpu = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    return torch.get_rng_state(), gpu


@contextmanager
def _random_state_of(state: RandomState) -> Iterator[None]:
    """What is drawn inside is what was drawn after `state` was taken; outside nothing changes."""
    cpu, gpu = state
    with torch.random.fork_rng([torch.cuda.current_device()] if gpu is not None else []):
        torch.set_rng_state(cpu)
        if gpu is not None:
            torch.cuda.set_rng_state(gpu)
        yield


@contextmanager
def seeded(device: torch.device, *numbers: int) -> Iterator[None]:
    """Global generators, which dropout inside encoders draws from, seeded by the numbers."""
    seed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(seed >> np.uint64(1)))
        yield


class ChunkedEncoding(Generic[Chunk]):
    """The two passes over the chunks of one batch.

    `embed`, then any loss of the embeddings and its backward, then `backward`. Use
    `backward_in_chunks` where nothing has to happen in between.

    Args:
        encode: from a chunk to image and text embeddings [b, D], one of each at least, as many of
            either as there are in it, or to any tensors of such rows. It is called twice for each
            chunk and has to compute the same both times. Dropout from torch's global generators
            does, their state is restored; a generator of one's own does not.
        chunks: the batch, cut along its rows, no chunk empty.
        module: holds the BatchNorm modules that `encode` uses. Each chunk is normalised by its own
            statistics, as a batch of that size would be, and enters the running ones once. Without
            BatchNorm the gradient is that of the whole batch at once.
    """

    def __init__(
        self,
        encode: Callable[[Chunk], tuple[Tensor, ...]],
        chunks: Sequence[Chunk],
        module: nn.Module | None = None,
    ) -> None:
        if not chunks:
            raise ValueError("chunks: expected at least one, got none; pass the batch as one chunk")
        self.encode = encode
        self.chunks = chunks
        self.module = module
        self._states: list[RandomState] = []
        self._sizes: list[list[int]] = []  # rows of each chunk, of each tensor
        self._leaves: tuple[Tensor, ...] | None = None

    def embed(self) -> tuple[Tensor, ...]:
        """First pass: image and text embeddings, [N, D] and [M, D], leaves of a graph."""
        parts: list[tuple[Tensor, ...]] = []
        with torch.no_grad(), _running_statistics_kept(self.module):
            for chunk in self.chunks:
                self._states.append(_random_state())
                parts.append(self.encode(chunk))
        self._sizes = [[len(rows) for rows in side] for side in zip(*parts, strict=True)]
        self._leaves = tuple(torch.cat(side).requires_grad_() for side in zip(*parts, strict=True))
        return self._leaves

    def backward(
        self,
        no_sync: Callable[[], AbstractContextManager] = nullcontext,
        before_last: Callable[[tuple[Tensor, ...]], None] | None = None,
    ) -> None:
        """Second pass: from the gradients of the leaves to those of the parameters.

        Args:
            no_sync: context of every chunk but the last, such as `no_sync` of a
                DistributedDataParallel model, so that gradients are averaged once.
            before_last: called with the last chunk's embeddings before their backward.
        """
        if self._leaves is None:
            raise RuntimeError("backward: expected embed() and the loss's backward before it")
        # [b, D] for each chunk, of images and of texts; None where the loss did not look.
        gradients = [
            leaf.grad.split(sizes) if leaf.grad is not None else [None] * len(sizes)
            for leaf, sizes in zip(self._leaves, self._sizes, strict=True)
        ]
        last = len(self.chunks) - 1
        for number, (chunk, state) in enumerate(zip(self.chunks, self._states, strict=True)):
            with nullcontext() if number == last else no_sync():
                with _random_state_of(state):
                    embeddings = self.encode(chunk)
                if number == last and before_last is not None:
                    before_last(embeddings)
                pulled = [
                    (side, given[number])
                    for side, given in zip(embeddings, gradients, strict=True)
                    if side.requires_grad and given[number] is not None
                ]
                if pulled:
                    torch.autograd.backward(*zip(*pulled, strict=True))
        self._leaves = None


def backward_in_chunks(
    encode: Callable[[Chunk], tuple[Tensor, ...]],
    chunks: Sequence[Chunk],
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    module: nn.Module | None = None,
    scale: Callable[[Tensor], Tensor] | None = None,
    no_sync: Callable[[], AbstractContextManager] = nullcontext,
) -> Tensor:
    """Accumulate the gradient of a loss over all pairs with the activations of one chunk.

    Args:
        encode, chunks, module: see `ChunkedEncoding`.
        loss: from image and text embeddings [B, D] of all chunks to a 0-d loss, for instance a
            `GOALLoss`, or a `DistributedGOALLoss` whose pool is that of all processes.
        scale: such as `GradScaler.scale`, applied to the loss before its backward.
        no_sync: `no_sync` of a DistributedDataParallel model that `encode` calls.
    Returns: the loss, 0-d, detached, not scaled. Gradients are added to `.grad` of the parameters.
    """
    encoding = ChunkedEncoding(encode, chunks, module)
    value = loss(*encoding.embed())
    (value if scale is None else scale(value)).backward()
    encoding.backward(no_sync)
    return value.detach()
