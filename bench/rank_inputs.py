"""Made-up test sets to rank, five texts an image."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.cases import LATENT_WIDTH

TEXTS_PER_IMAGE = 5
"""Of the usual test sets."""


class RankCase(NamedTuple):
    """N images of width D, 5 N texts."""

    images: int
    width: int

    def __str__(self) -> str:
        return f"ranks-{self.images}x{TEXTS_PER_IMAGE * self.images}x{self.width}"


class RankInputs(NamedTuple):
    """image [N, D], text [M, D] float32, rows of unit length; text_to_image int64 [M]."""

    image: Tensor
    text: Tensor
    text_to_image: Tensor


def make_rank_inputs(case: RankCase) -> RankInputs:
    """Embeddings of a half-trained model, as `bench.cases.make_inputs`."""
    generator = torch.Generator().manual_seed(case.images * 100_003 + case.width)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    owner = torch.arange(TEXTS_PER_IMAGE * case.images) // TEXTS_PER_IMAGE
    latent = F.normalize(normal(case.images, LATENT_WIDTH), dim=1)
    noise = F.normalize(normal(len(owner), LATENT_WIDTH), dim=1)
    basis = normal(LATENT_WIDTH, case.width)
    detail = 0.3 * LATENT_WIDTH**-0.5
    image = latent @ basis + detail * normal(case.images, case.width)
    text = (latent[owner] + noise) @ basis + detail * normal(len(owner), case.width)
    return RankInputs(F.normalize(image, dim=1), F.normalize(text, dim=1), owner)
