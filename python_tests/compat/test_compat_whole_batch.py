"""Losses over all negatives against those of pytorch-metric-learning and open_clip."""

from __future__ import annotations

import pytest
import torch
from cases import caption_ids, paired_batch
from real_packages import real_package
from torch import Tensor

import goal_kernels as gk

BATCH = 24


def both(loss, image: Tensor, text: Tensor, labels: Tensor) -> Tensor:
    """The sum over anchors of both sides; the loss is a mean over those of one."""
    of_others = labels.clone()  # the same tensor would mean the same items
    one = loss(image, labels, ref_emb=text, ref_labels=of_others)
    other = loss(text, labels, ref_emb=image, ref_labels=of_others)
    return len(image) * (one + other)


def check(ours: Tensor, theirs: Tensor, inputs: tuple[Tensor, ...], rel: float = 1e-10) -> None:
    torch.testing.assert_close(ours, theirs, rtol=rel, atol=0)
    left, right = (torch.autograd.grad(x, inputs) for x in (ours, theirs))
    for found, expected in zip(left, right, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=rel * expected.abs().max().item())


@pytest.mark.parametrize("name", ["multi_similarity", "circle", "info_nce"])
def test_pytorch_metric_learning(name) -> None:
    losses = real_package("pytorch_metric_learning.losses")
    image, text = (x.requires_grad_() for x in paired_batch(BATCH, 16, torch.float64))
    labels = torch.arange(BATCH) if name == "info_nce" else caption_ids(BATCH)
    theirs, ours = {
        "multi_similarity": (
            losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5),
            gk.MultiSimilarityLoss(normalize=True),
        ),
        "circle": (losses.CircleLoss(m=0.25, gamma=80), gk.CircleLoss(normalize=True)),
        "info_nce": (losses.NTXentLoss(temperature=0.05), gk.InfoNCELoss(20.0, normalize=True)),
    }[name]
    check(ours(image, text, labels), both(theirs, image, text, labels), (image, text))


@pytest.mark.parametrize("name", ["ClipLoss", "SigLipLoss"])
def test_open_clip(name) -> None:
    """Theirs is the mean over pairs, ClipLoss the mean of both directions too."""
    theirs = getattr(real_package("open_clip.loss"), name)()
    image, text = paired_batch(BATCH, 16, torch.float64)
    scale, bias = torch.tensor(14.3).double(), torch.tensor(-9.0).double()
    inputs = tuple(x.requires_grad_() for x in (image, text, scale, bias))
    if name == "ClipLoss":
        expected = theirs(image, text, scale)
        found = gk.info_nce_loss(image, text, scale=scale, reduction="mean") / 2
        check(found, expected, inputs[:3])
    else:
        expected = theirs(image, text, scale, bias)
        found = gk.siglip_loss(image, text, scale=scale, bias=bias, reduction="mean")
        check(found, expected, inputs)
