"""What the phases of a training step allocate, counted while it is made."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from goal_kernels.training.data import Batch
from goal_kernels.training.scoring import TokenSet


class Allocations(TorchDispatchMode):
    """While it is entered, counts the bytes of tensors that operators make, until they are freed.

    live: bytes that were made and not freed. peak: the most that live has been.
    """

    def __init__(self) -> None:
        super().__init__()
        self.device = torch.device("cpu")
        self.live = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        # What operators change in place, or give another shape, was there before.
        given = {t.untyped_storage()._cdata for t in self._counted((args, kwargs))}
        for tensor in self._counted(made):
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._known and key not in given:
                size = storage.nbytes()
                self._known[key] = weakref.ref(storage, partial(self._freed, key, size))
                self.live += size
                self.peak = max(self.peak, self.live)
        return made

    def _counted(self, values: Any) -> list[Tensor]:
        leaves = tree_leaves(values)
        return [t for t in leaves if isinstance(t, Tensor) and t.device.type == self.device.type]

    def _freed(self, key: int, size: int, _: object) -> None:
        if self._known.pop(key, None) is not None:
            self.live -= size


class Step(NamedTuple):
    """Bytes of one step beyond parameters, buffers and batch.

    rows: pairs, or images, of the batch. kept: between forward and backward. passes: at the peak of
    each phase of both: what is largest in a small step need not be so in a large one. update: at
    the peak of the optimiser's. blocks: of each phase that computes scores in blocks.
    """

    rows: int
    kept: int
    passes: tuple[int, ...]
    update: int
    blocks: tuple[int, ...] = ()


class Watch(pl.Callback):
    """Notes what `Allocations` count at the turning points of each step."""

    def __init__(self) -> None:
        self.counted = Allocations()
        self.steps: list[Step] = []
        self.start = self.kept = 0
        self.passes: list[int] = []
        self.blocks: list[int] = []

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Count on the device where the step is made."""
        self.counted.device = module.device

    def on_train_batch_start(self, *_: Any) -> None:
        """A step begins."""
        self.start = self.counted.peak = self.counted.live
        self.passes, self.blocks = [], []

    def turn(self, blocks: bool = False) -> None:
        """A phase ends. blocks: of one that computes scores in blocks."""
        (self.blocks if blocks else self.passes).append(self.counted.peak)
        self.counted.peak = self.counted.live

    def watched(
        self,
        function: Callable[[TokenSet, TokenSet], Tensor],
        blocks: bool,
        images: TokenSet,
        texts: TokenSet,
    ) -> Tensor:
        """What the function makes of the tokens; it is a phase, and so is its backward."""
        self.turn()
        made = function(images, texts)
        self.turn(blocks)
        made.register_hook(lambda _: self.turn())
        for values in (images.values, texts.values):
            values.register_hook(lambda _: self.turn(blocks))
            if values.grad_fn is not None:  # where they are rows of others, whose gradient is large
                values.grad_fn.register_hook(lambda *_: self.turn())
        return made

    def on_before_zero_grad(self, *_: Any) -> None:
        """What is kept for backward is complete; gradients of the last step are still there."""
        self.kept = self.counted.live - self.start
        self.turn()

    def on_before_optimizer_step(self, *_: Any) -> None:
        """Gradients are complete."""
        self.turn()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Batch, *_: Any
    ) -> None:
        """A step has ended."""
        passes, blocks = tuple(self.passes), tuple(self.blocks)
        self.steps.append(Step(len(batch.images), self.kept, passes, self.counted.peak, blocks))
