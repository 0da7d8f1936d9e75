"""Synchronised BatchNorm against nn.BatchNorm1d with the rows of all processes."""

from __future__ import annotations

import pytest
import tasks
import torch
from processes import Processes
from torch import nn

from goal_kernels.distributed import SynchronizedBatchNorm1d, synchronize_batch_norm

CASES = [
    ([6, 6], (4,), {}),
    ([7, 2, 3], (4,), {"momentum": None}),
    ([0, 5], (4,), {"eps": 0.1}),
    ([3, 4], (4, 5), {"track_running_stats": False}),
]


@pytest.mark.parametrize(("rows", "shape", "options"), CASES)
def test_equal_to_one_process(
    processes: Processes, rows: list[int], shape: tuple[int, ...], options: dict
) -> None:
    expected, buffers = tasks.normalized([sum(rows)], shape, options)
    answers = processes.run(len(rows), tasks.normalized, rows, shape, options)
    # The features lie around 100 and 200 with a deviation of 1 and 2, so that a variance computed
    # from squares would be off by 1e-3; two summation orders of float32 differ by 1e-5.
    close = {"rtol": 1e-4, "atol": 1e-4}
    for step, (output, gradient, weight, bias) in enumerate(expected):
        own = [results[step] for results, _ in answers]
        torch.testing.assert_close(torch.cat([part[0] for part in own]), output, **close)
        torch.testing.assert_close(torch.cat([part[1] for part in own]), gradient, **close)
        torch.testing.assert_close(sum(part[2] for part in own), weight, **close)
        torch.testing.assert_close(sum(part[3] for part in own), bias, **close)
    for _, kept in answers:
        assert set(kept) == set(buffers)
        for name, value in buffers.items():
            torch.testing.assert_close(kept[name], value, rtol=1e-5, atol=1e-5)


def test_conversion_keeps_parameters_and_leaves_other_norms() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm2d(3), nn.LayerNorm(3))
    kept = [id(parameter) for parameter in model.parameters()]
    keys = list(model.state_dict())
    assert synchronize_batch_norm(model) is model
    assert [type(part) for part in model] == [
        SynchronizedBatchNorm1d,
        nn.BatchNorm2d,
        nn.LayerNorm,
    ]
    assert [id(parameter) for parameter in model.parameters()] == kept
    assert list(model.state_dict()) == keys


def test_a_single_process_is_bit_equal_to_torch() -> None:
    features = torch.randn(6, 3)
    ours, theirs = SynchronizedBatchNorm1d(3), nn.BatchNorm1d(3)
    assert torch.equal(ours(features), theirs(features))
    assert torch.equal(ours.running_var, theirs.running_var)
