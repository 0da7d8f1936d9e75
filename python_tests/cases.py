"""Cases every backend test runs over: shapes with the reason for each, inputs, objectives."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from goal_kernels import Objective, builtin_objectives


class Shape(NamedTuple):
    """Batch, width, and which path of a kernel the shape exercises."""

    batch: int
    width: int
    why: str

    def __str__(self) -> str:
        return f"{self.batch}x{self.width}"


SHAPES = (
    Shape(2, 1, "smallest batch, smallest width"),
    Shape(3, 7, "everything smaller than a tile"),
    Shape(31, 64, "one below a tile"),
    Shape(33, 65, "one above a tile in both"),
    Shape(67, 100, "two tiles and a rest"),
    Shape(130, 300, "several column blocks, several slices of the width"),
)

OBJECTIVES: tuple[Objective, ...] = builtin_objectives()

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def unit_rows(batch: int, width: int, generator: torch.Generator) -> Tensor:
    """Random rows of unit length, [batch, width] float64."""
    rows = torch.randn(batch, width, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=1)


def paired_batch(
    batch: int, width: int, dtype: torch.dtype = torch.float64, seed: int = 0, noise: float = 0.7
) -> tuple[Tensor, Tensor]:
    """Image and text embeddings of a half-trained model: texts are noisy copies. 2 x [B, D]

    The two are rounded to `dtype` first, so that a float64 truth sees the very same numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    image = unit_rows(batch, width, generator)
    text = image + noise * unit_rows(batch, width, generator)
    text = torch.nn.functional.normalize(text, dim=1)
    return image.to(dtype), text.to(dtype)


def unruly_batch(
    batch: int, width: int, dtype: torch.dtype, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Rows of any length, similarities of any sign: what no kernel may assume away. 2 x [B, D]"""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(2, batch, 1, generator=generator, dtype=torch.float64) + 0.2
    pair = torch.randn(2, batch, width, generator=generator, dtype=torch.float64) / width**0.5
    image, text = scale * pair
    return image.to(dtype), text.to(dtype)


def caption_ids(batch: int) -> Tensor:
    """Ids of a batch in which some images come with several captions, unsorted. [B]"""
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(0, max(2, 2 * batch // 3), (batch,), generator=generator)


def captioned_batch(
    images: int, width: int, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """A batch with 0 to 4 texts an image and texts of no image, in no order. [N, D], [M, D], [M]

    The last tensor is the image of each text, -1 for none. The first image has no text.
    """
    generator = torch.Generator().manual_seed(seed)
    texts = torch.randint(0, 5, (images,), generator=generator)
    texts[0], texts[-1] = 0, 3
    owner = torch.arange(images).repeat_interleave(texts)
    owner = torch.cat([owner, torch.full((max(1, images // 4),), -1)])
    owner = owner[torch.randperm(len(owner), generator=generator)]
    image = unit_rows(images, width, generator)
    noise = unit_rows(len(owner), width, generator)
    text = torch.where((owner >= 0)[:, None], image[owner.clamp(min=0)] + 0.7 * noise, noise)
    text = torch.nn.functional.normalize(text, dim=1)
    return image.to(dtype), text.to(dtype), owner
