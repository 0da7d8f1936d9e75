"""Encoders and the dual encoder: unit rows, and padding that changes nothing."""

from __future__ import annotations

import math

import pytest
import torch

from goal_kernels.training.data import Batch
from goal_kernels.training.encoders import RegionEncoder, TextEncoder
from goal_kernels.training.model import VSE, build_model
from goal_kernels.training.options import DataSizes, ImageOptions, TextOptions


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_image_alone_equals_image_in_a_padded_batch() -> None:
    encoder = RegionEncoder(10, 16).eval()
    regions = torch.randn(3, 7, 10)
    sizes = (2, 7, 4)
    mask = torch.arange(7) < torch.tensor(sizes)[:, None]
    together = encoder(regions.masked_fill(~mask[:, :, None], math.nan), mask)
    for row, size in enumerate(sizes):
        alone = encoder(regions[row : row + 1, :size], torch.ones(1, size, dtype=torch.bool))
        torch.testing.assert_close(together[row : row + 1], alone)


def test_caption_alone_equals_caption_in_a_padded_batch() -> None:
    encoder = TextEncoder(50, 12, 16).eval()
    tokens = torch.randint(4, 50, (3, 9))
    lengths = torch.tensor([3, 9, 5])
    together = encoder(tokens, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = encoder(tokens[row : row + 1, :length], torch.tensor([length]))
        torch.testing.assert_close(together[row : row + 1], alone)


def test_batch_statistics_hold_no_padding() -> None:
    encoder = RegionEncoder(10, 16).train()
    regions = torch.randn(4, 5, 10)
    mask = torch.arange(5) < torch.tensor([5, 2, 3, 1])[:, None]
    encoder(regions * 1e3 * ~mask[:, :, None] + regions * mask[:, :, None], mask)
    hidden = encoder.mlp[0](regions[mask])
    expected = encoder.mlp[1].momentum * hidden.mean(dim=0)  # from a running mean of 0
    torch.testing.assert_close(encoder.mlp[1].running_mean, expected)


def test_rows_have_unit_length() -> None:
    images = RegionEncoder(10, 16)(torch.randn(4, 5, 10), torch.ones(4, 5, dtype=torch.bool))
    texts = TextEncoder(50, 12, 16)(torch.randint(4, 50, (4, 6)), torch.full((4,), 6))
    for embeddings in (images, texts):
        assert embeddings.shape == (4, 16)
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(4))


def some_batch() -> Batch:
    return Batch(
        torch.randn(6, 5, 10),
        torch.ones(6, 5, dtype=torch.bool),
        torch.randint(4, 50, (6, 8)),
        torch.full((6,), 8),
        torch.arange(-1, 7).expand(6, -1),
        torch.arange(6),
    )


def some_model(probability: float = 0.2) -> VSE:
    image = ImageOptions(drop_probability=probability)
    return build_model(image, TextOptions("bigru", 12, probability), DataSizes(10, 50), 16)


def test_every_parameter_learns() -> None:
    model = some_model()
    images, texts = model(some_batch())
    (images * texts).sum().backward()
    assert all((p.grad is not None and p.grad.any()) for p in model.parameters())


def test_augmentation_changes_words_and_masks_only() -> None:
    batch = some_batch()
    changed = some_model(0.5).augment(batch, torch.Generator().manual_seed(3))
    assert changed.images is batch.images
    assert torch.equal(changed.image_ids, batch.image_ids)
    assert not torch.equal(changed.tokens, batch.tokens)
    assert not torch.equal(changed.image_mask, batch.image_mask)
    assert some_model(0).augment(batch, torch.Generator()) is batch
