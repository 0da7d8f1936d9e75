"""Where the anchors of a run are: a histogram of (p, n) for each epoch, as `pairs.json`.

`p` is the similarity of an anchor to its positive, `n` to its hardest negative. `goal-kernels
analyze --run` draws them over the landscape of the objective.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from goal_kernels.data.files import read_json, write_text
from goal_kernels.statistics import MiningStatistics

BINS = 40
"""Cells a side, of [-1, 1]; what is outside counts in the outermost."""


class PairDensity:
    """Counts the anchors of training steps, both directions; a row an epoch."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, Any]] = []
        self._counts = torch.zeros(BINS * BINS, dtype=torch.int64, device="cpu")

    def add(self, found: MiningStatistics) -> None:
        """Count the anchors of a step that have a negative; the device is never waited for."""
        self._counts = self._counts.to(found.positive.device)
        for negative in (found.negative_text, found.negative_image):
            p, n = _cells(found.positive), _cells(negative)
            counted = (found.positive - negative).isfinite()
            self._counts.scatter_add_(0, p * BINS + n, counted.to(torch.int64))

    def finish_epoch(self, epoch: int) -> None:
        """Close the row of an epoch, counted from 1, and begin the next."""
        counts = self._counts.view(BINS, BINS).cpu()
        cells = counts.nonzero()
        rows = torch.cat([cells, counts[cells[:, 0], cells[:, 1]][:, None]], dim=1)
        self.epochs.append({"epoch": epoch, "cells": rows.tolist()})
        self._counts.zero_()

    def write(self, path: Path) -> None:
        """Replace the file: cells [row of p, column of n, count] of every epoch."""
        record = {"bins": BINS, "range": [-1, 1], "epochs": self.epochs}
        write_text(path, json.dumps(record, separators=(",", ":")) + "\n")

    def state_dict(self) -> dict[str, Any]:
        """Everything, as plain values and one tensor."""
        return {"epochs": list(self.epochs), "counts": self._counts.cpu().clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where the state was taken."""
        self.epochs, self._counts = list(state["epochs"]), state["counts"].clone()


def _cells(values: Tensor) -> Tensor:
    """The cell of each similarity on one axis, int64; NaN and absent ones in the first."""
    inside = values.nan_to_num(-1.0, 1.0, -1.0).clamp(-1, 1)
    return ((inside + 1) * (BINS / 2)).to(torch.int64).clamp(max=BINS - 1)


def read_density(path: Path) -> dict[int, Tensor]:
    """Counts [BINS, BINS] float64 of each epoch, p along the first dimension.

    Raises: FileNotFoundError; ValueError naming the file.
    """
    record = read_json(path)
    try:
        bins, epochs = int(record["bins"]), {}
        for row in record["epochs"]:
            counts = torch.zeros(bins, bins, dtype=torch.float64, device="cpu")
            for p, n, count in row["cells"]:
                counts[p, n] = count
            epochs[int(row["epoch"])] = counts
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f"{path}: expected histograms of (p, n) as `goal-kernels fit` writes them, got "
            f"something else ({type(error).__name__}: {error})"
        ) from error
    return epochs
