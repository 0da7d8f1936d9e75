"""Decoding image files of any depth as 8-bit RGB. Pillow."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from goal_kernels.data.files import mistaken_for, read_head
from goal_kernels.extras import install

if TYPE_CHECKING:
    from PIL.Image import Image

BITS, PHOTOMETRIC = 258, 262  # tags of a TIFF; photometric 0: zero is white
# What white can be where the file does not say it: floats in [0, 1], 8, 16 and 31 bits.
WHITES = {"F": (1.0, 255.0, 65535.0), "I": (255.0, 65535.0, float(2**31 - 1))}
OVERSHOOT = 2.0  # resampling leaves values a little above white; they are cut off
UNDERSHOOT = 0.1  # likewise below black, as a share of white


class PictureError(ValueError):
    """An image file that cannot be decoded. A loader process hands it on by its message alone."""


class Decoded(NamedTuple):
    """An 8-bit RGB picture, and what was done to make it one; empty for 8-bit pictures."""

    picture: Image
    remark: str


def need_pillow(argument: str) -> None:
    """Raise ValueError when image files cannot be read here; ``argument`` is what asks for them."""
    if find_spec("PIL") is None:
        raise ValueError(
            f"{argument}: image files need Pillow, which is not installed; {install('train')}"
        )


def decode_picture(path: Path) -> Decoded:
    """Decode an image file as RGB, turned as its camera says.

    Numbers of more than 8 bits are scaled, white becoming 255: 65535 of a 16-bit file, of 32-bit
    integers and floats the least of `WHITES` that their largest number does not exceed twofold.
    What is transparent is laid over white.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: why it cannot be decoded, or its numbers are no brightness.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as stored:
            white = _stated_white(stored)
            inverted = getattr(stored, "tag_v2", {}).get(PHOTOMETRIC) == 0
            picture = ImageOps.exif_transpose(stored)
        if picture.mode == "F" or picture.mode.startswith("I"):
            return _scaled(picture, white, inverted)
        if picture.mode[-1] in "Aa" or "transparency" in picture.info:
            return Decoded(_over_white(picture), "transparency laid over white")
        return Decoded(picture.convert("RGB"), "")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path}: no such image file; `goal-kernels data inspect` lists what is missing, "
            "data.image_root says where files are"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise errors of any kind at damaged files
        raise ValueError(mistaken_for(read_head(path)) or str(error)) from error


def read_picture(path: Path) -> Image:
    """The picture of `decode_picture`.

    Raises: FileNotFoundError, PictureError, naming the file and how to find others like it.
    """
    try:
        return decode_picture(path).picture
    except ValueError as error:
        raise PictureError(
            f"{path}: cannot be decoded: {error}; `goal-kernels data inspect --all` finds all such "
            "files"
        ) from error


def _stated_white(stored: Image) -> float | None:
    """White of a picture of more than 8 bits, as far as its file says it."""
    bits = getattr(stored, "tag_v2", {}).get(BITS, (0,))[0]
    if stored.mode.startswith("I;") or stored.format in ("PNG", "PPM"):
        # Pillow brings fewer than 16 bits up to 16, but for the 12 of a TIFF.
        return 4095.0 if bits == 12 else 65535.0
    return None


def _scaled(picture: Image, white: float | None, inverted: bool) -> Decoded:
    """Integers of more than 8 bits, or floats, brought to 0 .. 255, nearest."""
    from PIL import Image

    pixels = np.asarray(picture).astype(np.float32)  # [H, W]
    if not np.isfinite(pixels).all():
        raise ValueError("its floats hold NaN or infinity")
    low, high = pixels.min(), pixels.max()
    if white is None:
        fitting = [top for top in WHITES[picture.mode[0]] if high <= OVERSHOOT * top]
        if not fitting:
            raise ValueError(f"expected numbers up to 65535, found {high:g}; scale them")
        white = fitting[0]
    if low < -UNDERSHOOT * white:
        raise ValueError(f"expected numbers from 0 to {white:g}, found {low:g}; scale them")
    grey = np.rint(np.clip(pixels, 0, white) * (255 / white)).astype(np.uint8)
    kind = "floats" if picture.mode == "F" else "integers"
    remark = f"{kind} of 0 to {white:g} scaled to 8 bits"
    return Decoded(Image.fromarray(255 - grey if inverted else grey).convert("RGB"), remark)


def _over_white(picture: Image) -> Image:
    """A picture with an alpha channel, or a transparent colour, on a white ground."""
    from PIL import Image

    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
