"""A generated dataset, read without the package."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goal_kernels.data.goalworld import DatasetSummary


@dataclass(frozen=True)
class Made:
    """A generated folder, what was reported of it, and its files read without the package."""

    folder: Path
    summary: DatasetSummary

    def captions(self, split: str) -> list[str]:
        return (self.folder / f"{split}_caps.txt").read_text(encoding="utf-8").splitlines()

    def scenes(self, split: str) -> list[dict[str, Any]]:
        lines = (self.folder / f"{split}_scenes.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))
