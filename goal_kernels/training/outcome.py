"""Results of a finished run, and their record in `metrics.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import goal_kernels as gk
from goal_kernels.data.split import Split
from goal_kernels.training.evaluation import Evaluation


@dataclass(frozen=True)
class CheckpointResult:
    """One checkpoint of a run on the evaluated split.

    Attributes:
        epoch: epochs of training behind it, the one it stands in included.
        step: optimiser steps behind it.
        dev_rsum: rsum on the dev split, None when that was not measured.
        metrics: `gk.retrieval_metrics` on the evaluated split.
    """

    epoch: int
    step: int
    dev_rsum: float | None
    metrics: Mapping[str, Any]

    def record(self) -> dict[str, Any]:
        """Its part of `metrics.json`."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "dev_rsum": self.dev_rsum,
            **self.metrics,
        }


@dataclass(frozen=True)
class Outcome:
    """Results of a finished run.

    Attributes:
        evaluation: embeddings and metrics of the evaluated split.
        split: that split, with captions and, where known, truth and scenes.
        oracle: ceiling of the split, None when unknown.
        objective: what was optimised.
        seed: of everything random.
        epochs: finished epochs of training, 0 for an evaluation.
        seconds: wall time of training, all sessions, and of evaluation.
        warmup_steps: optimiser steps before the objective counted.
        checkpoints: results by checkpoint: "best" (highest rsum on dev) and "last" (end of the
            training) after a training, none after an evaluation. Tables of the field mix the two.
        selected: which of them `evaluation` is of; None after an evaluation.
        dev: the dev split of a training, for its examples.
        ridge: `ridge_metrics` of the data where they were asked for.
    """

    evaluation: Evaluation
    split: Split
    oracle: dict[str, Any] | None
    objective: gk.Objective
    seed: int
    epochs: int
    seconds: float
    warmup_steps: int
    checkpoints: Mapping[str, CheckpointResult] = field(default_factory=dict)
    selected: str | None = None
    dev: Split | None = None
    ridge: Mapping[str, Any] | None = None

    @property
    def where(self) -> str:
        """The evaluated split in words; they say so when it is the one that was trained on."""
        seen = ", on which it was trained" if self.split.name == "train" else ""
        return f"{self.split.name} split{seen}"

    def record(self) -> dict[str, Any]:
        """The content of `metrics.json`: recalls in percent, ranks from 1 as the field reports.

        The metrics at the top are those of the selected checkpoint.
        """
        objective = self.objective
        parameters = ("tau", "alpha", "beta", "lam", "epsilon", "margin")
        return {
            "split": self.split.name,
            **self.evaluation.metrics,
            "oracle": self.oracle,
            "chance": self.evaluation.chance,
            **({} if self.ridge is None else {"ridge": self.ridge}),
            **(
                {"rankings": self.evaluation.rankings, "scoring": self.evaluation.scoring}
                if self.evaluation.rankings
                else {}
            ),
            **({"siblings": self.evaluation.siblings} if self.evaluation.siblings else {}),
            "selected": self.selected,
            **{name: result.record() for name, result in self.checkpoints.items()},
            "objective": {
                "name": objective.name,
                **{name: getattr(objective, name) for name in parameters},
                **dict(objective.parameters),
            },
            "warmup_steps": self.warmup_steps,
            "epochs": self.epochs,
            "seconds": self.seconds,
            "seed": self.seed,
        }
