"""The sparse caption by image relation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from goal_kernels.data import TruthRelation

ROWS = [np.array([0, 2]), np.array([], dtype=int), np.array([1]), np.array([0, 1, 2])]


@pytest.fixture
def relation() -> TruthRelation:
    return TruthRelation.from_rows(ROWS, images=3)


def dense(relation: TruthRelation) -> np.ndarray:
    table = np.zeros(relation.shape, dtype=bool)
    for caption in range(relation.shape[0]):
        table[caption, relation.images_of(caption)] = True
    return table


def test_rows_and_counts(relation: TruthRelation) -> None:
    assert relation.indptr.dtype == relation.indices.dtype == np.int32
    assert relation.shape == (4, 3)
    for caption, row in enumerate(ROWS):
        np.testing.assert_array_equal(relation.images_of(caption), row)
    np.testing.assert_array_equal(relation.images_per_caption(), dense(relation).sum(axis=1))
    np.testing.assert_array_equal(relation.captions_per_image(), dense(relation).sum(axis=0))


def test_prefix_cuts_both_sides(relation: TruthRelation) -> None:
    cut = relation.prefix(captions=3, images=2)
    assert cut.shape == (3, 2)
    np.testing.assert_array_equal(dense(cut), dense(relation)[:3, :2])


def test_save_and_load(relation: TruthRelation, tmp_path: Path) -> None:
    relation.save(tmp_path / "one.npz")
    relation.save(tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    loaded = TruthRelation.load(tmp_path / "one.npz")
    assert loaded.shape == relation.shape
    np.testing.assert_array_equal(loaded.indptr, relation.indptr)
    np.testing.assert_array_equal(loaded.indices, relation.indices)


def test_pickled_content_is_refused(tmp_path: Path) -> None:
    poison = np.array([{"anything": 1}], dtype=object)
    np.savez(tmp_path / "bad.npz", indptr=poison, indices=poison, shape=poison)
    with pytest.raises(ValueError, match=r"bad\.npz.*pickled Python objects"):
        TruthRelation.load(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    ("indptr", "indices", "shape", "message"),
    [
        ([0, 1], [0], (2, 1), "3 entries"),
        ([0, 2], [0], (1, 1), "run from 0 to 1"),
        ([0, 2, 1, 3], [0, 0, 0], (3, 1), "ascending"),
        ([0, 1], [4], (1, 3), r"0 \.\. 2"),
        ([0, 1], [-1], (1, 3), r"0 \.\. 2"),
    ],
)
def test_inconsistent_arrays_are_refused(
    indptr: list[int], indices: list[int], shape: tuple[int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TruthRelation(np.array(indptr, np.int32), np.array(indices, np.int32), shape)
