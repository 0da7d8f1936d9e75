"""From image files to tensors: the published crops and resizes, normalisation. Pillow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from goal_kernels.data.picture_files import read_picture
from goal_kernels.data.split import PictureSplit

if TYPE_CHECKING:
    from PIL.Image import Image

Box = tuple[float, float, float, float]  # left, upper, right, lower, in pixels
FLIP_PROBABILITY = 0.5
SMALLEST_CROP = 0.6  # of width and height, VSE-infinity
CROP_AREA = (0.08, 1.0)  # share of the area, VSE++ by torchvision's RandomResizedCrop
CROP_ASPECT = (3 / 4, 4 / 3)  # width over height, likewise
CROP_TRIES = 10  # likewise, before the largest centred crop is taken
CENTRE = 224 / 256  # of the shorter side, what VSE++ evaluates


class Crops(NamedTuple):
    """Which part of a picture is seen: in training (drawn anew each time), in evaluation."""

    training: Callable[[int, int, np.random.Generator], Box]
    evaluation: Callable[[int, int], Box]
    size: int


class Normalization(NamedTuple):
    """(pixel * scale - mean) / deviation, channel by channel in the given order."""

    scale: float
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    blue_first: bool


def _same_aspect(width: int, height: int, generator: np.random.Generator) -> Box:
    """A crop of the picture's own shape, U(0.6, 1) of its sides, anywhere."""
    ratio = generator.uniform(SMALLEST_CROP, 1.0)
    w, h = max(1, int(width * ratio)), max(1, int(height * ratio))
    left, upper = generator.integers(width - w + 1), generator.integers(height - h + 1)
    return float(left), float(upper), float(left + w), float(upper + h)


def _any_aspect(width: int, height: int, generator: np.random.Generator) -> Box:
    """A crop of random area and shape, anywhere; the largest centred one when none fits."""
    for _ in range(CROP_TRIES):
        area = width * height * generator.uniform(*CROP_AREA)
        aspect = np.exp(generator.uniform(*np.log(CROP_ASPECT)))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, upper = generator.integers(width - w + 1), generator.integers(height - h + 1)
            return float(left), float(upper), float(left + w), float(upper + h)
    aspect = np.clip(width / height, *CROP_ASPECT)
    w, h = min(width, height * aspect), min(height, width / aspect)
    return _centred(width, height, w, h)


def _centred(width: int, height: int, w: float, h: float) -> Box:
    return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2


def _centre_square(width: int, height: int) -> Box:
    """The middle 224/256 of the shorter side, in both directions."""
    side = min(width, height) * CENTRE
    return _centred(width, height, side, side)


CROPS = {
    "vse_infinity": Crops(_same_aspect, lambda width, height: (0, 0, width, height), 512),
    "vsepp": Crops(_any_aspect, _centre_square, 224),
}
"""By the paper that has them, with its size: 512 is 256 times an input scale factor of 2."""

NORMALIZATIONS = {
    "imagenet": Normalization(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), False),
    "detector": Normalization(1.0, (102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0), True),
    "half": Normalization(1 / 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), False),
    "lite": Normalization(1.0, (127.0, 127.0, 127.0), (128.0, 128.0, 128.0), False),
    "clip": Normalization(
        1 / 255, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), False
    ),
}
"""What the weights of a backbone expect: ImageNet's; Faster R-CNN's as bottom-up attention; [-1, 1]
of Inception, many ViTs and MobileNets; EfficientNet-Lite's; OpenAI CLIP's."""


@dataclass(frozen=True)
class PictureOptions:
    """How pictures become tensors.

    Attributes:
        crops: key of `CROPS`.
        size: side in pixels of the square that everything is resized to; the paper's when None.
        normalization: key of `NORMALIZATIONS`.
    """

    crops: str = "vse_infinity"
    size: int | None = None
    normalization: str = "imagenet"

    def __post_init__(self) -> None:
        """Raises: ValueError naming the option."""
        for name, known in (("crops", CROPS), ("normalization", NORMALIZATIONS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"data.pictures.{name}: expected one of {sorted(known)}, "
                    f"got {getattr(self, name)!r}"
                )
        if self.size is not None and self.size < 1:
            raise ValueError(f"data.pictures.size: expected at least 1 pixel, got {self.size}")

    @cached_property
    def side(self) -> int:
        """Side of the square in pixels."""
        return CROPS[self.crops].size if self.size is None else self.size


def evaluation_centre(options: PictureOptions) -> float | None:
    """Share of the shorter side that evaluation sees, in the middle; None: the whole picture."""
    return CENTRE if CROPS[options.crops].evaluation is _centre_square else None


def picture_options(given: PictureOptions | Mapping[str, Any] | None) -> PictureOptions:
    """The record itself, or the one that is described by name; defaults when None."""
    if isinstance(given, PictureOptions):
        return given
    try:
        return PictureOptions(**(given or {}))
    except TypeError as error:
        raise ValueError(
            f"data.pictures: expected {[f.name for f in fields(PictureOptions)]}; {error}"
        ) from error


def training_view(
    picture: Image, options: PictureOptions, generator: np.random.Generator
) -> NDArray[np.float32]:
    """A random crop, resized to the square, mirrored half of the time: float32 [3, S, S]."""
    box = CROPS[options.crops].training(picture.width, picture.height, generator)
    mirrored = generator.random() < FLIP_PROBABILITY
    return _square(picture, box, options, mirrored)


def evaluation_view(picture: Image, options: PictureOptions) -> NDArray[np.float32]:
    """What evaluation sees, resized to the square: float32 [3, S, S]."""
    box = CROPS[options.crops].evaluation(picture.width, picture.height)
    return _square(picture, box, options, False)


def _square(
    picture: Image, box: Box, options: PictureOptions, mirrored: bool
) -> NDArray[np.float32]:
    """A box of a picture as a normalised square.

    Pillow's bilinear filter averages over the pixels that a smaller one covers; OpenCV's, which
    VSE-infinity uses, takes the four nearest. Large pictures differ a little by that.
    """
    from PIL import Image

    side, kind = options.side, NORMALIZATIONS[options.normalization]
    pixels = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR, box))  # [S, S, 3]
    if mirrored:
        pixels = pixels[:, ::-1]
    if kind.blue_first:
        pixels = pixels[:, :, ::-1]
    scaled = pixels.astype(np.float32) * np.float32(kind.scale)
    mean, deviation = (np.array(part, dtype=np.float32) for part in kind[1:3])
    normalised = (scaled - mean) / deviation
    return np.ascontiguousarray(normalised.transpose(2, 0, 1), dtype=np.float32)


class PictureDataset(Dataset):
    """Every image of a split once, by row, decoded when asked for: [3, S, S] as evaluated.

    Args:
        split: which images.
        options: how they become tensors.
        seed: of what training draws, together with the epoch and the caption, or the number of an
            image that is seen with several.
    """

    def __init__(self, split: PictureSplit, options: PictureOptions, seed: int) -> None:
        self.root, self.names = str(split.image_root), np.array(split.names)
        self.options = options
        self.seed = seed

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> NDArray[np.float32]:
        return evaluation_view(self._read(row), self.options)

    def training_image(self, row: int, epoch: int, caption: int) -> NDArray[np.float32]:
        """What training sees of image `row` with this caption in this epoch.

        It depends on these and the seed alone: not on which process loads it, or what came before.
        """
        generator = np.random.default_rng([self.seed, epoch, caption])
        return training_view(self._read(row), self.options, generator)

    def training_images(
        self, rows: Sequence[int], keys: Sequence[tuple[int, int]]
    ) -> list[NDArray[np.float32]]:
        """`training_image` of rows, each with its (epoch, caption)."""
        return [self.training_image(row, *key) for row, key in zip(rows, keys, strict=True)]

    def _read(self, row: int) -> Image:
        return read_picture(Path(self.root, str(self.names[row])))
