"""Backbones of raw images, by "LIBRARY:NAME". A new library is a function and a row here."""

from __future__ import annotations

from collections.abc import Callable

from goal_kernels.training.backbones.base import Backbone
from goal_kernels.training.backbones.from_timm import timm_backbone
from goal_kernels.training.backbones.from_torchvision import (
    detector_backbone,
    torchvision_backbone,
)
from goal_kernels.training.backbones.from_transformers import transformers_backbone
from goal_kernels.training.options import ImageOptions, choose

BACKBONES: dict[str, Callable[[str, str | None, bool], Backbone]] = {
    "torchvision": torchvision_backbone,
    "timm": timm_backbone,
    "transformers": transformers_backbone,
    "detector": detector_backbone,
}
"""By library: from a name, a file of weights or None, and whether to read any, to a backbone."""


def make_backbone(options: ImageOptions, pretrained: bool = True) -> Backbone:
    """The backbone that the options name.

    Args:
        options: `backbone` is "LIBRARY:NAME", `weights` a local file or None.
        pretrained: read the weights; not needed when a checkpoint's follow.
    Raises: ValueError naming the option and the remedy; FileNotFoundError for the weights.
    """
    library, colon, name = (options.backbone or "").partition(":")
    if not colon or not name:
        raise ValueError(
            f"model.image.backbone: expected LIBRARY:NAME such as torchvision:resnet50, "
            f"timm:vit_base_patch16_224 or transformers:FOLDER, got {options.backbone!r}"
        )
    make = choose("model.image.backbone: library", library, BACKBONES)
    return make(name, options.weights, pretrained)
