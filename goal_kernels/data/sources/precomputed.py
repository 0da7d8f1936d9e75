"""Precomputed features in either style of folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from goal_kernels.data.layout import feature_folders, find_features, split_names, vocabulary_files
from goal_kernels.data.precomputed import open_split
from goal_kernels.data.sources.base import Source
from goal_kernels.data.split import PrecomputedSplit


class PrecomputedSource(Source):
    """``{split}_ims.npy``, ``{split}_caps.txt``, ``{split}_ids.txt``: VSE++, SCAN, VSE-infinity."""

    format = "precomputed"
    summary = "features {split}_ims.npy with captions {split}_caps.txt and ids {split}_ids.txt"

    @classmethod
    def recognise(cls, path: Path) -> Path | None:
        """The folder that holds the features."""
        return find_features(path) if path.is_dir() and feature_folders(path) else None

    def stored_names(self) -> list[str]:
        """The prefixes of the feature files."""
        return split_names(self.path)

    def _open(self, split: str, limit: int | None) -> PrecomputedSplit:
        """See `goal_kernels.data.precomputed.open_split`."""
        return open_split(self.path, split, limit=limit)

    def vocabulary_files(self) -> Sequence[Path]:
        """Those in the folder, beside it, and in ``vocab/`` there."""
        return vocabulary_files(self.path)
