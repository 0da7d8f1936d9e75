"""A folder in the precomputed layout that is small, made up here, and easy to learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from goal_kernels.data import write_split

COLOURS = ("red", "blue", "green", "gold", "grey", "pink")
SHAPES = ("disc", "ring", "star", "cube")
SIZES = {"train": 24, "dev": 12, "test": 12}
CAPTIONS_PER_IMAGE = 2
REGIONS, WIDTH = 3, len(COLOURS) + len(SHAPES)


def write_made_up_split(folder: Path, name: str, images: int) -> list[str]:
    """Images of one coloured shape each: one region is its one-hot code, one noise, one padding."""
    rng = np.random.default_rng(len(name))
    features = np.zeros((images, REGIONS, WIDTH), dtype=np.float32)
    features[:, 1] = 0.1 * rng.normal(size=(images, WIDTH))
    captions = []
    for image in range(images):
        colour, shape = image % len(COLOURS), (image // len(COLOURS)) % len(SHAPES)
        features[image, 0, [colour, len(COLOURS) + shape]] = 1
        captions += [
            f"a {COLOURS[colour]} {SHAPES[shape]}",
            f"there is one {SHAPES[shape]} that looks {COLOURS[colour]}",
        ]
    write_split(folder, name, features, captions, image_ids=range(100, 100 + images))
    return captions


def read_through(loader: DataLoader) -> list:
    """All batches, with the loader's processes ended.

    Left to the garbage collector, torch may wait five seconds for each of them.
    """
    batches = iter(loader)
    try:
        return list(batches)
    finally:
        if loader.num_workers:
            batches._shutdown_workers()
