"""Backbones of transformers, from a local folder or random."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from goal_kernels.training.backbones.base import Backbone, flattened
from goal_kernels.training.local_weights import fill
from goal_kernels.training.options import choose
from goal_kernels.training.transformers_models import (
    has_weights,
    load_folder,
    read_config,
    transformers,
)

ARGUMENT = "model.image.backbone"


class Family(NamedTuple):
    """Models of one type.

    special: tokens before the patches, not cells. unused: parameters that cells do not depend on.
    any_size: the argument that makes the model take images of another size than it was made for.
    """

    special: int = 0
    unused: tuple[str, ...] = ()
    any_size: bool = False


FAMILIES = {
    "resnet": Family(),
    "convnext": Family(unused=("layernorm.",)),
    "convnextv2": Family(unused=("layernorm.",)),
    "vit": Family(special=1, unused=("pooler.",), any_size=True),
    "deit": Family(special=2, unused=("pooler.", "embeddings.mask_token"), any_size=True),
    "dinov2": Family(special=1, unused=("embeddings.mask_token",)),
    "swin": Family(unused=("pooler.", "embeddings.mask_token")),
    "swinv2": Family(unused=("pooler.", "embeddings.mask_token")),
}
"""Model types, as config.json names them."""


def transformers_backbone(name: str, weights: str | None, pretrained: bool = True) -> Backbone:
    """An image model of transformers without its head.

    Args:
        name: a local folder with config.json and, if they are to be used, weights; or a key of
            `FAMILIES` for its default configuration with random weights.
        weights: file of a state that replaces the folder's; None takes the folder's, if any.
        pretrained: read weights.
    Raises: ValueError, MissingPackageError naming the option and the remedy.
    """
    package = transformers(ARGUMENT)
    if name in FAMILIES:
        config = package.AutoConfig.for_model(name)
    else:
        config = read_config(name, f"{ARGUMENT}: transformers")
    family = choose(f"{ARGUMENT}: model_type of {name}", config.model_type, FAMILIES)
    if pretrained and weights is None and name not in FAMILIES and has_weights(name):
        body = load_folder(package.AutoModel, name, config, ARGUMENT, family.unused)
    else:
        body = package.AutoModel.from_config(config)
        fill(body, weights, pretrained, family.unused)
    return Backbone(body, _channels(config), partial(_cells, family), family.unused)


def _channels(config: Any) -> int:
    """Width of a cell."""
    return config.hidden_sizes[-1] if hasattr(config, "hidden_sizes") else config.hidden_size


def _cells(family: Family, body: nn.Module, images: Tensor) -> Tensor:
    """[B, 3, H, W] to [B, cells, channels]."""
    options = {"interpolate_pos_encoding": True} if family.any_size else {}
    features = body(pixel_values=images, **options).last_hidden_state
    return flattened(features) if features.ndim == 4 else features[:, family.special :]
