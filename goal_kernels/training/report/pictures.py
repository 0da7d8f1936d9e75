"""Small pictures of the images of a split, as data URIs."""

from __future__ import annotations

import base64
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from goal_kernels.data.picture_files import read_picture
from goal_kernels.data.split import Split

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL_PIXELS = 144  # side of the square a picture is fitted into
JPEG_QUALITY = 85


class Pictures:
    """Finds or draws the picture of an image row.

    Its file comes first (see `Split.picture`); an image whose scene is known is drawn; for
    anything else there is no picture.
    """

    def __init__(self, split: Split) -> None:
        self.split = split
        self.uri = lru_cache(maxsize=None)(self._uri)

    def _uri(self, row: int) -> str | None:
        """`data:image/jpeg;base64,...` of image `row`, or None where there is no picture."""
        picture = self._open(row)
        if picture is None:
            return None
        picture.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        stored = BytesIO()
        picture.save(stored, "JPEG", quality=JPEG_QUALITY, optimize=True)
        return "data:image/jpeg;base64," + base64.b64encode(stored.getvalue()).decode("ascii")

    def _open(self, row: int) -> Image | None:
        path = self.split.picture(row)
        if path is not None:
            return read_picture(path)
        if self.split.scenes is None:
            return None
        from goal_kernels.data.goalworld.rendering import render_scene
        from goal_kernels.data.goalworld.scenes import Scene

        scene = Scene.from_json(self.split.scenes[row])
        return render_scene(scene, 2 * THUMBNAIL_PIXELS, np.random.default_rng(row))
