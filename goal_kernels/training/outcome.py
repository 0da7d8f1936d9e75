"""What a finished run knows, and its record in `metrics.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import goal_kernels as gk
from goal_kernels.data.split import Split
from goal_kernels.training.evaluation import Evaluation


@dataclass(frozen=True)
class Outcome:
    """What a finished run knows.

    Attributes:
        evaluation: embeddings and metrics of the evaluated split.
        split: that split, with captions and, where known, truth and scenes.
        oracle: ceiling of the split, None when unknown.
        objective: what was optimised.
        seed: of everything random.
        epochs: finished epochs of training, 0 for an evaluation.
        seconds: wall time of training and evaluation.
        warmup_steps: optimiser steps before the objective counted.
    """

    evaluation: Evaluation
    split: Split
    oracle: dict[str, Any] | None
    objective: gk.Objective
    seed: int
    epochs: int
    seconds: float
    warmup_steps: int

    def record(self) -> dict[str, Any]:
        """The content of `metrics.json`: recalls in percent, ranks from 1 as the field reports."""
        objective = self.objective
        parameters = ("tau", "alpha", "beta", "lam", "epsilon", "margin")
        return {
            "split": self.split.name,
            **self.evaluation.metrics,
            "oracle": self.oracle,
            "chance": self.evaluation.chance,
            "objective": {
                "name": objective.name,
                **{name: getattr(objective, name) for name in parameters},
                **dict(objective.parameters),
            },
            "epochs": self.epochs,
            "seconds": round(self.seconds, 1),
            "seed": self.seed,
        }
