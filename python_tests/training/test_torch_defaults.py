"""Batches, augmentation and codes do not follow torch's default device or dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from goal_kernels.training.augmentation import region_dropout, size_augmentation, word_dropout
from goal_kernels.training.data import TextBatch, collate_texts
from goal_kernels.training.encoders.recurrent import read_word_vectors
from goal_kernels.training.options import DataSizes
from goal_kernels.training.pooling import GeneralizedPooling, position_code
from goal_kernels.training.tokenizers import Tokens


def batch() -> TextBatch:
    return collate_texts([(Tokens([1, 4, 5, 2], [-1, 0, 1, -1]), 3), (Tokens([1, 2], [-1, -1]), 0)])


def regions_left() -> torch.Tensor:
    mask = torch.ones(50, 40, dtype=torch.bool, device="cpu")
    return region_dropout(mask, 0.3, torch.Generator("cpu").manual_seed(0))


def cells_left() -> torch.Tensor:
    mask = torch.ones(50, 40, dtype=torch.bool, device="cpu")
    return size_augmentation(mask, 0.3, torch.Generator("cpu").manual_seed(0))


def words_left() -> torch.Tensor:
    captions = collate_texts([(Tokens([1, *[4] * 40, 2], [-1, *range(40), -1]), 0)] * 50)
    generator = torch.Generator("cpu").manual_seed(0)
    return word_dropout(captions, DataSizes(1, 90), 0.3, generator).tokens


POOL = GeneralizedPooling()


def long_sets() -> torch.Tensor:
    """Longer than any before: the position code grows."""
    POOL.code = POOL.code[:1]
    features = torch.linspace(0, 1, 180, dtype=torch.float32, device="cpu").view(2, 30, 3)
    return POOL(features, torch.ones(2, 30, dtype=torch.bool, device="cpu")).detach()


WHAT: dict[str, Callable[[], torch.Tensor]] = {
    "tokens": lambda: batch().tokens,
    "lengths": lambda: batch().lengths,
    "words": lambda: batch().words,
    "image_ids": lambda: batch().image_ids,
    "regions": regions_left,
    "cells": cells_left,
    "dropped words": words_left,
    "pooling": long_sets,
}


@pytest.fixture(params=[{"device": "meta"}, {"dtype": torch.bfloat16}], ids=["meta", "bfloat16"])
def changed(request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    """Changes a default when called, until the test ends."""
    dtype = torch.get_default_dtype()

    def change() -> None:
        torch.set_default_device(request.param.get("device"))
        torch.set_default_dtype(request.param.get("dtype", dtype))

    yield change
    torch.set_default_device(None)
    torch.set_default_dtype(dtype)


@pytest.mark.parametrize("name", WHAT)
def test_results_are_those_under_the_usual_defaults(name: str, changed: Callable[[], None]) -> None:
    expected = WHAT[name]()
    changed()
    got = WHAT[name]()
    assert (got.device.type, got.dtype) == ("cpu", expected.dtype)
    assert torch.equal(got, expected)


def test_codes_and_vectors_have_the_precision_of_float32(tmp_path: Path) -> None:
    (tmp_path / "vectors.txt").write_text("dog 0.1234567 1\n")
    code = position_code(9, 8)
    torch.set_default_dtype(torch.bfloat16)
    try:
        again = position_code(9, 8)
        vectors = read_word_vectors(tmp_path / "vectors.txt", ["dog"], 2)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(again, code)
    assert vectors[0][0].item() == pytest.approx(0.1234567, rel=1e-6)
