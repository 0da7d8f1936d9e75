"""Histograms of (p, n): counted right, kept through a resume, read back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import goal_kernels as gk
from goal_kernels.training.density import BINS, PairDensity, read_density


def found(positive: list[float], text: list[float], image: list[float]) -> gk.MiningStatistics:
    p, n, m = (torch.tensor(values) for values in (positive, text, image))
    index = torch.zeros(len(p), dtype=torch.int64)
    return gk.MiningStatistics(p, n, m, index, index, n > 0, m > 0, p.sum(), 0.2)


def test_every_anchor_with_a_negative_is_counted_once(tmp_path: Path) -> None:
    density = PairDensity()
    none = -float("inf")
    density.add(found([0.51, 1.0, 0.9], [0.26, -1.0, none], [0.26, 1.3, float("nan")]))
    density.finish_epoch(1)
    density.add(found([-1.0], [0.0], [0.0]))
    density.finish_epoch(2)
    density.write(tmp_path / "pairs.json")
    first, second = read_density(tmp_path / "pairs.json").values()
    assert first.shape == (BINS, BINS)
    assert first[30, 25] == 2  # 0.51 in [0.5, 0.55), 0.26 in [0.25, 0.3)
    assert first[BINS - 1, 0] == 1
    assert first[BINS - 1, BINS - 1] == 1  # 1.3 counts in the outermost cell
    assert first.sum() == 4
    assert second[0, 20] == second.sum() == 2


def test_a_resumed_histogram_equals_one_that_never_stopped(tmp_path: Path) -> None:
    whole, cut = PairDensity(), PairDensity()
    for density in (whole, cut):
        density.add(found([0.5], [0.2], [0.1]))
        density.finish_epoch(1)
        density.add(found([0.6], [0.2], [0.1]))
    state = cut.state_dict()
    cut.add(found([0.7], [0.2], [0.1]))  # lost
    resumed = PairDensity()
    resumed.load_state_dict(state)
    for density, name in ((whole, "whole"), (resumed, "cut")):
        density.add(found([0.8], [0.3], [0.1]))
        density.finish_epoch(2)
        density.write(tmp_path / name)
    assert (tmp_path / "whole").read_text() == (tmp_path / "cut").read_text()


def test_what_is_no_histogram_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.json"
    with pytest.raises(FileNotFoundError, match=r"pairs\.json"):
        read_density(path)
    path.write_text('{"bins": 2, "epochs": [{"epoch": 1, "cells": [[7, 0, 1]]}]}')
    with pytest.raises(ValueError, match=r"pairs.json: expected histograms .*IndexError"):
        read_density(path)
