"""Ready-made configurations, from a unit test to the size of Flickr30K."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from goal_kernels.data.goalworld.config import GoalWorldConfig

PRESETS: Mapping[str, GoalWorldConfig] = {
    "tiny": GoalWorldConfig(train=64, dev=32, test=32),
    "demo": GoalWorldConfig(train=4_000, dev=1_000, test=1_000),
    "medium": GoalWorldConfig(train=29_000, dev=1_014, test=1_000),
}


def make_config(preset: str, changes: Mapping[str, Any]) -> GoalWorldConfig:
    """A preset with some of its parameters changed.

    Raises:
        ValueError: unknown preset, or a value out of its range.
        TypeError: unknown parameter, or a value of the wrong type.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {sorted(PRESETS)}, got {preset!r}")
    known = [field.name for field in fields(GoalWorldConfig)]
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise TypeError(f"generate_goalworld has no parameters {unknown}; it has {known}")
    return replace(PRESETS[preset], **changes)
