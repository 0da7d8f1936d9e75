"""Which captions are true of which images, as a sparse relation."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from goal_kernels.data.arrays import read_archive
from goal_kernels.data.files import replacing

# Zip members carry a date; a fixed one keeps equal relations equal byte for byte on disk.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class TruthRelation:
    """A set of (caption, image) pairs in compressed row form, one row a caption.

    Attributes:
        indptr: int32 [M + 1]; the images of caption ``j`` are
            ``indices[indptr[j]:indptr[j + 1]]``.
        indices: int32 [pairs]; image rows, ascending within a caption.
        shape: ``(M, N)``, captions by images.
    """

    indptr: NDArray[np.int32]
    indices: NDArray[np.int32]
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        captions, images = self.shape
        if self.indptr.shape != (captions + 1,):
            raise ValueError(
                f"indptr: expected {captions + 1} entries for {captions} captions, "
                f"got {self.indptr.shape}; write the relation again"
            )
        if self.indptr[0] != 0 or self.indptr[-1] != len(self.indices):
            raise ValueError(
                f"indptr: expected to run from 0 to {len(self.indices)}, "
                f"got {self.indptr[0]} to {self.indptr[-1]}; write the relation again"
            )
        if np.any(np.diff(self.indptr) < 0):
            raise ValueError("indptr: expected ascending offsets; write the relation again")
        if len(self.indices) and not 0 <= self.indices.min() <= self.indices.max() < images:
            raise ValueError(
                f"indices: expected image rows in 0 .. {images - 1}, got others; "
                "write the relation again"
            )

    @classmethod
    def from_rows(cls, rows: Iterable[NDArray[np.integer]], images: int) -> TruthRelation:
        """Build from one ascending array of image rows a caption, over ``images`` images."""
        rows = list(rows)
        indptr = np.zeros(len(rows) + 1, dtype=np.int32)
        np.cumsum([len(row) for row in rows], out=indptr[1:])
        indices = np.concatenate(rows) if rows else np.empty(0)
        return cls(indptr, indices.astype(np.int32), (len(rows), images))

    @classmethod
    def load(cls, path: str | Path) -> TruthRelation:
        """Read the ``.npz`` file that :meth:`save` writes; pickled content is refused."""
        stored = read_archive(Path(path))
        missing = sorted({"indptr", "indices", "shape"} - set(stored))
        if missing:
            raise ValueError(
                f"{path}: expected arrays indptr, indices and shape, lacks {missing}; write the "
                "relation again"
            )
        wrong = [
            n for n, array in stored.items() if array.ndim != 1 or array.dtype.kind not in "iu"
        ]
        if wrong or stored["shape"].shape != (2,):
            raise ValueError(
                f"{path}: expected integers in one dimension, two as shape, found others in "
                f"{wrong or ['shape']}; write the relation again"
            )
        captions, images = (int(size) for size in stored["shape"])
        try:
            return cls(stored["indptr"], stored["indices"], (captions, images))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write a compressed ``.npz`` file, in full or not at all; equal relations, equal bytes."""
        arrays: dict[str, NDArray[np.integer]] = {
            "indptr": self.indptr,
            "indices": self.indices,
            "shape": np.asarray(self.shape, dtype=np.int64),
        }
        with (
            replacing(Path(path)) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            for name, array in arrays.items():
                member = zipfile.ZipInfo(f"{name}.npy", date_time=_ZIP_DATE)
                member.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(member, "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, array, allow_pickle=False)

    def images_of(self, caption: int) -> NDArray[np.int32]:
        """The image rows [T] of which ``caption`` (a caption row) is true."""
        return self.indices[self.indptr[caption] : self.indptr[caption + 1]]

    def among(
        self, captions: NDArray[np.integer], images: NDArray[np.integer]
    ) -> NDArray[np.bool_]:
        """bool [m, n]: whether each of m caption rows is true of each of n image rows."""
        return np.stack([np.isin(images, self.images_of(int(caption))) for caption in captions])

    def images_per_caption(self) -> NDArray[np.int64]:
        """int64 [M]: how many images each caption is true of."""
        return np.diff(self.indptr).astype(np.int64)

    def captions_per_image(self) -> NDArray[np.int64]:
        """int64 [N]: how many captions are true of each image."""
        return np.bincount(self.indices, minlength=self.shape[1]).astype(np.int64)

    def prefix(self, captions: int, images: int) -> TruthRelation:
        """The relation between the first ``captions`` captions and the first ``images`` images."""
        rows = (self.images_of(caption) for caption in range(captions))
        return TruthRelation.from_rows([row[row < images] for row in rows], images)
