"""Encoders of sets of regions: padding that changes nothing, and what the papers compute."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from goal_kernels.training.data import ImageBatch
from goal_kernels.training.encoders.region import RegionEncoder
from goal_kernels.training.options import DataSizes, ImageOptions
from goal_kernels.training.pooling import POOLINGS

SETS = [name for name, kind in POOLINGS.items() if not kind.ordered]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def make(width: int = 10, embed_dim: int = 16, **options) -> RegionEncoder:
    return RegionEncoder(ImageOptions(**options), DataSizes(width, 50), embed_dim)


def related(encoder: RegionEncoder) -> RegionEncoder:
    """The encoder with layers of reasoning that no longer are the identity."""
    for layer in encoder.reasoning:
        torch.nn.init.uniform_(layer.norm.weight, 0.5, 1.5)
    return encoder


def ragged(sizes: tuple[int, ...], length: int) -> tuple[Tensor, Tensor]:
    """Regions [B, length, 10] and their mask."""
    return torch.randn(len(sizes), length, 10), torch.arange(length) < torch.tensor(sizes)[:, None]


@pytest.mark.parametrize("reasoning", [0, 2])
@pytest.mark.parametrize("pooling", SETS)
def test_image_alone_equals_image_in_a_padded_batch(pooling: str, reasoning: int) -> None:
    encoder = related(make(pooling=pooling, reasoning=reasoning)).eval()
    sizes = (2, 7, 4)
    regions, mask = ragged(sizes, 7)
    together = encoder(ImageBatch(regions.masked_fill(~mask[:, :, None], math.nan), mask))
    for row, size in enumerate(sizes):
        alone = encoder(ImageBatch(regions[row : row + 1, :size], None))
        torch.testing.assert_close(together[row : row + 1], alone)


@pytest.mark.parametrize("reasoning", [0, 2])
@pytest.mark.parametrize("pooling", SETS)
def test_order_of_regions_does_not_matter(pooling: str, reasoning: int) -> None:
    encoder = related(make(pooling=pooling, reasoning=reasoning)).eval()
    regions, mask = ragged((5, 3), 5)
    order = torch.randperm(5)
    torch.testing.assert_close(
        encoder(ImageBatch(regions, mask)), encoder(ImageBatch(regions[:, order], mask[:, order]))
    )


def test_batch_statistics_hold_no_padding() -> None:
    encoder = make().train()
    regions, mask = ragged((5, 2, 3, 1), 5)
    encoder(ImageBatch(regions.masked_fill(~mask[:, :, None], 1e3), mask))
    hidden = encoder.mlp[0](regions[mask])
    expected = encoder.mlp[1].momentum * hidden.mean(dim=0)  # from a running mean of 0
    torch.testing.assert_close(encoder.mlp[1].running_mean, expected)


def published(encoder: RegionEncoder, regions: Tensor, mask: Tensor) -> Tensor:
    """What VSE-infinity computes: regions moved to the front, zeros to the longest set behind."""
    longest = int(mask.sum(dim=1).max())
    padded = torch.zeros(len(regions), longest, regions.shape[2])
    for row, valid in enumerate(mask):
        padded[row, : valid.sum()] = regions[row, valid]
    rows = padded.flatten(0, 1)
    encoded = (encoder.linear(rows) + encoder.mlp(rows)).unflatten(0, padded.shape[:2])
    inside = torch.arange(longest) < mask.sum(dim=1)[:, None]
    pooled = encoder.pool(encoded, inside)
    return pooled / (pooled.norm(dim=1, keepdim=True) + 1e-8)


def test_padding_in_batch_norm_is_the_published_one() -> None:
    encoder = make(padding_in_batch_norm=True).train()
    regions, mask = ragged((4, 2, 3, 1), 6)
    mask = mask.roll(1, dims=1)  # of what region dropout leaves, the first need not be there
    ours = encoder(ImageBatch(regions, mask))
    statistics = encoder.mlp[1].running_var.clone()
    encoder.mlp[1].reset_running_stats()
    torch.testing.assert_close(ours, published(encoder, regions, mask))
    torch.testing.assert_close(statistics, encoder.mlp[1].running_var)
    without = make().train()
    without.load_state_dict(encoder.state_dict())
    assert not torch.allclose(without(ImageBatch(regions, mask)), ours)
    without.load_state_dict(encoder.state_dict())
    batch = ImageBatch(regions, mask)
    assert torch.equal(encoder.eval()(batch), without.eval()(batch))


def test_a_global_feature_is_one_region_of_vsepp() -> None:
    encoder = make(mlp=False, pooling="mean", initialisation="published")
    assert encoder.mlp is None
    features = torch.randn(5, 1, 10)
    expected = F.normalize(features[:, 0] @ encoder.linear.weight.T + encoder.linear.bias, dim=1)
    torch.testing.assert_close(encoder(ImageBatch(features, None)), expected)


def test_published_start_of_the_projection() -> None:
    encoder = make(200, 100, initialisation="published")
    bound = math.sqrt(6 / 300)
    assert 0.98 * bound < encoder.linear.weight.abs().max() <= bound
    assert not encoder.linear.bias.any()
    assert make(200, 100).linear.bias.any()


@pytest.mark.parametrize("normalize", [True, False])
def test_normalize(normalize: bool) -> None:
    embeddings = make(normalize=normalize)(ImageBatch(torch.randn(4, 5, 10), None))
    assert embeddings.shape == (4, 16)
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(4)) is normalize


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pooling", SETS)
def test_autocast_gives_finite_float32(dtype: torch.dtype, pooling: str) -> None:
    encoder = make(pooling=pooling)
    regions, mask = ragged((5, 1, 3), 5)
    exact = encoder(ImageBatch(regions, mask))
    with torch.autocast("cpu", dtype=dtype):
        embeddings = encoder(ImageBatch(regions, mask))
    assert embeddings.dtype == torch.float32
    assert (embeddings - exact).abs().max() < 0.1
    embeddings.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


def test_augmentation_keeps_masks_inside() -> None:
    encoder = make(drop_probability=0.5)
    _, mask = ragged((5, 2), 5)
    batch = ImageBatch(torch.randn(2, 5, 10), mask)
    changed = encoder.augment(batch, 2, torch.Generator().manual_seed(0))
    assert changed.images is batch.images
    assert not (changed.image_mask & ~mask).any()
    assert not torch.equal(changed.image_mask, mask)
    unmasked = encoder.augment(batch._replace(image_mask=None), 2, torch.Generator())
    assert unmasked.image_mask.shape == (2, 5)


@pytest.mark.parametrize("images", [torch.randn(2, 3, 11), torch.randn(2, 10)])
def test_other_data_is_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"images: expected region features \[B, K, 10\]"):
        make()(ImageBatch(images, None))


def test_raw_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"--model.image.kind grid"):
        RegionEncoder(ImageOptions(), DataSizes(0, 50), 16)


def test_reasoning_follows_the_published_equations() -> None:
    encoder = related(make(reasoning=1, mlp=False).double()).eval()
    regions, mask = ragged((5, 3), 5)
    (layer,) = encoder.reasoning
    layer.norm.running_mean.normal_()
    layer.norm.running_var.uniform_(0.5, 2.0)
    rows = encoder.rows(ImageBatch(regions.double(), mask)).values
    for image, size in enumerate((5, 3)):
        v = encoder.linear(regions[image, :size].double())
        related_to = layer.queries(v) @ layer.keys(v).T / size
        taken = layer.back(related_to @ layer.carried(v))
        shifted = (taken - layer.norm.running_mean) / (layer.norm.running_var + 1e-5).sqrt()
        torch.testing.assert_close(
            rows[image, :size], v + layer.norm.weight * shifted + layer.norm.bias
        )
        assert not rows[image, size:].any()


def test_a_layer_of_reasoning_starts_as_the_identity_and_learns() -> None:
    encoder, batch = make(reasoning=2), ImageBatch(*ragged((5, 2, 3), 5))
    plain = make()
    plain.load_state_dict(encoder.state_dict(), strict=False)
    torch.testing.assert_close(encoder(batch), plain(batch))
    encoder(batch)[:, 0].sum().backward()
    assert all(layer.norm.weight.grad.any() for layer in encoder.reasoning)
    statistics = encoder.reasoning[0].norm.num_batches_tracked
    assert statistics == 2, "in training, batches are counted"


@pytest.mark.parametrize("options", [{"reasoning": -1}, {"reasoning": 1, "kind": "global"}])
def test_layers_of_reasoning_that_cannot_be_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=r"model\.image\.reasoning: expected a number of layers"):
        ImageOptions(**options)
