"""Validation of what users pass. Looks at shapes, dtypes and devices only: never at values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor

from goal_kernels.backends.base import PRECISIONS
from goal_kernels.notices import warn_once

FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGER_DTYPES = (
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8),
)

Index: TypeAlias = "Tensor | Sequence[int] | NDArray[np.integer[Any]]"
"""Integers, one a row: a tensor, or what torch.as_tensor makes one of."""


Mask: TypeAlias = "Tensor | Sequence[bool] | NDArray[np.bool_]"
"""Booleans, one a row: a tensor, or what torch.as_tensor makes one of."""

Ranks: TypeAlias = "Tensor | Sequence[float] | NDArray[np.number[Any]]"
"""Ranks [Q] of queries, from 0."""

Rows: TypeAlias = "Tensor | NDArray[np.floating[Any]]"
"""Embeddings [rows, D] where no gradient is wanted: a tensor or a numpy array."""


def as_tensor(rows: Rows) -> Tensor:
    """A numpy array of floats as a tensor (copied, since maps may be read-only); others as is."""
    if not isinstance(rows, np.ndarray) or rows.dtype.kind != "f" or rows.dtype.itemsize > 8:
        return rows  # type: ignore[return-value]  # for `check_embeddings` to refuse
    return torch.from_numpy(_native_array(rows))


def _native_array(values: NDArray[Any]) -> NDArray[Any]:
    """A copy that torch can read: writable, in the processor's byte order, strides forward."""
    return np.array(values, dtype=values.dtype.newbyteorder("="))


def check_embeddings(
    image: Tensor, text: Tensor, names: tuple[str, str] = ("image_embeddings", "text_embeddings")
) -> tuple[Tensor, Tensor]:
    """Require two float [rows, D] tensors that fit together. names: what the caller calls them.

    Returns: both, in the dtype to which torch promotes theirs.
    Raises: TypeError (not a dense float tensor), ValueError (shape, device).
    """
    _check_matrix(names[0], image, "[rows, D]")
    _check_matrix(names[1], text, "[rows, D]")
    if image.size(1) == 0:
        raise ValueError(f"{names[0]}: expected D >= 1, got shape {list(image.shape)}.")
    if image.size(1) != text.size(1):
        raise ValueError(
            f"{names[1]}: expected the width of {names[0]}, {image.shape[1]}, got shape "
            f"{list(text.shape)}; project both into one joint space."
        )
    check_same_device(names[1], text, image.device)
    if image.dtype == text.dtype:
        return image, text
    dtype = torch.promote_types(image.dtype, text.dtype)
    return image.to(dtype), text.to(dtype)


def _check_matrix(name: str, value: Tensor, shape: str) -> None:
    ordinary = type(value) is Tensor and value.layout is torch.strided and not value.is_nested
    if ordinary and value.dtype in FLOAT_DTYPES and value.dim() == 2:
        return  # the rest finds out what is wrong
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name}: expected a torch.Tensor {shape}, got {type(value).__name__}; convert it with "
            "torch.as_tensor, where no gradient is to flow."
        )
    check_ordinary(name, value)
    if value.dtype not in FLOAT_DTYPES:
        expected = ", ".join(str(d).removeprefix("torch.") for d in FLOAT_DTYPES)
        remedy = "cast it"
        if value.is_complex():
            remedy = "torch.view_as_real(x).flatten(1) has the same real inner products"
        raise TypeError(f"{name}: expected one of {expected}, got {value.dtype}; {remedy}.")
    if value.dim() != 2:
        raise ValueError(
            f"{name}: expected a tensor {shape}, got shape {list(value.shape)}; flatten or pool it "
            "to one row per item."
        )


def check_ordinary(name: str, value: Tensor, *, data: bool = False) -> None:
    """Require a dense tensor that is no wrapper around others. Raises: TypeError.

    data: also require that it has numbers to read: those of the meta device and fake ones have
        none, and a transform of torch.func hides them, of what is allocated within it too.
    """
    got = remedy = ""
    if value.is_nested:
        got, remedy = "a nested tensor", "pool it to one row per item"
    elif value.is_quantized:
        got, remedy = "a quantized tensor", "call .dequantize()"
    elif value.layout != torch.strided:
        got, remedy = f"layout {value.layout}", "call .to_dense()"
    elif _wraps_others(value):
        got = type(value).__name__
        remedy = "unwrap it (a DTensor by .full_tensor(), a MaskedTensor by .to_tensor(0.0))"
    elif data and (value.is_meta or isinstance(value, FakeTensor)):
        got, remedy = "one without numbers (meta or fake)", "load the model on a device"
    elif data and torch._C._are_functorch_transforms_active():
        got, remedy = "one within a transform of torch.func", "call this outside of it"
    if got:
        raise TypeError(f"{name}: expected an ordinary dense tensor, got {got}; {remedy}.")


def _wraps_others(value: Tensor) -> bool:
    """Whether a subclass answers operators itself, without memory of its own to read."""
    if torch.compiler.is_compiling() or type(value) is Tensor:
        return False
    own = type(value).__torch_dispatch__ is not Tensor.__torch_dispatch__
    return own and not isinstance(value, FakeTensor | FunctionalTensor)


def check_same_device(name: str, value: Tensor, device: torch.device) -> None:
    """Require `value` to be on `device`. Raises: ValueError."""
    if value.device != device:
        raise ValueError(
            f"{name}: expected device {device} like the embeddings, got {value.device}; move it."
        )


def check_batch(rows: int, columns: int, name: str = "text_embeddings") -> None:
    """Require a square batch of at least one pair; one alone is warned about, once per process.

    Raises: ValueError.
    """
    if rows != columns:
        raise ValueError(
            f"{name}: expected {rows} rows, one per image, got {columns}; pass text_to_image, the "
            "image of each text, where images have several texts or none."
        )
    if rows == 0:
        raise ValueError(
            "image_embeddings: expected B >= 1 pairs, got 0; skip empty batches, they have no loss."
        )
    if rows == 1:
        warn_once(
            "lone pair",
            "goal_loss: got a batch of one pair, which has no negative: what negatives add to "
            "its loss and gradients is 0. Use drop_last=True in the data loader if it is the rest "
            "of an epoch.",
        )


def check_similarity(similarity: Tensor) -> None:
    """Require a float matrix. Raises: TypeError, ValueError."""
    _check_matrix("similarity", similarity, "[N, M]")


def check_index_vector(
    name: str, value: object, length: int, device: torch.device | None
) -> Tensor:
    """Require integers [length]; returns them as contiguous int64.

    Args:
        value: a tensor on `device` (anywhere when None), or a sequence or array, copied there.
    Raises: TypeError (not integers), ValueError (length, device).
    """
    if not isinstance(value, Tensor):
        value = _index_tensor(name, value, length, device)
    check_ordinary(name, value)
    if value.dtype not in INTEGER_DTYPES:
        remedy = (
            "call .long() where they are whole numbers"
            if value.is_floating_point()
            else ("number them from 0")
        )
        raise TypeError(f"{name}: expected integers [{length}], got {value.dtype}; {remedy}.")
    if value.dim() != 1 or value.shape[0] != length:
        raise ValueError(
            f"{name}: expected one integer per row, shape [{length}], got {list(value.shape)}."
        )
    if device is not None:
        check_same_device(name, value, device)
    return value.to(torch.int64).contiguous()


def _index_tensor(name: str, value: Any, length: int, device: torch.device | None) -> Tensor:
    """A sequence or an array of numbers as a tensor. Raises: TypeError."""
    try:
        if hasattr(value, "__array__"):  # a column of a table too, whose items have labels
            value = _native_array(np.asarray(value))
        return torch.as_tensor(value, device="cpu" if device is None else device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{name}: expected integers [{length}] in a tensor, an array or a list, got "
            f"{type(value).__name__}; number the items from 0."
        ) from error


def check_mask(name: str, value: object, length: int, device: torch.device) -> Tensor | None:
    """Require booleans [length] or None. Raises: TypeError (no booleans), ValueError (length)."""
    if value is None:
        return None
    if not isinstance(value, Tensor):
        value = torch.as_tensor(value, device=device)
    check_ordinary(name, value)
    if value.dtype != torch.bool:
        raise TypeError(f"{name}: expected booleans [{length}], got {value.dtype}; compare it.")
    if value.shape != (length,):
        raise ValueError(
            f"{name}: expected one boolean per row, shape [{length}], got {list(value.shape)}."
        )
    check_same_device(name, value, device)
    return value.contiguous()


def check_ranks(ranks: Ranks) -> Tensor:
    """Require real numbers, one a query; returns them as a tensor. Raises: TypeError."""
    if not isinstance(ranks, Tensor):
        numbers = np.asarray(ranks)
        if numbers.dtype.kind not in "iuf":
            raise TypeError(f"ranks: expected numbers [Q], got {type(ranks).__name__}.")
        ranks = torch.from_numpy(_native_array(numbers))
    check_ordinary("ranks", ranks, data=True)
    if ranks.is_complex():
        raise TypeError(f"ranks: expected real numbers [Q], got {ranks.dtype}; take .real.")
    return ranks


def check_ids(
    image_ids: Index | None,
    text_ids: Index | None,
    rows: int,
    columns: int,
    device: torch.device,
    names: tuple[str, str] = ("image_ids", "text_ids"),
) -> tuple[Tensor | None, Tensor | None]:
    """Require ids of both sides; one side alone stands for both when the batch is square.

    names: what the caller calls them.
    Returns: int64 [rows] and [columns], or two Nones. Raises: TypeError, ValueError.
    """
    if image_ids is None and text_ids is None:
        return None, None
    if (image_ids is None or text_ids is None) and rows != columns:
        missing = names[0] if image_ids is None else names[1]
        raise ValueError(
            f"{missing}: expected ids for both sides when {rows} rows meet {columns} columns, got "
            "None."
        )
    of_rows = text_ids if image_ids is None else image_ids
    of_columns = image_ids if text_ids is None else text_ids
    return (
        check_index_vector(names[0], of_rows, rows, device),
        check_index_vector(names[1], of_columns, columns, device),
    )


def check_flag(name: str, value: object) -> None:
    """Require True or False. Raises: TypeError."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: expected True or False, got {value!r}.")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Require one of a few words. Raises: ValueError."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}.")


def check_precision(precision: str | None) -> None:
    """Require None or one of torch's words for float32 products. Raises: ValueError."""
    if precision is not None:
        check_choice("precision", precision, PRECISIONS)
