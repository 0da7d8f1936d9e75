"""Backbones of timm."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from goal_kernels.extras import load_package
from goal_kernels.training.backbones.base import Backbone, flattened
from goal_kernels.training.local_weights import fill, named_by_order

ARGUMENT = "model.image.backbone"
# The first of these parts, and what is registered behind it, reads the cells and makes none.
HEADS = ("attn_pool", "global_pool", "pre_logits", "fc_norm", "head_drop", "head", "fc")


def timm_backbone(name: str, weights: str | None, pretrained: bool = True) -> Backbone:
    """A timm model without its head.

    Transformers are asked to take images of any size, where they can.

    Args:
        name: of the model, such as "resnet50" or "vit_base_patch16_224".
        weights: file of its state; None leaves it random.
        pretrained: read that file.
    Raises: ValueError, MissingPackageError naming the option and the remedy.
    """
    timm = load_package("timm", "grid", ARGUMENT)
    if not timm.is_model(name):
        similar = timm.list_models(f"*{name.split('_')[0]}*")[:5]
        raise ValueError(
            f"{ARGUMENT}: timm has no model {name!r}"
            + (f"; similar ones are {', '.join(similar)}" if similar else "")
        )
    body = timm.create_model(name, pretrained=False, num_classes=0)
    if getattr(body, "dynamic_img_size", None) is False:
        body = timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True)
    elif getattr(getattr(body, "patch_embed", None), "strict_img_size", False):
        body = timm.create_model(name, pretrained=False, num_classes=0, strict_img_size=False)
    fill(body, weights, pretrained, renamed=partial(named_by_order, body.state_dict()))
    return Backbone(body, body.num_features, _cells, _head(body))


def _head(body: nn.Module) -> tuple[str, ...]:
    """Beginnings of the names of parameters of the head."""
    parts = [name for name, _ in body.named_children()]
    first = min((parts.index(name) for name in HEADS if name in parts), default=len(parts))
    return tuple(f"{name}." for name in parts[first:])


def _cells(body: nn.Module, images: Tensor) -> Tensor:
    """[B, 3, H, W] to [B, cells, channels]; special tokens are no cells."""
    network: Any = body
    features = network.forward_features(images)
    if features.ndim == 3:
        return features[:, getattr(body, "num_prefix_tokens", 0) :]
    if getattr(body, "output_fmt", "NCHW") == "NHWC":
        return features.flatten(1, 2)
    return flattened(features)
