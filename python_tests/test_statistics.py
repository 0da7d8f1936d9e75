"""The statistics that come free, and the collapse flag."""

from __future__ import annotations

import pytest
import torch
from cases import paired_batch

import goal_kernels as gk


def statistics(image, text, objective="hinge/constant", **options) -> gk.MiningStatistics:
    return gk.goal_loss(image, text, objective, return_stats=True, **options)[1]


def test_summaries_are_what_they_say() -> None:
    image, text = paired_batch(30, 8)
    stats = statistics(image, text)
    similarity = image @ text.T
    off = similarity.clone().fill_diagonal_(float("-inf"))
    positive, row, column = similarity.diagonal(), off.max(1).values, off.max(0).values
    assert stats.mean_positive.item() == pytest.approx(positive.mean().item())
    both = torch.cat([row, column])
    assert stats.mean_hardest_negative.item() == pytest.approx(both.mean().item())
    gap = both - torch.cat([positive, positive])
    assert stats.active_fraction.item() == pytest.approx((gap + 0.2 > 0).double().mean().item())
    assert stats.mean_absolute_gap.item() == pytest.approx(gap.abs().mean().item())
    assert stats.value.item() == pytest.approx(torch.relu(0.2 + gap).sum().item())
    assert stats.plateau_ratio.item() == pytest.approx(stats.value.item() / (2 * 30 * 0.2))
    assert not stats.collapsed
    assert torch.equal(stats.hardest_text, off.argmax(1))
    summary = stats.summary()
    assert summary["rows_without_negative"] == 0
    assert summary["mean_positive"] == pytest.approx(positive.mean().item())


def test_the_plateau_is_flagged() -> None:
    """All similarities equal: the hinge loss is exactly 2 B margin, 51.2 at B = 128."""
    rows = torch.nn.functional.normalize(torch.randn(1, 16), dim=1).repeat(128, 1)
    loss, stats = gk.goal_loss(rows, rows, "hinge/constant", return_stats=True)
    assert loss.item() == pytest.approx(51.2, rel=1e-5)
    assert stats.collapsed
    assert stats.plateau_ratio.item() == pytest.approx(1.0, rel=1e-5)
    nearly = rows + 1e-3 * torch.randn(128, 16)
    assert statistics(nearly, rows).collapsed


@pytest.mark.parametrize("noise", [0.05, 0.7, 3.0, 50.0])
def test_training_that_works_is_never_flagged(noise) -> None:
    """From random to solved, through the point where mean negative and mean positive cross."""
    image, text = paired_batch(128, 64, noise=noise)
    assert not statistics(image, text).collapsed


def test_rows_without_negative_are_counted_and_left_out() -> None:
    image, text = paired_batch(4, 6)
    ids = torch.tensor([1, 1, 1, 1])
    stats = statistics(image, text, image_ids=ids)
    assert stats.rows_without_negative == 8
    assert stats.active_fraction == 0
    assert stats.mean_hardest_negative.isnan()
    ids = torch.tensor([1, 1, 2, 2])
    assert statistics(image, text, image_ids=ids).rows_without_negative == 0


def test_value_does_not_depend_on_the_reduction() -> None:
    image, text = paired_batch(10, 4)
    assert statistics(image, text).value == statistics(image, text, reduction="mean").value


def test_one_direction_has_no_active_anchor_in_the_other() -> None:
    image, text = paired_batch(10, 4)
    stats = statistics(image, text, "nca/sigmoid", direction="i2t")
    assert stats.active_text.all()
    assert not stats.active_image.any()
