"""Validation of what users pass. Looks at shapes, dtypes and devices only: never at values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from goal_kernels.backends.base import PRECISIONS

FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGER_DTYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_embeddings(image_embeddings: Tensor, text_embeddings: Tensor) -> None:
    """Require two float [rows, D] tensors that fit together.

    Raises: TypeError (not a tensor, wrong or different dtypes), ValueError (shape, device).
    """
    for name, value in (
        ("image_embeddings", image_embeddings),
        ("text_embeddings", text_embeddings),
    ):
        _check_matrix(name, value, "[rows, D]")
        if value.shape[1] == 0:
            raise ValueError(f"{name}: expected D >= 1, got shape {list(value.shape)}.")
    if image_embeddings.shape[1] != text_embeddings.shape[1]:
        raise ValueError(
            "text_embeddings: expected the width of image_embeddings, "
            f"{image_embeddings.shape[1]}, got shape {list(text_embeddings.shape)}; project both "
            "into one joint space."
        )
    if image_embeddings.dtype != text_embeddings.dtype:
        raise TypeError(
            f"text_embeddings: expected the dtype of image_embeddings, {image_embeddings.dtype}, "
            f"got {text_embeddings.dtype}; cast one of them."
        )
    check_same_device("text_embeddings", text_embeddings, image_embeddings.device)


def _check_matrix(name: str, value: Tensor, shape: str) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name}: expected a torch.Tensor {shape}, got {type(value).__name__}; convert it with "
            "torch.as_tensor."
        )
    if value.dtype not in FLOAT_DTYPES:
        expected = ", ".join(str(d).removeprefix("torch.") for d in FLOAT_DTYPES)
        raise TypeError(f"{name}: expected one of {expected}, got {value.dtype}; cast it.")
    if value.dim() != 2:
        raise ValueError(
            f"{name}: expected a tensor {shape}, got shape {list(value.shape)}; flatten or pool it "
            "to one row per item."
        )


def check_same_device(name: str, value: Tensor, device: torch.device) -> None:
    """Require `value` to be on `device`. Raises: ValueError."""
    if value.device != device:
        raise ValueError(
            f"{name}: expected device {device} like the embeddings, got {value.device}; move it."
        )


def check_batch(rows: int, columns: int, name: str = "text_embeddings") -> None:
    """Require a square batch of at least two pairs. Raises: ValueError."""
    if rows != columns:
        raise ValueError(
            f"{name}: expected {rows} rows, one per image, got {columns}; row i of the "
            "texts must be the positive of row i of the images (repeat images that have several)."
        )
    if rows < 2:
        raise ValueError(
            f"image_embeddings: expected B >= 2 pairs, got {rows}; a single pair has no negative. "
            "Use drop_last=True in the data loader."
        )


def check_similarity(similarity: Tensor) -> None:
    """Require a square float matrix of at least 2 x 2. Raises: TypeError, ValueError."""
    _check_matrix("similarity", similarity, "[B, B]")
    rows, columns = similarity.shape
    check_batch(rows, columns, name="similarity")


def check_index_vector(name: str, value: object, length: int, device: torch.device) -> Tensor:
    """Require integers [length] on `device`; returns them as contiguous int64.

    Raises: TypeError (not an integer tensor), ValueError (length, device).
    """
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name}: expected an integer torch.Tensor [{length}], got {type(value).__name__}; "
            "convert it with torch.as_tensor."
        )
    if value.dtype not in INTEGER_DTYPES:
        raise TypeError(f"{name}: expected integers [{length}], got dtype {value.dtype}.")
    if value.dim() != 1 or value.shape[0] != length:
        raise ValueError(
            f"{name}: expected one integer per row, shape [{length}], got {list(value.shape)}."
        )
    check_same_device(name, value, device)
    return value.to(torch.int64).contiguous()


def check_ids(
    image_ids: Tensor | None, text_ids: Tensor | None, rows: int, columns: int, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """Require ids of both sides; one side alone stands for both when the batch is square.

    Returns: int64 [rows] and [columns], or two Nones. Raises: TypeError, ValueError.
    """
    if image_ids is None and text_ids is None:
        return None, None
    if (image_ids is None or text_ids is None) and rows != columns:
        missing = "image_ids" if image_ids is None else "text_ids"
        raise ValueError(
            f"{missing}: expected ids for both sides when {rows} rows meet {columns} columns, got "
            "None."
        )
    return (
        check_index_vector("image_ids", text_ids if image_ids is None else image_ids, rows, device),
        check_index_vector(
            "text_ids", image_ids if text_ids is None else text_ids, columns, device
        ),
    )


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Require one of a few words. Raises: ValueError."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}.")


def check_precision(precision: str | None) -> None:
    """Require None or one of torch's words for float32 products. Raises: ValueError."""
    if precision is not None:
        check_choice("precision", precision, PRECISIONS)
