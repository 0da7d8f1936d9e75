"""Run folders written by hand, as `fit` leaves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

RECALLS = ("R@1", "R@5", "R@10")
CHANCE = {d: dict(zip(RECALLS, (1.0, 2.0, 3.0), strict=True)) for d in ("i2t", "t2i")}


def metrics(rsum: float) -> dict[str, Any]:
    """Recalls that differ from each other and add up to `rsum`."""
    shares = (0.1, 0.15, 0.2, 0.12, 0.18, 0.25)
    values = [rsum * share for share in shares]
    return {
        "i2t": dict(zip(RECALLS, values[:3], strict=True)),
        "t2i": dict(zip(RECALLS, values[3:], strict=True)),
        "rsum": rsum,
    }


def write_run(
    folder: Path,
    objective: str,
    seed: int,
    rsum: float | None,
    *,
    model: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    started: str = "2026-01-01T00:00:00+00:00",
    torch: str = "2.13.0",
    split: str = "test",
    command: str = "fit",
    **record: Any,
) -> Path:
    """A run folder; unfinished when `rsum` is None."""
    folder.mkdir(parents=True)
    config = {
        "seed_everything": seed,
        "run": {"name": folder.name, "root": "runs"},
        "data": {"folder": "data/here", "batch_size": 8, "seed": seed, **(data or {})},
        "model": {"objective": objective, "lr": 0.1, "seed": seed, **(model or {})},
        "trainer": {"max_epochs": 2},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    environment = {
        "seed": seed,
        "started": started,
        "command": ["goal-kernels", command],
        "packages": {"torch": torch},
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    if rsum is not None:
        result = {
            **metrics(rsum),
            "seed": seed,
            "split": split,
            "chance": {**CHANCE, "rsum": 12.0},
            "oracle": metrics(500.0),
            **record,
        }
        (folder / "metrics.json").write_text(json.dumps(result))
    return folder
