"""Validation of which text belongs to which image."""

from __future__ import annotations

import torch
from torch import Tensor

from goal_kernels.checks import Index, check_batch, check_ids, check_index_vector
from goal_kernels.constants import NO_ID
from goal_kernels.notices import has_numbers
from goal_kernels.pairs import owned


def check_pairing(
    images: Tensor,
    texts: Tensor,
    text_to_image: Index | None,
    image_ids: Index | None,
    text_ids: Index | None,
    name: str = "text_embeddings",
) -> tuple[Tensor | None, tuple[Tensor | None, Tensor | None]]:
    """Which image each of the texts belongs to, None: the one of its number; and the ids.

    Args: name: of the argument that has the texts.
    """
    rows, columns, device = len(images), len(texts), images.device
    if text_to_image is None:
        check_batch(rows, columns, name)
        return None, check_ids(image_ids, text_ids, rows, columns, device)
    check_not_empty(rows, columns, name)
    owner = check_text_to_image(text_to_image, rows, columns, device)
    check_some_pair(owner)
    return owner, check_owned_ids(image_ids, text_ids, owner, rows)


def check_text_to_image(
    value: object, rows: int, columns: int, device: torch.device | None
) -> Tensor:
    """Require the image of each text, [columns]: in [0, rows), or -1 for none.

    Numbers on the CPU are looked at; a GPU would have to be waited for, so there a number that is
    out of range means none.

    Returns: int64. Raises: TypeError, ValueError.
    """
    owner = check_index_vector("text_to_image", value, columns, device)
    if columns and owner.is_cpu and has_numbers(owner):
        least, most = (int(end) for end in owner.aminmax())
        if least < -1 or most >= rows:
            raise ValueError(
                f"text_to_image: expected rows of the {rows} images, or -1 for a text of no image, "
                f"got {least if least < -1 else most}; number the images of the batch from 0."
            )
    return owner


def check_not_empty(rows: int, columns: int, name: str) -> None:
    """Require an image and a text. name: of the argument that has the texts. Raises: ValueError."""
    if rows == 0 or columns == 0:
        raise ValueError(
            f"{name}: expected at least one image and one text, got {rows} and {columns}; skip "
            "empty batches, they have no loss."
        )


def check_some_pair(text_to_image: Tensor) -> None:
    """Require a text with an image, where numbers can be looked at. Raises: ValueError."""
    if text_to_image.is_cpu and has_numbers(text_to_image) and int(text_to_image.amax()) < 0:
        raise ValueError(
            "text_to_image: expected a text with an image, got -1 for all: without positive pairs "
            "there is no loss; skip the batch."
        )


def check_owned_ids(
    image_ids: Index | None, text_ids: Index | None, text_to_image: Tensor, rows: int
) -> tuple[Tensor | None, Tensor | None]:
    """As `check_ids` with several texts an image: image_ids alone are the ids of their texts too.

    Returns: int64 [rows] and [columns], or two Nones. Raises: TypeError, ValueError.
    """
    if image_ids is None and text_ids is None:
        return None, None
    if image_ids is None:
        raise ValueError(
            "image_ids: expected the ids of the images beside text_ids and text_to_image, got "
            "None; ids of the images alone are those of their texts."
        )
    images = check_index_vector("image_ids", image_ids, rows, text_to_image.device)
    if text_ids is not None:
        columns = text_to_image.shape[0]
        return images, check_index_vector("text_ids", text_ids, columns, text_to_image.device)
    exists = owned(text_to_image, rows)
    return images, torch.where(exists, images[text_to_image.clamp(0, rows - 1)], NO_ID)
