"""A cell of a study: one configuration with one seed, and which warm-up it shares with others."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cell:
    """One training run of a study.

    Attributes:
        group: name of its group.
        label: contestant it belongs to; cells of one label differ by seed only.
        seed: of initialisation, order and augmentation.
        config: `data`, `model`, `trainer` and `run` as in the configuration of `fit`.
    """

    group: str
    label: str
    seed: int
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of its file: letters, digits, underscores and dashes."""
        return f"{_slug(self.label)}-seed{self.seed}"

    @property
    def warmup_steps(self) -> int:
        """Optimiser steps before the objective counts."""
        return int(self.config["model"].get("warmup_steps", 0))

    @property
    def warmup_key(self) -> str:
        """Equal for cells whose training is the same, bit for bit, until the warm-up ends.

        The warm-up is the sum of hinges, which takes nothing from the objective but the margin.
        """
        model = {k: v for k, v in self.config["model"].items() if k != "objective"}
        parameters = model.pop("objective_parameters", None) or {}
        model["margin"] = parameters.get("margin")
        text = canonical({**self.config, "model": model, "seed": self.seed})
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def canonical(config: Mapping[str, Any]) -> str:
    """One text for equal configurations, whatever the order of their entries."""
    return json.dumps(config, sort_keys=True)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")
