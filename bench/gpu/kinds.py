"""How similarities are computed: the dtype and, for float32, torch's word for the precision."""

from __future__ import annotations

from typing import NamedTuple

import torch

from bench.cases import NATIVE
from bench.words import kind_name


class Kind(NamedTuple):
    """dtype: as torch names it. precision: of float32 products; NATIVE for every other dtype."""

    dtype: str
    precision: str = NATIVE

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch knows it."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    def __str__(self) -> str:
        return kind_name(*self)


BFLOAT16 = Kind("bfloat16")
FLOAT16 = Kind("float16")
HIGHEST = Kind("float32", "highest")
HIGH = Kind("float32", "high")
MEDIUM = Kind("float32", "medium")
KINDS = (BFLOAT16, HIGH, HIGHEST, FLOAT16, MEDIUM)
"""In the order in which they matter."""
