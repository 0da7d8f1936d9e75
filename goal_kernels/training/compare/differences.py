"""What makes runs unfair to compare, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from goal_kernels.terminal import some
from goal_kernels.training.compare.contestants import Contestant
from goal_kernels.training.compare.runs import Run

NAMED = 3  # runs named for each value; the rest are counted


def _dataset(run: Run) -> str:
    data = run.config.get("data", {})
    name = Path(str(data.get("folder", "unknown"))).name
    limits = [f"{k}={data[k]}" for k in ("train_limit", "dev_limit") if data.get(k) is not None]
    digest = (run.environment.get("dataset") or {}).get("description_sha256")
    return " ".join([name, *limits, *([f"({digest[:8]})"] if digest else [])])


def batch_said(data: Mapping[str, Any]) -> str:
    """What a step takes. data: the section of a configuration."""
    batch, captions = data.get("batch_size", "unknown"), data.get("captions_per_image")
    if captions is None:
        return f"{batch} pairs"
    return f"{batch} images with {captions or 'all'} of their captions"


def _budget(run: Run) -> str:
    trainer = run.config.get("trainer", {})
    return (
        f"{run.steps if run.steps is not None else 'unknown'} steps of "
        f"{batch_said(run.config.get('data', {}))}, "
        f"max_epochs {trainer.get('max_epochs')}, max_steps {trainer.get('max_steps', -1)}"
    )


def _versions(run: Run) -> str:
    versions = run.environment.get("packages", {})
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


ASPECTS: Mapping[str, Callable[[Run], Any]] = {
    "data sets": _dataset,
    "splits": lambda run: run.split,
    "tested checkpoints": lambda run: run.checkpoint,
    "budgets": _budget,
    "versions": _versions,
    "commits": lambda run: run.commit,
}
"""What should be equal for all runs of a comparison; a new aspect is a row."""


def warnings_about(contestants: Sequence[Contestant]) -> list[str]:
    """A sentence for each aspect in which the runs differ, and for seeds that are not shared."""
    runs = [run for contestant in contestants for run in contestant.runs.values()]
    sentences = []
    for aspect, describe in ASPECTS.items():
        found: dict[str, list[str]] = {}
        for run in runs:
            found.setdefault(describe(run), []).append(run.path.name)
        if len(found) > 1:
            parts = [
                f"{value or 'unknown'} ({some(names, NAMED)})" for value, names in found.items()
            ]
            sentences.append(f"{aspect} differ: {'; '.join(parts)}")
    seeds: dict[str, list[str]] = {}
    for contestant in contestants:
        listed = " ".join(map(str, contestant.runs))
        seeds.setdefault(listed, []).append(contestant.label)
    if len(seeds) > 1:
        parts = [f"{listed} ({some(labels, NAMED)})" for listed, labels in seeds.items()]
        sentences.append(
            f"seeds differ, so that tests pair only those in common: {'; '.join(parts)}"
        )
    return sentences
