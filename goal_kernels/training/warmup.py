"""Warm-up of hardest-negative training: a sum over all negatives first, the objective later.

Hardest-negative losses started from random encoders tend to collapse: every embedding becomes
equal and the loss stays at 2 * B * margin. A phase that pulls on all negatives avoids it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from goal_kernels import MiningStatistics, NegativeMemory, Objective, Sampled, sum_of_hinges_loss
from goal_kernels.distributed import DistributedGOALLoss, GatheredPairs, sharing
from goal_kernels.training.objectives import WholeBatchObjective

HARDEST = "hardest"
HOLD_PATIENCE = 20  # steps in a row; a healthy run may start from embeddings that are all alike


@dataclass(frozen=True)
class WarmupSchedule:
    """How much of the objective counts at each optimiser step.

    Attributes:
        warmup_steps: steps of `sum_of_hinges_loss` alone.
        blend_steps: steps after them over which the objective takes over linearly; 0 switches
            at once. The two losses are blended as they are: the sum of hinges is larger by up to
            a factor of B - 1, so that the objective is felt late in the blend.
        margin: of that loss, >= 0, a similarity; the objective's when None.
    """

    warmup_steps: int = 0
    blend_steps: int = 0
    margin: float | None = None

    def __post_init__(self) -> None:
        for name in ("warmup_steps", "blend_steps"):
            value = getattr(self, name)
            if value < 0:
                raise ValueError(f"{name}: expected a number of steps >= 0, got {value}")
        if self.margin is not None and not self.margin >= 0:
            raise ValueError(f"warmup_margin: expected a number >= 0, got {self.margin}")

    def weight(self, step: int) -> float:
        """Share of the objective at `step` (0 is the first), in [0, 1]."""
        after = step - self.warmup_steps
        if after < 0:
            return 0.0
        return min(1.0, (after + 1) / (self.blend_steps + 1))


@dataclass
class CollapseHold:
    """Keeps the schedule in its warm-up, or returns to it, while training is collapsed.

    After `patience` collapsed steps in a row the schedule stands still and only the sum of hinges
    counts. After as many healthy steps in a row it goes on: with what was left of the warm-up, or
    with the blend from its start. All there is to save is numbers, see `state_dict`.

    Attributes:
        patience: steps in a row that change the state, >= 1.
        held: whether the schedule stands still.
        streak: steps in a row that speak against the present state.
        delay: steps that the schedule is behind the optimiser's.
    """

    patience: int = HOLD_PATIENCE
    held: bool = False
    streak: int = 0
    delay: int = 0

    def position(self, step: int) -> int:
        """Place in the schedule at optimiser step `step`."""
        return step - self.delay

    def observe(self, collapsed: bool, step: int, schedule: WarmupSchedule) -> None:
        """Take in what mining found at `step`, after which the next step is decided."""
        held_before = self.held
        self.streak = self.streak + 1 if collapsed != self.held else 0
        if self.streak >= self.patience:
            self.held, self.streak = not self.held, 0
        if self.held or held_before:
            standing = min(self.position(step), schedule.warmup_steps)
            self.delay = step + 1 - standing

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers by name."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; the patience stays as configured."""
        for field in fields(self):
            if field.name != "patience":
                setattr(self, field.name, state[field.name])


@dataclass
class CollapsedSteps:
    """Counts the collapsed steps of an epoch; the device is never waited for between its ends.

    Attributes: steps: of the epoch so far. collapsed: so many of them; a 0-d tensor once one has
        been counted.
    """

    steps: int = 0
    collapsed: int | Tensor = 0

    def count(self, statistics: MiningStatistics) -> None:
        """One step."""
        self.collapsed = self.collapsed + statistics.collapsed
        self.steps += 1

    def warning(self, epoch: int) -> str | None:
        """What to say at the end of an epoch when most of its steps were collapsed, else None.

        Most, since the first steps of a healthy run may start from embeddings that are all alike.
        """
        collapsed = int(self.collapsed)
        if 2 * collapsed <= self.steps:
            return None
        return (
            f"COLLAPSED: in {collapsed} of {self.steps} steps of epoch {epoch} all similarities "
            "were nearly equal, so nothing is learnt. Warm up longer (--model.warmup_steps), blend "
            "in (--model.blend_steps), hold the warm-up meanwhile (--model.hold_on_collapse true) "
            "or lower the learning rate (--model.lr)."
        )


def check_memory(rows: int, mask_same_image: bool, momentum: float) -> None:
    """Raises: ValueError for an impossible size, where an image would meet itself, or for a
    momentum of no memory."""
    if rows < 0:
        raise ValueError(f"model.negative_memory: expected a number of rows >= 0, got {rows}")
    if momentum and not rows:
        raise ValueError(
            f"model.memory_momentum: expected 0 without a memory, got {momentum}; give "
            "model.negative_memory too"
        )
    if rows and not mask_same_image:
        raise ValueError(
            "model.mask_same_image: expected true with model.negative_memory, where an image that "
            "comes again would be a negative of its own captions, got false; leave one of them out"
        )


class WarmedLoss(nn.Module):
    """`sum_of_hinges_loss` first, then the objective, by `schedule`, of all processes' pairs.

    The step is an argument, so that a resumed run continues where it was. What else a resumed run
    needs is in `hold` and `memory`, which are no part of the module's state: they are no weights.

    Args:
        objective: a GOAL objective, or a `WholeBatchObjective`.
        schedule: when the objective counts; may be replaced before training.
        backend: of mining and loss.
        hold: stops the schedule while training is collapsed; None never does.
        memory: rows of earlier batches, of each side, that are further negatives of the objective;
            they fill up in the warm-up. All processes hold the same. 0: none.
        precision: of float32 products, as in `goal_loss`; scores need "highest".
        mined_for_matching: a matching head takes what is mined, so that it may be chosen although
            the objective counts all negatives.
        part: of the configuration that the options are of, for messages.
        selection: `negatives` and limits of false negatives of `GOALLoss`, for the objective alone:
            the warm-up is on all negatives.

    Attributes: active_pairs, 0-d, the share of similarities with a weight in the last step's loss
        over all negatives; None where only the objective counted.
    """

    def __init__(
        self,
        objective: Objective,
        schedule: WarmupSchedule,
        backend: str,
        hold: CollapseHold | None = None,
        memory: int = 0,
        precision: str | None = None,
        mined_for_matching: bool = False,
        part: str = "model",
        **selection: Any,
    ) -> None:
        super().__init__()
        self.objective = objective
        self.objective_loss = DistributedGOALLoss(
            objective,
            backend=backend,
            return_stats=True,
            gathered=True,
            precision=precision,
            **selection,
        )
        self.precision = precision
        self.schedule = schedule
        self.hold = hold
        self.memory: NegativeMemory | None
        # As a submodule it would be among the weights of every checkpoint.
        self.__dict__["memory"] = NegativeMemory(memory) if memory else None
        self.active_pairs: Tensor | None = None
        mined = {} if mined_for_matching else selection
        given = {**mined, "negative_memory": memory or None}
        chosen = {name: value for name, value in given.items() if value not in (None, HARDEST)}
        if chosen and isinstance(objective, WholeBatchObjective):
            raise ValueError(
                f"{', '.join(f'{part}.{name}' for name in chosen)}: expected defaults, since the "
                f"objective {objective.name} counts all negatives, got "
                f"{', '.join(str(value) for value in chosen.values())}; choose another "
                f"{part}.objective, or leave them out"
            )

    def weight(self, step: int) -> float:
        """Share of the objective at optimiser step `step`, in [0, 1]."""
        if self.hold is None:
            return self.schedule.weight(step)
        return 0.0 if self.hold.held else self.schedule.weight(self.hold.position(step))

    def resume_state(self, with_memory: bool) -> dict[str, Any]:
        """Numbers and tensors that a resumed run needs beside the weights.

        with_memory: also the rows of the memory, up to its size.
        """
        hold, memory = self.hold, self.memory if with_memory else None
        return {
            "hold": hold.state_dict() if hold is not None else None,
            "memory": memory.get_extra_state() if memory is not None else {},
        }

    def load_resume_state(self, state: dict[str, Any]) -> None:
        """Continue where `resume_state` was taken, by this loss or one with other options."""
        if self.hold is not None and state["hold"] is not None:
            self.hold.load_state_dict(state["hold"])
        if self.memory is not None:
            self.memory.set_extra_state(state.get("memory", {}))

    def forward(
        self,
        pairs: GatheredPairs,
        step: int,
        seed: int = 0,
        stored: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, MiningStatistics]:
        """Loss at one optimiser step.

        Args:
            pairs: of all processes, unit rows; with image_ids where there is a memory. Texts with
                -1 as text_to_image are negatives that were chosen, never left out as false ones.
            step: optimiser steps taken so far.
            seed: of negatives that are drawn, another one each step.
            stored: what the memory is to hold instead of the embeddings, of all processes.
        Returns: 0-d loss, and what mining found, in the warm-up too.
        """
        images, texts, ids, of_texts, owner = pairs
        chosen = None if owner is None else owner < 0
        weight = self.weight(step)
        if isinstance(self.objective_loss.negatives, Sampled):
            self.objective_loss.negatives = replace(self.objective_loss.negatives, seed=seed)
        whole = isinstance(self.objective, WholeBatchObjective)
        mining: Callable[..., Any] = self.objective_loss
        if self.memory is not None:
            mining = partial(self.memory, mining, stored=stored)
        known: dict[str, Any] = {"image_ids": ids, "text_ids": of_texts, "text_to_image": owner}
        with torch.set_grad_enabled(torch.is_grad_enabled() and weight > 0 and not whole):
            loss, statistics = mining(images, texts, exempt_texts=chosen, **known)
        self.active_pairs = None
        with sharing():
            if isinstance(self.objective, WholeBatchObjective) and weight > 0:
                loss, found = self.objective.loss(
                    images, texts, precision=self.precision, return_stats=True, **known
                )
                self.active_pairs = found.active_fraction
            if weight < 1:
                margin = self.schedule.margin
                hinges, found = sum_of_hinges_loss(
                    images,
                    texts,
                    margin=self.objective.margin if margin is None else margin,
                    precision=self.precision,
                    return_stats=True,
                    **known,
                )
                self.active_pairs = found.active_fraction
                loss = (1 - weight) * hinges + weight * loss
        if self.hold is not None:
            self.hold.observe(bool(statistics.collapsed), step, self.schedule)
        return loss, statistics

    def of_scores(
        self, scores: Tensor, pairs: GatheredPairs, step: int, seed: int = 0
    ) -> tuple[Tensor, MiningStatistics]:
        """`forward` for scores [N, M] of the pairs instead of their embeddings.

        Scores are their own products with unit vectors, so every loss takes them; the gradient is
        that of `goal_loss_from_similarity`.
        """
        unit = torch.eye(scores.shape[1], dtype=scores.dtype, device=scores.device)
        return self(pairs._replace(image_embeddings=scores, text_embeddings=unit), step, seed)
