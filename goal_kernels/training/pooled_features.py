"""`goal-kernels data features`: pooled features of pictures, by a frozen backbone."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from goal_kernels.data.commands import add_source_arguments, describe_conversion, open_given
from goal_kernels.data.conversion import convert
from goal_kernels.data.conversion.features import FeatureStream
from goal_kernels.data.progress import progress_line
from goal_kernels.data.split import PictureSplit
from goal_kernels.training.backbones import make_backbone
from goal_kernels.training.data import collate_images
from goal_kernels.training.images import CROPS, NORMALIZATIONS, PictureDataset, PictureOptions
from goal_kernels.training.options import ImageOptions

DESCRIPTION = """\
Encode the pictures of a dataset once, by a backbone that does not train: the mean of the cells of
its last feature map, a vector an image. Training on them takes seconds an epoch.
"""

EPILOG = """\
Examples
  goal-kernels data features data/emoji data/emoji/lite0 --backbone timm:tf_efficientnet_lite0 \\
    --weights efficientnet_lite0.pth --normalization lite --size 224
  goal-kernels fit --config emoji_features

Where OUT lies in the folder of the pictures, reports show them.
"""


def add_features_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options and the help of `data features`."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    add_source_arguments(parser)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    parser.add_argument(
        "--backbone", required=True, metavar="LIBRARY:NAME", help="as --model.image.backbone"
    )
    parser.add_argument("--weights", metavar="FILE", help="of the backbone; random without")
    parser.add_argument("--size", type=int, metavar="PX", help="side of the squares it sees")
    parser.add_argument("--crops", choices=CROPS, default=PictureOptions.crops)
    parser.add_argument(
        "--normalization", choices=NORMALIZATIONS, default=PictureOptions.normalization
    )
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="pictures at once")
    parser.add_argument("--device", default="cpu", help="as torch names it (default cpu)")
    parser.add_argument("--overwrite", action="store_true", help="replace an older conversion")


def run_features(args: argparse.Namespace) -> int:
    """Encode and say what was made; 0. Raises: ValueError, OSError."""
    source = open_given(args)
    pictures = PictureOptions(args.crops, args.size, args.normalization)
    backbone = make_backbone(ImageOptions(backbone=args.backbone, weights=args.weights))
    backbone.eval().to(args.device)

    def encode(split: PictureSplit) -> FeatureStream:
        images = PictureDataset(split, pictures, 0)
        loader = DataLoader(images, args.batch, collate_fn=collate_images)

        def blocks() -> Iterator[NDArray[np.float32]]:
            with torch.no_grad():
                for batch in loader:
                    yield backbone(batch.images.to(args.device)).mean(1).cpu().numpy()

        return FeatureStream((len(images), backbone.channels), np.dtype(np.float32), blocks)

    with progress_line() as progress:
        made = convert(source, args.out, encode=encode, overwrite=args.overwrite, progress=progress)
    print(describe_conversion(made, source))
    return 0
