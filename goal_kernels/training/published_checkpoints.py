"""Checkpoints of VSE++ and VSE-infinity as models of ours."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from goal_kernels.training.backbones.from_torchvision import detector_names
from goal_kernels.training.checkpoints import describe, differences
from goal_kernels.training.local_weights import first_line
from goal_kernels.training.model import VSE, build_model
from goal_kernels.training.options import DataSizes, ImageOptions, TextOptions
from goal_kernels.training.tokenizers import Tokenizer

# From their names to ours; what maps to None is never read.
POOLING_NAMES = {"gpool.gru.": "pool.gru.", "gpool.linear.": "pool.score."}
REGION_NAMES: dict[str, str | None] = {
    "fc.": "linear.",
    "mlp.layers.0.": "mlp.0.",
    "mlp.bns.0.": "mlp.1.",
    "mlp.layers.1.": "mlp.3.",
    "mlp.bns.1.": None,
    **POOLING_NAMES,
}
GRID_NAMES: dict[str, str | None] = {
    "backbone.resnet.": None,  # the same tensors once more
    "backbone.": "backbone.body.",
    "image_encoder.fc.": "head.linear.",
    **{f"image_encoder.{theirs}": f"head.{ours}" for theirs, ours in POOLING_NAMES.items()},
}
TEXT_NAMES: dict[str, str | None] = {
    "embed.": "embedding.",
    "rnn.": "gru.",
    "bert.pooler.": None,
    "bert.embeddings.position_ids": None,
    "bert.": "bert.",
    "linear.": "linear.",
    **POOLING_NAMES,
}

# Backbones by the name that VSE-infinity's options give them. All but two are made by a ResNet of
# the detector's kind, ImageNet's weights included.
BACKBONE_OF_SOURCE = {
    "detector": "detector:resnet101",
    "imagenet": "detector:resnet101",
    "imagenet_res50": "detector:resnet50",
    "imagenet_res152": "detector:resnet152",
    "imagenet_resnext": "torchvision:resnext101_32x8d",
    "wsl": "torchvision:resnext101_32x8d",
}

Names = Mapping[str, Tensor]


class _Published(NamedTuple):
    """States of the two encoders, and the options of the run by name."""

    image: dict[str, Tensor]
    text: dict[str, Tensor]
    options: dict[str, Any]


def load_published(path: str | Path, tokenizer: Tokenizer, bert: str | None = None) -> VSE:
    """The model in a checkpoint of VSE-infinity (regions, grids; BiGRU, BERT) or of VSE++ on
    precomputed features.

    Nothing of the file is run: tensors, plain types and the options' namespace are all that is
    read.

    Args:
        path: file that their training saved, such as `model_best.pth`.
        tokenizer: of the captions to come; its ids have to be those of the training.
        bert: of a BERT model, the folder with its config.json.
    Returns: the model in evaluation mode.
    Raises: FileNotFoundError; ValueError saying what is not as these programs write it.
    """
    published = _read(Path(path))
    image, region_dim, embed_dim = _image_options(path, published)
    text, words = _text_options(path, published, bert)
    if words - len(tokenizer) not in (0, 1):
        raise ValueError(
            f"{path}: its text encoder has {words} token ids, the tokenizer {len(tokenizer)}; give "
            "the vocabulary that the model was trained with"
        )
    sizes = DataSizes(region_dim, len(tokenizer), tokenizer.mask_id, tokenizer.first_word_id)
    model = build_model(image, text, sizes, embed_dim, pretrained=False)
    state = _renamed(path, published.image, "image_encoder.", _image_names(published.image))
    state |= _renamed(path, published.text, "text_encoder.", TEXT_NAMES)
    vectors = "text_encoder.embedding.weight"
    if vectors in state:
        # VSE-infinity's <mask>, the last id, only serves word dropout.
        state[vectors] = state[vectors][: len(tokenizer)]
    _fill(path, model, state)
    return model.eval()


def _read(path: Path) -> _Published:
    """The parts of a checkpoint. Raises: FileNotFoundError, ValueError."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a checkpoint of VSE-infinity")
    scalar = np.float64(0).__reduce__()[0]
    harmless: list[Any] = [
        argparse.Namespace,
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        type(np.dtype(np.float64)),
    ]
    try:
        with torch.serialization.safe_globals(harmless):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on a torn file the reader raises almost anything
        raise ValueError(
            f"{path}: cannot be read safely ({first_line(error)}); expected tensors, "
            "numbers and the options' namespace only"
        ) from error
    states = content.get("model") if isinstance(content, dict) else None
    if not isinstance(states, list | tuple) or len(states) != 2:
        raise ValueError(
            f"{path}: expected 'model' with the states of an image and a text encoder, as VSE++ "
            "and VSE-infinity save them"
        )
    options = content.get("opt")
    image, text = ({name.removeprefix("module."): v for name, v in s.items()} for s in states)
    return _Published(image, text, vars(options) if options is not None else {})


def _image_names(state: Names) -> dict[str, str | None]:
    """The table of names that the state follows."""
    return GRID_NAMES if any(name.startswith("backbone.") for name in state) else REGION_NAMES


def _image_options(path: str | Path, published: _Published) -> tuple[ImageOptions, int, int]:
    """Options, width of a region (0 for raw images), width of the joint space."""
    state, options = published.image, published.options
    normalize = not options.get("no_imgnorm", False)
    if options.get("measure") == "order":
        raise ValueError(f"{path}: order embeddings are compared in a way that is not offered here")
    if _image_names(state) is GRID_NAMES:
        source = str(options.get("backbone_source")).removeprefix("vsepp_")
        if source not in BACKBONE_OF_SOURCE:
            raise ValueError(f"{path}: its backbone {source!r} is none of {[*BACKBONE_OF_SOURCE]}")
        backbone = BACKBONE_OF_SOURCE[source]
        image = ImageOptions(kind="grid", backbone=backbone, normalize=normalize)
        return image, 0, len(state["image_encoder.fc.weight"])
    if "fc.weight" not in state or any(name.startswith("cnn.") for name in state):
        raise ValueError(
            f"{path}: its image encoder is none of regions, grids or precomputed vectors; it has "
            f"{', '.join(list(state)[:3])}"
        )
    image = ImageOptions(
        pooling="gpo" if "gpool.linear.weight" in state else "mean",
        mlp="mlp.layers.0.weight" in state,
        normalize=normalize,
        padding_in_batch_norm=True,
    )
    embed_dim, region_dim = state["fc.weight"].shape
    return image, region_dim, embed_dim


def _text_options(
    path: str | Path, published: _Published, bert: str | None
) -> tuple[TextOptions, int]:
    """Options and number of token ids."""
    state = published.text
    normalize = not published.options.get("no_txtnorm", False)
    if any(name.startswith("bert.") for name in state):
        text = TextOptions(kind="bert", bert=bert, normalize=normalize)
        return text, len(state["bert.embeddings.word_embeddings.weight"])
    if "embed.weight" not in state or "rnn.weight_ih_l1" in state:
        raise ValueError(
            f"{path}: its text encoder is neither a BERT nor a GRU of one layer; it has "
            f"{', '.join(list(state)[:3])}"
        )
    text = TextOptions(
        kind="bigru" if "rnn.weight_ih_l0_reverse" in state else "gru",
        pooling="gpo" if "gpool.linear.weight" in state else "last",
        word_dim=state["embed.weight"].shape[1],
        normalize=normalize,
    )
    return text, len(state["embed.weight"])


def _renamed(
    path: str | Path, state: Names, part: str, names: Mapping[str, str | None]
) -> dict[str, Tensor]:
    """The state under our names. Raises: ValueError for a name that no published model has."""
    renamed = {}
    for name, value in state.items():
        theirs = next((beginning for beginning in names if name.startswith(beginning)), None)
        if theirs is None:
            raise ValueError(f"{path}: {name} belongs to no encoder of VSE++ or VSE-infinity")
        ours = names[theirs]
        if ours is not None:
            renamed[part + ours + name[len(theirs) :]] = value
    return detector_names(renamed, f"{part}backbone.body.")


def _fill(path: str | Path, model: VSE, state: dict[str, Tensor]) -> None:
    """Load every tensor of the model. Raises: ValueError naming what does not fit."""
    if differing := differences(model.state_dict(), state, optional="num_batches_tracked"):
        raise ValueError(
            f"{path}: its tensors do not fit the model that it seems to hold: {describe(differing)}"
        )
    model.load_state_dict(state, strict=False)
