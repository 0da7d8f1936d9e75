"""Freezing from below, BatchNorm that keeps its statistics, and the encoders above."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from goal_kernels.training.backbones import BACKBONES, make_backbone
from goal_kernels.training.backbones.base import Backbone, flattened
from goal_kernels.training.data import Batch, ImageBatch
from goal_kernels.training.encoders.grid import GlobalEncoder, GridEncoder
from goal_kernels.training.model import VSE, build_model
from goal_kernels.training.options import DataSizes, ImageOptions, TextOptions

STAGES = ("layer1", "layer2", "layer3", "layer4")
CHANNELS = 6


def stage(stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(CHANNELS, CHANNELS, 3, stride, 1), nn.BatchNorm2d(CHANNELS), nn.ReLU()
    )


class SmallNetwork(nn.Module):
    """Four stages after a stem, and a norm behind them; one cell for 4 x 4 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 1)
        self.layer1, self.layer2 = stage(2), stage(2)
        self.layer3, self.layer4 = stage(1), stage(1)
        self.dropout = nn.Dropout(0.5)
        self.norm = nn.GroupNorm(1, CHANNELS)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.stem(images)
        for name in STAGES:
            features = getattr(self, name)(features)
        return self.norm(self.dropout(features))


def small_backbone(_: str = "", weights: str | None = None, pretrained: bool = True) -> Backbone:
    return Backbone(SmallNetwork(), CHANNELS, lambda body, images: flattened(body(images)))


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setitem(BACKBONES, "small", small_backbone)


def options(**given) -> ImageOptions:
    return ImageOptions(**{"kind": "grid", "backbone": "small:4", "pooling": "mean"} | given)


def model(**given) -> VSE:
    return build_model(options(**given), TextOptions(word_dim=4), DataSizes(0, 20), 8)


def batch(rows: int = 3) -> Batch:
    tokens = torch.randint(4, 20, (rows, 5))
    words = torch.tensor([-1, 0, 1, 2, -1]).expand(rows, -1)
    lengths = torch.full((rows,), 5)
    return Batch(torch.randn(rows, 3, 16, 12), None, tokens, lengths, words, torch.arange(rows))


def test_cells_are_the_feature_map_row_by_row() -> None:
    feature_map = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    cells = flattened(feature_map)
    assert cells.shape == (2, 20, 3)
    assert torch.equal(cells[1, 2 * 5 + 3], feature_map[1, :, 2, 3])


def test_cells_are_counted_without_touching_anything() -> None:
    backbone = small_backbone().train()
    state = {name: value.clone() for name, value in backbone.state_dict().items()}
    generator = torch.get_rng_state()
    assert backbone.count_cells(16, 12) == 4 * 3
    assert backbone.count_cells(17, 12) == 5 * 3
    assert torch.equal(generator, torch.get_rng_state())
    assert backbone.training
    assert all(torch.equal(value, state[name]) for name, value in backbone.state_dict().items())


@pytest.mark.parametrize("fixed", range(5))
def test_blocks_freeze_from_the_images_on(fixed: int) -> None:
    backbone = small_backbone()
    backbone.set_fixed_blocks(4)
    backbone.set_fixed_blocks(fixed)  # back and forth, as a schedule may go
    body = backbone.body
    assert body.stem.weight.requires_grad is (fixed == 0)
    for number, name in enumerate(STAGES):
        trains = [parameter.requires_grad for parameter in getattr(body, name).parameters()]
        assert trains == [number >= fixed] * len(trains)
        assert getattr(body, name)[2].training is (number >= fixed)
    assert body.norm.weight.requires_grad is (fixed < 4)
    assert body.dropout.training is (fixed < 4)


def test_batch_norm_runs_on_stored_statistics() -> None:
    backbone = small_backbone().train()
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    backbone(torch.randn(4, 3, 16, 16) + 5)
    assert all(torch.equal(norm.running_mean, old) for norm, old in zip(norms, before, strict=True))
    assert all(norm.weight.requires_grad for norm in norms)
    assert not backbone.eval().body.layer4.training
    assert backbone.train().body.layer4.training


def test_stages_in_a_list_are_quartered() -> None:
    body = nn.Module()
    body.blocks = nn.ModuleList(nn.Linear(1, 1) for _ in range(10))
    backbone = Backbone(body, 1, lambda *_: torch.zeros(0))
    for fixed, frozen in enumerate((0, 2, 5, 8, 10)):
        backbone.set_fixed_blocks(fixed)
        trains = [block.weight.requires_grad for block in body.blocks]
        assert trains == [False] * frozen + [True] * (10 - frozen)


def test_a_network_of_unknown_stages_is_frozen_as_a_whole_or_not() -> None:
    backbone = Backbone(nn.Linear(2, 2), 2, lambda *_: torch.zeros(0))
    backbone.set_fixed_blocks(4)
    assert not backbone.body.weight.requires_grad
    with pytest.raises(ValueError, match="stages of a Linear are not known"):
        backbone.set_fixed_blocks(2)
    with pytest.raises(ValueError, match="fixed_blocks: expected 0"):
        backbone.set_fixed_blocks(5)


def test_every_parameter_of_a_grid_model_learns_and_frozen_ones_do_not() -> None:
    whole = model(drop_probability=0.0)
    images, texts = whole(batch())
    (images * texts).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in whole.image_encoder.parameters())
    whole.zero_grad()
    whole.set_trainable(3)
    images, texts = whole(batch())
    (images * texts).sum().backward()
    learnt = {name for name, p in whole.image_encoder.named_parameters() if p.grad is not None}
    assert not [name for name in learnt if ".stem." in name or ".layer3." in name]
    assert [name for name in learnt if ".layer4." in name]
    assert whole.image_encoder.head.linear.weight.grad is not None


def test_the_options_freeze_from_the_start() -> None:
    assert model(fixed_blocks=4).image_encoder.backbone.fixed_blocks == 4


def test_groups_of_parameters_at_published_rates() -> None:
    whole = model()
    rest, backbone = sorted(whole.parameter_groups(0.5, 0.1), key=lambda group: -group["lr"])
    assert (rest["lr"], rest["name"]) == (0.5, "rest")
    assert backbone["lr"] == pytest.approx(0.005)
    assert backbone["name"] == "image_encoder.backbone"
    inside = {id(p) for p in whole.image_encoder.backbone.parameters()}
    assert {id(p) for p in backbone["params"]} == inside
    assert len(rest["params"]) + len(inside) == len(list(whole.parameters()))


def test_augmentation_leaves_cells_out() -> None:
    whole, given = model(drop_probability=0.5), batch(60)
    changed = whole.augment(given, torch.Generator().manual_seed(0))
    assert changed.images is given.images
    assert changed.image_mask.shape == (60, 12)
    assert 0.5 < changed.image_mask.float().mean() < 0.9
    whole.eval()
    embeddings = whole.encode_images(changed.image_part)
    cells = whole.image_encoder.cells(given.image_part)
    row = cells[7, changed.image_mask[7]][None]
    head = whole.image_encoder.head
    alone = head.pooled(head.project(row, torch.ones(row.shape[:2], dtype=torch.bool)))
    torch.testing.assert_close(embeddings[7:8], alone)


def test_masks_are_drawn_for_pairs_whose_images_lie_elsewhere() -> None:
    whole, given = model(drop_probability=0.5), batch(6)
    everyone = whole.augment(given, torch.Generator().manual_seed(0))
    few = given._replace(images=given.images[:2])
    share = whole.augment(few, torch.Generator().manual_seed(0), images=6)
    assert torch.equal(everyone.image_mask, share.image_mask)


def test_all_cells_count_without_a_mask() -> None:
    whole, images = model().eval(), batch().images
    masked = ImageBatch(images, torch.ones(3, 12, dtype=torch.bool))
    assert torch.equal(whole.encode_images(masked), whole.encode_images(ImageBatch(images, None)))


def test_a_global_vector_is_normalised_before_its_projection() -> None:
    encoder = GlobalEncoder(options(kind="global"), DataSizes(0, 20), 8).eval()
    images = batch().images
    pooled = encoder.backbone.body(images).mean(dim=(2, 3))
    unit = pooled / pooled.norm(dim=1, keepdim=True)
    projected = encoder.linear(unit)
    expected = projected / projected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(encoder(ImageBatch(images, None)), expected)


@pytest.mark.parametrize("kind", [GridEncoder, GlobalEncoder])
def test_features_are_no_images(kind: type[GridEncoder]) -> None:
    encoder = kind(options(), DataSizes(0, 20), 8)
    with pytest.raises(ValueError, match=r"images: expected raw images \[B, 3, H, W\], got \[2, 5"):
        encoder(ImageBatch(torch.randn(2, 5, 10), None))


def test_an_mlp_is_a_choice_of_grids() -> None:
    assert GridEncoder(options(), DataSizes(0, 20), 8).head.mlp is None
    assert GridEncoder(options(mlp=True), DataSizes(0, 20), 8).head.mlp is not None
    with pytest.raises(ValueError, match=r"model.image.mlp: expected null or false"):
        GlobalEncoder(options(kind="global", mlp=True), DataSizes(0, 20), 8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["grid", "global"])
def test_autocast_gives_finite_float32(dtype: torch.dtype, kind: str) -> None:
    whole = model(kind=kind)
    with torch.autocast("cpu", dtype=dtype):
        images, _ = whole(whole.augment(batch(), torch.Generator()))
    assert images.dtype == torch.float32
    assert images.isfinite().all()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (None, "expected LIBRARY:NAME such as torchvision:resnet50"),
        ("resnet50", "expected LIBRARY:NAME"),
        ("tv:resnet50", "library: expected 'torchvision', 'timm', 'transformers', 'detector'"),
    ],
)
def test_bad_names(name: str | None, words: str) -> None:
    with pytest.raises(ValueError, match=f"model.image.backbone: {words}"):
        make_backbone(options(backbone=name))


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(
        ValueError, match=r"model.image.backbone: needs timm.*pip install .*\[grid\]"
    ):
        make_backbone(options(backbone="timm:resnet18"))
