"""How the images and captions of a split lie in their files, in words."""

from __future__ import annotations

import numpy as np

from goal_kernels.data.inspection.findings import SplitFacts
from goal_kernels.data.layout import FEATURES, INDEX
from goal_kernels.data.precomputed import open_features
from goal_kernels.data.split import PictureSplit, PrecomputedSplit, Split


def facts_of(split: Split) -> SplitFacts:
    """The split in figures and words."""
    times, images = np.unique(split.captions_per_image(), return_counts=True)
    return SplitFacts(
        name=split.name,
        images=len(split.image_ids),
        captions=len(split.captions),
        captions_per_image=dict(zip(times.tolist(), images.tolist(), strict=True)),
        layout=_layout(split),
        ids=_ids(split),
    )


def _layout(split: Split) -> str:
    if isinstance(split, PrecomputedSplit):
        return _feature_layout(split)
    assert isinstance(split, PictureSplit)
    return f"{len(split.names):,} image files below {split.image_root}"


def _feature_layout(split: PrecomputedSplit) -> str:
    """Rows and captions, and what their ratio means."""
    path = split.folder / f"{split.name}{FEATURES}"
    rows, regions, width = open_features(path).shape
    megabytes = path.stat().st_size / 1e6
    images, captions = len(split.image_ids), len(split.captions)
    if (split.folder / f"{split.name}{INDEX}").is_file():
        ratio = f"{split.name}{INDEX} says which of {captions:,} captions is whose"
    elif rows != images:
        most = "" if captions % images else f" {captions // images} times"
        ratio = f"rows are repeated{most}: {rows:,} rows are {images:,} images"
    else:
        each = captions // rows
        ratio = f"{captions:,} captions for {rows:,} rows: {each} a row"
    regions_text = f"{regions} regions of " if regions > 1 else ""
    dtype = split.features.dtype
    return f"{ratio}; {regions_text}{width} numbers, {dtype}, {megabytes:,.0f} MB"


def _ids(split: Split) -> str:
    if split.numbered:
        return "none, images count as 0, 1, 2, ..."
    return f"{split.image_ids.min()} to {split.image_ids.max()}"
