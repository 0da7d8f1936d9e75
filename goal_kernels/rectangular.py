"""Batches in which images have several texts, or some items belong to none.

`text_to_image` [M] says which image [N] each text belongs to; a text of no image, and an image of
no text, is an extra negative. Every text with an image is a pair, whose two anchors are weighted as
in a square batch. All texts of an image share its hardest negative, so an image is searched once.

Everything is searched with the texts as rows: each text has one image at most, which is what the
`target` of a `Pairing` says, and the texts of an image are then never its negatives. The weights
act on vectors over the M texts, in which a text of no image has weight 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from goal_kernels import ops
from goal_kernels.backends.answers import Forward, Found, GradientTerms, Mined
from goal_kernels.backends.base import Pairing, SearchQuery
from goal_kernels.objective import Objective
from goal_kernels.reference import sum_rows
from goal_kernels.weights import weigh


def owned(text_to_image: Tensor, images: int) -> Tensor:
    """bool [M]: which texts have an image."""
    return (text_to_image >= 0) & (text_to_image < images)


def search(
    backend: str,
    image: Tensor,
    text: Tensor,
    text_to_image: Tensor,
    ids: tuple[Tensor | None, Tensor | None],
    query: SearchQuery,
) -> Found:
    """`ops.search` with the texts [M, D] as rows and the images [N, D] as columns."""
    image_ids, text_ids = ids
    pairing = Pairing(text_to_image, text_ids, image_ids)
    return ops.search(backend, text, image, pairing, query)


def weigh_pairs(
    objective: Objective, found: Found, text_to_image: Tensor, direction: str
) -> tuple[Forward, GradientTerms]:
    """The weight stage.

    Args: found: of texts as rows and images as columns, like the terms that are returned.
    Returns: `Forward` over the M texts instead of B pairs, where row_value, row_index and
        row_weight are those of the image of each text; a text of no image has positive -inf,
        negatives -inf, indices -1 and weights 0.
    """
    mined, images = found.mined, found.sizes[1]
    exists = owned(text_to_image, images)
    own = text_to_image.clamp(0, images - 1)
    sums = len(found.sums) > 0
    pairs = Mined(
        mined.column_value[own].masked_fill(~exists, -math.inf),
        mined.column_index[own].masked_fill(~exists, -1),
        mined.row_value.masked_fill(~exists, -math.inf),
        mined.row_index.masked_fill(~exists, -1),
        mined.column_sum[own] if sums else mined.column_sum,
        mined.column_count[own] if sums else mined.column_count,
        mined.row_sum,
        mined.row_count,
    )
    # NaN joins no set of R+, which runs over the positives that exist.
    positive = found.positive.masked_fill(~exists, math.nan)
    weighted = weigh(objective, positive, pairs, direction)
    forward = Forward(
        weighted.value,
        torch.stack([found.positive, pairs.row_value, pairs.column_value, *weighted[1:]]),
        torch.stack([pairs.row_index, pairs.column_index]),
    )
    order = torch.arange(len(own), device=own.device)
    of_images = sum_rows(
        weighted.row_weight[:, None], order, text_to_image, torch.ones_like(positive), images
    )[:, 0]
    terms = GradientTerms(
        mined.row_index,
        mined.column_index,
        text_to_image,
        weighted.positive_weight,
        weighted.column_weight,
        of_images,
    )
    return forward, terms
