"""Backbones of torchvision and timm, where they are installed: their cells are their own maps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from goal_kernels.training.backbones import make_backbone
from goal_kernels.training.backbones.base import Backbone, flattened
from goal_kernels.training.options import ImageOptions


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def package(name: str):
    """The package, or a skip; beside another torch torchvision raises RuntimeError."""
    return pytest.importorskip(name, exc_type=(ImportError, RuntimeError))


def backbone(name: str, weights: str | None = None) -> Backbone:
    options = ImageOptions(kind="grid", backbone=name, weights=weights)
    return make_backbone(options, pretrained=weights is not None)


def everything_learns(body: Backbone, images: torch.Tensor) -> None:
    body.train()(images).square().sum().backward()
    for name, parameter in body.named_parameters():
        assert (parameter.grad is not None) is parameter.requires_grad, name
    assert sum(p.requires_grad for p in body.parameters()) > len(list(body.parameters())) * 0.9
    body.set_fixed_blocks(2)
    parameters = list(body.parameters())
    assert not parameters[0].requires_grad
    assert 0 < sum(p.requires_grad for p in parameters) < len(parameters)


class Before(Exception):
    """Carries what reaches the head of a classifier."""


def reaching_the_head(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What the average pooling of a torchvision classifier is given."""

    def stop(_: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        raise Before(given[0])

    head = model.avgpool if hasattr(model, "avgpool") else model.classifier
    handle = head.register_forward_pre_hook(stop)
    with pytest.raises(Before) as caught:
        model(images)
    handle.remove()
    return caught.value.args[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["resnet18", "vgg11", "convnext_tiny", "efficientnet_b0", "regnet_y_400mf", "swin_t"],
)
def test_torchvision_cells_are_what_the_classifier_pools(tmp_path: Path, name: str) -> None:
    models = package("torchvision").models
    classifier = models.get_model(name, weights=None).eval()
    torch.save({"model": classifier.state_dict()}, tmp_path / "w.pth")
    ours = backbone(f"torchvision:{name}", str(tmp_path / "w.pth")).eval()
    images = torch.randn(1, 3, 96, 64)
    cells = ours(images)
    assert cells.shape == (1, 6, ours.channels)
    torch.testing.assert_close(cells, flattened(reaching_the_head(classifier, images)))
    everything_learns(ours, images)


def test_torchvision_models_that_cannot_be_had() -> None:
    package("torchvision")
    with pytest.raises(ValueError, match=r"no model 'resnet5'; its ResNets are resnet101"):
        backbone("torchvision:resnet5")
    with pytest.raises(ValueError, match="feature map of torchvision's 'densenet121' is not known"):
        backbone("torchvision:densenet121")
    with pytest.raises(ValueError, match="expected a ResNet after 'detector:', got 'vgg11'"):
        backbone("detector:vgg11")


def test_the_detector_reads_its_own_weights(tmp_path: Path) -> None:
    models = package("torchvision").models
    resnet = models.resnet50(weights=None)
    parts = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
    base = nn.Sequential(*(getattr(resnet, part) for part in parts))
    state = {"base": base.state_dict(), "top": nn.Sequential(resnet.layer4).state_dict()}
    torch.save(state, tmp_path / "w.pth")
    body = backbone("detector:resnet50", str(tmp_path / "w.pth")).eval().body
    for name, value in body.state_dict().items():
        assert torch.equal(value, resnet.state_dict()[name])
    # Strides of the detector: in the first convolution of a block, and windows without padding.
    assert body.layer2[0].conv1.stride == (2, 2)
    assert body.layer2[0].conv2.stride == (1, 1)
    assert body.layer1[0].conv1.stride == (1, 1)
    features = body.maxpool(torch.arange(36.0).view(1, 1, 6, 6))
    assert features.flatten().tolist() == [14, 16, 17, 26, 28, 29, 32, 34, 35]
    assert body(torch.randn(1, 3, 64, 96)).shape == (1, 2048, 2, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "cells"),
    [
        ("resnet18", (96, 64), 6),
        ("convnext_atto", (96, 64), 6),
        ("vit_tiny_patch16_224", (96, 64), 24),
        ("deit_tiny_distilled_patch16_224", (96, 64), 24),
        ("swin_tiny_patch4_window7_224", (96, 64), 6),
        ("efficientnet_b0", (96, 64), 6),
        ("regnetx_002", (96, 64), 6),
        ("mobilenetv3_small_050", (96, 64), 6),
    ],
)
def test_timm_cells(tmp_path: Path, name: str, size: tuple[int, int], cells: int) -> None:
    timm = package("timm")
    source = timm.create_model(name, pretrained=False, num_classes=5)
    state = {f"module.{name}": value for name, value in source.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    ours = backbone(f"timm:{name}", str(tmp_path / "w.pth")).eval()
    images = torch.randn(1, 3, *size)
    assert ours(images).shape == (1, cells, ours.channels)
    native = torch.randn(1, 3, 224, 224)
    features = source.eval().forward_features(native)
    own = ours(native)
    if features.ndim == 3:  # special tokens first, then patches
        torch.testing.assert_close(own, features[:, features.shape[1] - own.shape[1] :])
    elif features.shape[1] == ours.channels:
        torch.testing.assert_close(own, flattened(features))
    else:
        torch.testing.assert_close(own, features.flatten(1, 2))
    everything_learns(ours, images)


def test_timm_models_that_are_not_there() -> None:
    package("timm")
    with pytest.raises(ValueError, match=r"timm has no model 'resnet_5000'; similar ones are"):
        backbone("timm:resnet_5000")
