"""`goal-kernels memory`: what a training step needs, from small steps on parts of a batch.

What a step keeps grows in a straight line with its batch, since the similarity matrix is never
stored; so two small steps tell the memory of a large one. Scores of regions and words are matrices
of all pairs: with them it is a parabola, and three steps tell, made where blocks of scores have
their full size. A step has its peak in one phase or another; each phase has its own curve.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from torch import Tensor
from torch.utils.data import DataLoader

from goal_kernels.terminal import Table, show
from goal_kernels.training.allocations import Step, Watch
from goal_kernels.training.data import Batch
from goal_kernels.training.lightning_cli import RetrievalCLI
from goal_kernels.training.lightning_options import ConfigurationError, check_options
from goal_kernels.training.optimisation import Unfreezing
from goal_kernels.training.parallel_steps import several, split_batch
from goal_kernels.training.scoring import BLOCK_PRODUCTS, GPU_BLOCK_PRODUCTS
from goal_kernels.training.warmup import WarmupSchedule

MIB = 2**20
FEATURE_ROWS, SCORE_ROWS, PICTURE_ROWS = 128, 512, 8
"""Of the largest step, for stored features, at least for these where pairs are scored, and for
pictures; each other step has half of the next."""

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

    def at(self, sizes: Sequence[int], rows: int, bent: bool = True) -> float:
        """What was so large in the steps, in a batch of so many rows: on Newton's line or parabola
        through the last steps, which rises and bends upwards or not at all."""
        places = [step.rows for step in self.steps]
        if rows in places:
            return sizes[places.index(rows)]
        slopes = [
            (sizes[n] - sizes[n - 1]) / (places[n] - places[n - 1]) for n in range(1, len(places))
        ]
        size = sizes[-1] + max(0.0, slopes[-1]) * (rows - places[-1])
        if bent and len(places) > 2:
            bend = max(0.0, (slopes[-1] - slopes[-2]) / (places[-1] - places[-3]))
            size += bend * (rows - places[-1]) * (rows - places[-2])
        return size

    def kept(self, rows: int) -> float:
        """Between forward and backward."""
        return self.at([step.kept for step in self.steps], rows)

    def peak(self, rows: int) -> float:
        """Of a whole step with a batch of so many rows."""
        phases = zip(*((step.update, *step.passes) for step in self.steps), strict=True)
        # Blocks are not of quite the same size: taken for a bend, that would grow with the square.
        more = zip(*([b - step.kept for b in step.blocks] for step in self.steps), strict=True)
        sizes = [self.at(phase, rows) for phase in phases]
        sizes += [self.kept(rows) + self.at(phase, rows, bent=False) for phase in more]
        return self.fixed + self.batch * rows + max(sizes)

    def most(self, memory: int) -> int:
        """Rows of the largest batch whose step needs no more; 0 when none does."""
        least, beyond = 0, 1
        while self.peak(beyond) <= memory and beyond < MANY:
            least, beyond = beyond, 2 * beyond
        while beyond - least > 1:
            middle = (least + beyond) // 2
            least, beyond = (middle, beyond) if self.peak(middle) <= memory else (least, middle)
        # A batch whose scores fit one block may need less than the curve of larger ones.
        return max([least, *(s.rows for s in self.steps if self.peak(s.rows) <= memory)])


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
        """Two steps each of the parts: when the second, which counts, is made, the optimiser has
        its state, and gradients of the last step are left."""
        rows = len(batch.images)
        repeated = self.trainer.accumulate_grad_batches
        steps = [part for part in self._parts(batch) for _ in range(2 * repeated)]
        self._train_all()
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

    def _train_all(self) -> None:
        """Skip what a run begins without: frozen blocks, losses after the warm-up, matching."""
        self.model.unfreezing = Unfreezing(0, 0)
        self.model.hparams["warmup_epochs"] = 0  # or else they would count again
        for loss in filter(None, (self.model.loss, self.model.score_loss)):
            # A run that blends takes most where both losses count; one that does not, has either.
            blend = MANY if loss.schedule.blend_steps else 0
            loss.schedule = replace(loss.schedule, warmup_steps=0, blend_steps=blend)
        watched: list[tuple[Any, str, bool]] = []
        if (scored := self.model.score_loss) is not None:
            watched.append((scored.scorer, "matrix", True))
        if (matching := self.model.matching_loss) is not None:
            matching.options = replace(matching.options, start_epochs=0.0)
            matching.schedule = WarmupSchedule()
            watched.append((matching.fusion, "pairs", False))
        for owner, name, blocks in watched:
            owner.__dict__[name] = partial(self.watch.watched, getattr(owner, name), blocks)

    def _parts(self, batch: Batch) -> list[Batch]:
        """A part of the batch and half of it, the smaller first; if pairs are scored also a
        quarter, of a part of the repeated batch, and before them the batch if it is smaller."""
        rows, pictures = len(batch.images), batch.images[0].ndim == 3
        scored = self.model.score_loss is not None
        halvings = 2 if scored else 1
        if rows < 2**halvings:
            raise ConfigurationError(
                f"data.batch_size: expected at least {2**halvings}, got {rows}"
            )
        most = SCORE_ROWS if scored else FEATURE_ROWS
        if pictures:
            most = PICTURE_ROWS * halvings
        whole = batch
        if scored:
            full = self._block_rows(batch)
            # Pictures are dear. If one block holds them all, so that it is kept, their parabola
            # tells too much rather than too little.
            if not pictures or full**2 < 2 * most**2:
                most = max(most, 4 * full)
        # Two rows a chunk in the smallest, for BatchNorm.
        most = max(most, 2**halvings * 2 * self.model.accumulate_negatives)
        if scored:
            whole = several(batch, math.ceil(most / rows))
        parts = [split_batch(whole, max(1, len(whole.images) // most))[0]]
        for _ in range(halvings):
            parts.append(split_batch(parts[-1], 2)[0])
        if rows < len(parts[-1].images):
            parts.append(batch)
        return parts[::-1]

    def _block_rows(self, batch: Batch) -> int:
        """Rows of a batch whose scores take two blocks: smaller ones keep one, of any size."""
        rows = len(batch.images)
        scorer = self.model.score_loss.scorer
        if scorer.options.block is not None:
            return math.ceil((2 * scorer.options.block * rows / len(batch.tokens)) ** 0.5)
        with torch.no_grad():
            _, _, regions, *_ = self.model.model(split_batch(batch, rows // 2)[0])
        on_gpu = self.trainer.strategy.root_device.type == "cuda"
        products = GPU_BLOCK_PRODUCTS if on_gpu else BLOCK_PRODUCTS
        of_a_row = regions.shape[1] * int(batch.lengths.sum()) / rows
        return math.ceil((2 * products / of_a_row) ** 0.5)

    def _remarks(self, memory: StepMemory) -> list[str]:
        rows = self.datamodule.batch_size
        noun = "pairs" if self.datamodule.captions_per_image is None else "images"
        slope = memory.peak(rows + 1) - memory.peak(rows)
        measured = [f"{step.rows}" for step in memory.steps]
        lines = [
            f"Measured on {', '.join(measured[:-1])} and {measured[-1]} {noun}, past any warm-up "
            f"and late start; one more than {rows:,} takes {slope / MIB:.3g} MiB. Python and its "
            "libraries come on top."
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
        "activations, embeddings, loss": memory.kept(rows),
    }
    whole = memory.peak(rows)
    parts["more at the peak"] = max(0.0, whole - sum(parts.values()))
    parts["whole step"] = whole
    lines = [[name, f"{size / MIB:,.1f}"] for name, size in parts.items()]
    return Table(f"a step of {rows:,} on {device}", ["", "MiB"], lines)
