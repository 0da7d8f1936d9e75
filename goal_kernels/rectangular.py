"""Batches in which images have several texts, and negatives other than the hardest.

`text_to_image` [M] says which image [N] each text belongs to; a text of no image, and an image of
no text, is an extra negative. Every text with an image is a pair, whose two anchors are weighted as
in a square batch. All texts of an image share its negatives, so an image is searched once.

Everything is searched with the texts as rows: each text has one image at most, which is what the
`target` of a `Pairing` says, and the texts of an image are then never its negatives. The weights
act on vectors over the M texts, in which a text of no image has weight 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from goal_kernels import ops
from goal_kernels.backends.answers import Forward, GradientTerms
from goal_kernels.backends.base import Pairing, SearchQuery
from goal_kernels.backends.candidates import PLAIN, Selection
from goal_kernels.backends.selection import Chosen
from goal_kernels.objective import Objective
from goal_kernels.pairs import owned
from goal_kernels.reference import sum_rows
from goal_kernels.selection_ops import Selected, select_rows
from goal_kernels.weights import Anchors, ordered_sum, weigh_anchors, wide

Search = Callable[..., Selected]
"""What `search` is, and what processes have that share it out."""


def search(
    backend: str,
    image: Tensor,
    text: Tensor,
    pairing: Pairing,
    query: SearchQuery,
    selection: Selection = PLAIN,
    exempt: Tensor | None = None,
) -> Selected:
    """The negatives of texts [M, D] as rows and images [N, D] as columns.

    Args:
        pairing: of texts as rows.
        exempt: bool [M], texts that are never left out as false negatives.
    """
    if selection != PLAIN:
        return select_rows(text, image, pairing, exempt, query, selection, backend)
    found = ops.search(backend, text, image, pairing, query)
    mined = found.mined
    nothing = mined.row_index.new_zeros(0)

    def one(value: Tensor, place: Tensor, total: Tensor, number: Tensor) -> Chosen:
        return Chosen(value[None], place[None], total[None], number[None], nothing)

    return Selected(
        found.positive,
        one(mined.row_value, mined.row_index, mined.row_sum, mined.row_count),
        one(mined.column_value, mined.column_index, mined.column_sum, mined.column_count),
        found.scales_of_rows,
    )


def _of_pairs(chosen: Chosen, own: Tensor | slice, exists: Tensor) -> Chosen:
    """The negatives of the anchors `own`, [M] of them; none where a text has no image."""
    sums = chosen.total.shape[1] > 0
    return Chosen(
        chosen.value[:, own].masked_fill(~exists, -math.inf),
        chosen.place[:, own].masked_fill(~exists, -1),
        chosen.total[:, own] if sums else chosen.total,
        chosen.number[:, own] if sums else chosen.number,
        chosen.skipped,
    )


def _weigh(
    objective: Objective, positive: Tensor, chosen: Chosen, counts: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """a [M], b [k, M] and the value [M] of the anchors of one direction, averaged over the slots.

    Args: positive: NaN for a text of no image. counts: whether the direction does.
    """
    slots = len(chosen.place)
    valid = chosen.place >= 0
    number = valid.sum(dim=0).clamp(min=1)
    attract = value = torch.zeros_like(wide(positive))
    repel = []
    for slot in range(slots):
        anchors = Anchors(
            positive, chosen.value[slot], valid[slot], chosen.total[slot], chosen.number[slot]
        )
        if counts:
            a, b, v = (part / number for part in weigh_anchors(objective, anchors))
            attract, value = attract + a, value + v
        else:
            b = torch.zeros_like(attract)
        repel.append(b)
    return attract, torch.stack(repel), value


def weigh_pairs(
    objective: Objective, found: Selected, text_to_image: Tensor, direction: str
) -> tuple[Forward, GradientTerms]:
    """The weight stage.

    Args: found: of texts as rows and images as columns, like the terms that are returned.
    Returns: `Forward` over the M texts instead of B pairs, where row_value, row_index and
        row_weight are those of the image of each text; of several negatives the first. A text of no
        image has positive -inf, negatives -inf, indices -1 and weights 0.
    """
    images, texts = found.columns.place.shape[1], len(text_to_image)
    dtype = found.positive.dtype
    exists = owned(text_to_image, images)
    own = text_to_image.clamp(0, images - 1)
    every = torch.arange(texts, device=own.device)
    # NaN joins no set of R+, which runs over the positives that exist.
    positive = found.positive.masked_fill(~exists, math.nan)
    i2t = _of_pairs(found.columns, own, exists)
    t2i = _of_pairs(found.rows, slice(None), exists)
    attract_image, repel_text, image_value = _weigh(objective, positive, i2t, direction != "t2i")
    attract_text, repel_image, text_value = _weigh(objective, positive, t2i, direction != "i2t")
    positive_weight = (attract_image + attract_text).to(dtype)
    repel_text, repel_image = repel_text.to(dtype), repel_image.to(dtype)
    forward = Forward(
        ordered_sum(image_value + text_value).to(dtype),
        torch.stack(
            [
                found.positive,
                *(i2t.value[0], t2i.value[0]),
                *(positive_weight, repel_text.sum(dim=0), repel_image.sum(dim=0)),
            ]
        ),
        torch.stack([i2t.place[0], t2i.place[0]]),
    )
    # The texts of an image repel the same negatives: their weights add up.
    ones = torch.ones_like(positive)
    of_images = sum_rows(repel_text.T.contiguous(), every, text_to_image, ones, images).T
    several = len(repel_text) > 1
    terms = GradientTerms(
        found.rows.place if several else found.rows.place[0],
        found.columns.place if several else found.columns.place[0],
        text_to_image,
        positive_weight,
        repel_image if several else repel_image[0],
        of_images.contiguous() if several else of_images[0].contiguous(),
    )
    return forward, terms
