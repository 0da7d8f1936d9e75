"""`mine`: hardest negatives without a loss."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from goal_kernels import checks, ops, rectangular
from goal_kernels.backends.base import Pairing, SearchQuery, device_kind
from goal_kernels.backends.candidates import PLAIN
from goal_kernels.backends.choice import find_backend
from goal_kernels.checks import Index, Mask, Rows
from goal_kernels.constants import BETA, EPSILON
from goal_kernels.functional import choose_backend
from goal_kernels.negatives import Negatives, TopK, as_selection
from goal_kernels.operators import is_unwatched
from goal_kernels.pairing_checks import check_owned_ids, check_pairing, check_text_to_image


class MinedPairs(NamedTuple):
    """The mined quantities of [N, D] images against [M, D] texts.

    positive [N]: similarity of each image to its own text, -inf where it has none; with
        `text_to_image` [M]: of each text to its own image.
    negative_text, hardest_text [N]: similarity and index of each image's hardest negative text.
    negative_image, hardest_image [M]: of each text's hardest negative image. -inf and -1: none.
    With `TopK` negative_* and hardest_* are [N, k] and [M, k].
    Similarities are float32 (float64 for float64 inputs), indices int64.
    """

    positive: Tensor
    negative_text: Tensor
    hardest_text: Tensor
    negative_image: Tensor
    hardest_image: Tensor


def mine(
    image_embeddings: Rows,
    text_embeddings: Rows,
    *,
    target: Index | None = None,
    text_to_image: Index | None = None,
    image_ids: Index | None = None,
    text_ids: Index | None = None,
    negatives: Negatives = "hardest",
    false_negative_margin: float | None = None,
    false_negative_ratio: float | None = None,
    exempt_texts: Mask | None = None,
    normalize: bool = False,
    precision: str | None = None,
    backend: str = "auto",
) -> MinedPairs:
    """Hardest negatives of both directions, without gradient and without the similarity matrix.

    Args:
        image_embeddings, text_embeddings: [N, D] and [M, D], N, M >= 1, dtypes as in `goal_loss`;
            tensors, or numpy arrays.
        target: [N] integers, the text that belongs to each image; None means text i, and a value
            outside [0, M) that the image has none. An image's own text is never its negative.
        text_to_image: instead of `target` [M] integers, the image of each text, as in `goal_loss`.
        Others: as in `goal_loss`.

    Returns: `MinedPairs`.

    Raises: as `goal_loss`.
    """
    image, text = checks.check_embeddings(
        checks.as_tensor(image_embeddings), checks.as_tensor(text_embeddings)
    )
    rows, columns, device = image.shape[0], text.shape[0], image.device
    if rows == 0 or columns == 0:
        raise ValueError(f"image_embeddings: expected N, M >= 1, got N = {rows}, M = {columns}.")
    checks.check_precision(precision)
    checks.check_flag("normalize", normalize)
    if target is not None and text_to_image is not None:
        raise ValueError("target: expected None beside text_to_image, which pairs the rows too.")
    selection = as_selection(negatives, false_negative_margin, false_negative_ratio)
    exempt = checks.check_mask("exempt_texts", exempt_texts, columns, device)
    name, precision = choose_backend(backend, device_kind(image), image.dtype, precision)
    query = SearchQuery("none", EPSILON, BETA, normalize, precision)
    if text_to_image is None and selection is PLAIN:
        if target is not None:
            target = checks.check_index_vector("target", target, rows, device)
        ids = checks.check_ids(image_ids, text_ids, rows, columns, device)
        pairing = Pairing(target, *ids)
        if not is_unwatched(image, text):
            return MinedPairs(*ops.search(name, image, text, pairing, query).hardest)
        if image.requires_grad or text.requires_grad:
            image, text = image.detach(), text.detach()
        return MinedPairs(*find_backend(name).hardest(image, text, pairing, query))
    if target is not None:
        raise ValueError("target: expected None where negatives are chosen; give text_to_image.")
    if text_to_image is None:
        _, ids = check_pairing(image, text, None, image_ids, text_ids)
        owner = torch.arange(columns, device=device)
    else:
        owner = check_text_to_image(text_to_image, rows, columns, device)
        ids = check_owned_ids(image_ids, text_ids, owner, rows)
    pairing = Pairing(owner, *reversed(ids))
    chosen = rectangular.search(name, image, text, pairing, query, selection, exempt)
    sides = (chosen.columns.value, chosen.columns.place, chosen.rows.value, chosen.rows.place)
    several = isinstance(negatives, TopK)
    return MinedPairs(chosen.positive, *(x.T.contiguous() if several else x[0] for x in sides))
