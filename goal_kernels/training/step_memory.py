"""`goal-kernels memory`: what a training step needs, from small steps on parts of a batch.

What a step keeps grows in a straight line with its batch, since the similarity matrix is never
stored; so two small steps tell the memory of a large one. Scores of regions and words are matrices
of all pairs: with them it is a parabola, and three steps tell.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterable
from functools import partial
from itertools import chain
from math import prod
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader

from goal_kernels.terminal import Table, show
from goal_kernels.training.data import Batch
from goal_kernels.training.lightning_cli import RetrievalCLI
from goal_kernels.training.lightning_options import ConfigurationError, check_options
from goal_kernels.training.optimisation import Unfreezing
from goal_kernels.training.parallel_steps import split_batch

MIB = 2**20
FEATURE_ROWS, SCORE_ROWS, PICTURE_ROWS = 128, 512, 8
"""Of the largest step, for stored features, for these where pairs are scored (below a quarter of
them, blocks do not have their full size) and for pictures; each other step has half of the next."""

MANY = 2**40
"""More rows than any batch has."""

UNITS = {
    "": 1,
    **{
        f"{sign}{unit}": base**power
        for power, sign in enumerate("KMGT", 1)
        for unit, base in (("iB", 1024), ("B", 1000))
    },
}
SIZE = re.compile(r"([\d.]+)\s*([KMGT]i?B|)")


def bytes_said(size: str) -> int:
    """Bytes of "24GB", "8 GiB" or a number. Raises: ConfigurationError."""
    found = SIZE.fullmatch(size.strip())
    try:
        return int(float(found[1]) * UNITS[found[2]]) if found else int(size)
    except ValueError:
        raise ConfigurationError(
            f"--fits: expected memory such as 24GB or 8GiB, got {size!r}"
        ) from None


def bytes_of(tensors: Iterable[Any]) -> int:
    """Of those among the values that are tensors."""
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))


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
    both. update: at the peak of the optimiser's.
    """

    rows: int
    kept: int
    passes: int
    update: int


class Watch(pl.Callback):
    """Notes what `Allocations` count at the turning points of each step."""

    def __init__(self) -> None:
        self.counted = Allocations()
        self.steps: list[Step] = []
        self.start = self.kept = self.passes = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Count on the device where the step is made."""
        self.counted.device = module.device

    def on_train_batch_start(self, *_: Any) -> None:
        """A step begins."""
        self.start = self.counted.peak = self.counted.live

    def on_before_zero_grad(self, *_: Any) -> None:
        """What is kept for backward is complete; gradients of the last step are still there."""
        self.kept = self.counted.live - self.start

    def on_before_optimizer_step(self, *_: Any) -> None:
        """Gradients are complete."""
        self.passes, self.counted.peak = self.counted.peak, self.counted.live

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Batch, *_: Any
    ) -> None:
        """A step has ended."""
        step = Step(len(batch.images), self.kept, self.passes, self.counted.peak)
        self.steps.append(step)


class StepMemory(NamedTuple):
    """What a step needs, in bytes.

    steps: those that were made, of different rows. fixed: parameters and buffers. gradients,
    optimiser: of the parameters. batch: of one pair or image.
    """

    steps: tuple[Step, ...]
    fixed: int
    gradients: int
    optimiser: int
    batch: float

    def at(self, name: str, rows: int) -> float:
        """A field of `Step` for a batch of so many rows: on the line or parabola through the steps
        (Lagrange's)."""
        return sum(
            getattr(step, name)
            * prod(
                (rows - other.rows) / (step.rows - other.rows)
                for other in self.steps
                if other is not step
            )
            for step in self.steps
        )

    def peak(self, rows: int) -> float:
        """Of a whole step with a batch of so many rows."""
        return (
            self.fixed + self.batch * rows + max(self.at("passes", rows), self.at("update", rows))
        )

    def most(self, memory: int) -> int:
        """Rows of the largest batch whose step needs no more; 0 when none does."""
        least, beyond = 0, 1
        while self.peak(beyond) <= memory and beyond < MANY:
            least, beyond = beyond, 2 * beyond
        while beyond - least > 1:
            middle = (least + beyond) // 2
            least, beyond = (middle, beyond) if self.peak(middle) <= memory else (least, middle)
        return least


class MemoryCLI(RetrievalCLI):
    """The command line of `fit`, whose `fit` makes small steps and tells what they needed."""

    watch: Watch

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The options of `fit`, and `--fits`."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--fits", type=str | None, help="memory, such as 24GB")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; no run is started or resumed. Raises: ConfigurationError."""
        self.config = parser.parse_args(args)
        check_options(self.options)
        if self.options.fits is not None:
            bytes_said(self.options.fits)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """A trainer that writes nothing and validates nothing."""
        self.watch = Watch()
        writers = ("logger", "enable_checkpointing", "enable_progress_bar")
        silent: dict[str, Any] = dict.fromkeys(writers, False)
        length: dict[str, Any] = {"max_epochs": 1, "max_steps": -1, "limit_train_batches": None}
        return LightningCLI.instantiate_trainer(
            self, callbacks=[self.watch], **silent, **length, limit_val_batches=0, **kwargs
        )

    def before_fit(self) -> None:
        """Nothing is recorded."""

    def fit(self, **kwargs: Any) -> None:
        """Make the steps and print the table."""
        try:
            batch = next(iter(self.datamodule.train_dataloader()))
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        memory = self.measure(batch)
        show([table(memory, self.datamodule.batch_size, self.model.device.type)])
        print("\n" + "\n".join(self._remarks(memory)))

    def measure(self, batch: Batch) -> StepMemory:
        """Two steps each of a part of the batch and half of it; of a quarter, if pairs are scored.

        The second of each counts: the optimiser has its state, gradients of the last step are left.
        """
        rows = len(batch.images)
        halvings = 2 if self.model.score_loss is not None else 1
        most = SCORE_ROWS if halvings == 2 else FEATURE_ROWS
        if batch.images[0].ndim == 3:
            most = PICTURE_ROWS * halvings
        # Two rows a chunk in the smallest, for BatchNorm.
        least = 2**halvings * 2 * self.model.accumulate_negatives
        parts = [split_batch(batch, max(1, rows // max(most, least)))[0]]
        for _ in range(halvings):
            parts.append(split_batch(parts[-1], 2)[0])
        if len({len(part.images) for part in parts}) < len(parts):
            raise ConfigurationError(
                f"data.batch_size: expected at least {2**halvings}, got {rows}"
            )
        repeated = self.trainer.accumulate_grad_batches
        steps = [part for part in reversed(parts) for _ in range(2 * repeated)]
        self.model.unfreezing = Unfreezing(0, 0)  # the most that is trained
        listed: Any = steps
        loader = DataLoader(listed, batch_size=None, collate_fn=lambda batch: batch)
        self.datamodule.train_dataloader = lambda: loader
        with self.watch.counted:
            self.trainer.fit(self.model, datamodule=self.datamodule)
        made = self.watch.steps
        [optimizer] = self.trainer.optimizers
        parameters = list(self.model.parameters())
        copies = 1 if self.model.slow is None else 2
        return StepMemory(
            tuple(made[2 * repeated - 1 :: 2 * repeated]),
            copies * bytes_of(chain(parameters, self.model.buffers())),
            bytes_of(p for p in parameters if p.requires_grad),
            bytes_of(v for state in optimizer.state.values() for v in state.values()),
            bytes_of(batch) / rows,
        )

    def _remarks(self, memory: StepMemory) -> list[str]:
        rows = self.datamodule.batch_size
        noun = "pairs" if self.datamodule.captions_per_image is None else "images"
        slope = memory.peak(rows + 1) - memory.peak(rows)
        measured = [f"{step.rows}" for step in memory.steps]
        lines = [
            f"Measured on {', '.join(measured[:-1])} and {measured[-1]} {noun}; each more takes "
            f"{slope / MIB:.3g} MiB. Python and its libraries come on top."
        ]
        if len(memory.steps) == 2:
            lines.append(
                f"Similarities are never stored: {rows:,} x {rows:,} would take "
                f"{4 * rows**2 / MIB:,.1f} MiB."
            )
        if self.options.fits is not None:
            most = memory.most(bytes_said(self.options.fits))
            lines.append(f"{self.options.fits} hold a batch of {most:,} {noun}.")
        return lines

    def after_fit(self) -> None:
        """Nothing is tested."""


def table(memory: StepMemory, rows: int, device: str) -> Table:
    """Parts and whole of a step."""
    parts = {
        "parameters, buffers": memory.fixed,
        "gradients": memory.gradients,
        "optimiser": memory.optimiser,
        "batch": memory.batch * rows,
        "activations, embeddings, loss": memory.at("kept", rows),
    }
    whole = memory.peak(rows)
    parts["more at the peak"] = max(0.0, whole - sum(parts.values()))
    parts["whole step"] = whole
    lines = [[name, f"{size / MIB:,.1f}"] for name, size in parts.items()]
    return Table(f"a step of {rows:,} on {device}", ["", "MiB"], lines)
