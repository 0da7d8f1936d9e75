"""Backbones of torchvision, and the ResNet of the bottom-up attention detector."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from goal_kernels.extras import load_package
from goal_kernels.training.backbones.base import Backbone, flattened
from goal_kernels.training.local_weights import fill

ARGUMENT = "model.image.backbone"
# Networks whose feature map is what they compute before their first part named here.
SEQUENTIAL = (
    "ResNet",
    "VGG",
    "ConvNeXt",
    "EfficientNet",
    "RegNet",
    "MobileNetV2",
    "MobileNetV3",
    "SwinTransformer",
)
HEADS = ("avgpool", "classifier", "fc", "flatten", "head")
PROBE = 64  # pixels of the image that finds the number of channels

# The detector's checkpoint keeps the ResNet in two parts, numbered: of VSE-infinity's grid models.
DETECTOR_PARTS = {
    "base.0.": "conv1.",
    "base.1.": "bn1.",
    "base.4.": "layer1.",
    "base.5.": "layer2.",
    "base.6.": "layer3.",
    "top.0.": "layer4.",
}


def torchvision_backbone(name: str, weights: str | None, pretrained: bool = True) -> Backbone:
    """A torchvision classifier without its head.

    Args:
        name: of the model, such as "resnet50".
        weights: file of its state; None leaves it random.
        pretrained: read that file.
    Raises: ValueError, MissingPackageError naming the option and the remedy.
    """
    body = _body(name, _model(name))
    fill(body, weights, pretrained)
    return Backbone(body, _channels(body), _cells)


def detector_backbone(name: str, weights: str | None, pretrained: bool = True) -> Backbone:
    """A ResNet as the bottom-up attention detector has it, on BGR images without scaling.

    Strides are in the first convolution of a block, and the maximum is over windows that are not
    padded. VSE-infinity uses "resnet101".

    Raises: ValueError, MissingPackageError naming the option and the remedy.
    """
    model = _model(name)
    if type(model).__name__ != "ResNet":
        raise ValueError(f"{ARGUMENT}: expected a ResNet after 'detector:', got {name!r}")
    body = _body(name, model)
    maximum: Any = body.get_submodule("maxpool")
    maximum.padding, maximum.ceil_mode = 0, True
    block: Any
    for block in (module for module in body.modules() if hasattr(module, "conv3")):
        block.conv1.stride, block.conv2.stride = block.conv2.stride, (1, 1)
    fill(body, weights, pretrained, renamed=detector_names)
    return Backbone(body, _channels(body), _cells)


def _model(name: str) -> Any:
    """The classifier, random weights. Raises: ValueError when torchvision has no such model."""
    models = load_package("torchvision", "grid", ARGUMENT).models
    if name not in models.list_models(module=models):
        raise ValueError(
            f"{ARGUMENT}: torchvision has no model {name!r}; "
            f"its ResNets are {', '.join(models.list_models(module=models, include='res*'))}"
        )
    return models.get_model(name, weights=None)


def _body(name: str, model: nn.Module) -> nn.Sequential:
    """The parts of a classifier before its head, under their own names."""
    if type(model).__name__ not in SEQUENTIAL:
        raise ValueError(
            f"{ARGUMENT}: the feature map of torchvision's {name!r} is not known, only that of "
            f"{', '.join(SEQUENTIAL)}; timm may have it, give timm:NAME"
        )
    body = nn.Sequential()
    for part, module in model.named_children():
        if part in HEADS:
            break
        body.add_module(part, module)
    return body


def _channels(body: nn.Module) -> int:
    """Channels of the feature map."""
    body.eval()
    with torch.no_grad():
        channels = body(torch.zeros(1, 3, PROBE, PROBE)).shape[1]
    body.train()
    return int(channels)


def _cells(body: nn.Module, images: Tensor) -> Tensor:
    """[B, 3, H, W] to [B, cells, channels]."""
    return flattened(body(images))


def detector_names(state: dict[str, Tensor], beginning: str = "") -> dict[str, Tensor]:
    """A state under the names of torchvision; only those with the beginning are changed."""
    renamed = {}
    for name, value in state.items():
        own = name.removeprefix(beginning)
        old = next((part for part in DETECTOR_PARTS if own.startswith(part)), None)
        if not name.startswith(beginning) or old is None:
            renamed[name] = value
        else:
            renamed[beginning + DETECTOR_PARTS[old] + own[len(old) :]] = value
    return renamed
