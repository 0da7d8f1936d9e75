"""Images of one split in another one: by id, by file name, by equal features and captions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from goal_kernels.data.inspection.findings import Finding
from goal_kernels.data.split import PrecomputedSplit, Split

HELD_OUT = ("dev", "val", "valid", "validation", "test", "testall")
PROBED_NUMBERS = 8  # of a feature row, compared before the whole row is


def find_leakage(splits: Mapping[str, Split]) -> Iterator[Finding]:
    """Findings over train with each held-out split, and dev with the test splits."""
    held_out = [split for name, split in splits.items() if name in HELD_OUT]
    trained_on = [splits[name] for name in ("train", "restval") if name in splits]
    selected_on = [split for split in held_out if not split.name.startswith("test")]
    tested_on = [split for split in held_out if split.name.startswith("test")]
    pairs = [(a, b) for a in trained_on for b in held_out]
    pairs += [(a, b) for a in selected_on for b in tested_on]
    for first, second in pairs:
        yield from _between(first, second)


def _between(first: Split, second: Split) -> Iterator[Finding]:
    """At most one finding: ids and names say it surest, contents only where those are missing."""
    for what, shared in (
        ("id", _shared_ids(first, second)),
        ("name", _shared_names(first, second)),
    ):
        if shared:
            yield Finding(
                "problem",
                second.name,
                f"{len(shared):,} images are in {first.name} too, by {what}: "
                f"{', '.join(map(str, sorted(shared)[:5]))}; results on {second.name} would be "
                "too good",
            )
            return
    if isinstance(first, PrecomputedSplit) and isinstance(second, PrecomputedSplit):
        pairs = _shared_contents(first, second)
        if pairs:
            yield Finding(
                "problem",
                second.name,
                f"{pairs:,} captions are in {first.name} too, with identical features: results on "
                f"{second.name} would be too good",
            )


def _shared_ids(first: Split, second: Split) -> set[int]:
    if first.numbered or second.numbered:
        return set()
    return set(first.image_ids.tolist()) & set(second.image_ids.tolist())


def _shared_names(first: Split, second: Split) -> set[str]:
    if first.image_names is None or second.image_names is None:
        return set()
    return set(first.image_names) & set(second.image_names)


def _shared_contents(first: PrecomputedSplit, second: PrecomputedSplit) -> int:
    """The captions of ``second`` that ``first`` has with a feature row of the same content."""
    if first.features.shape[1:] != second.features.shape[1:]:
        return 0
    owners: dict[tuple[bytes, str], int] = {}
    for key, image in _keys(second):
        owners[key] = image
    same: dict[tuple[int, int], bool] = {}  # (image of first, image of second)
    shared = 0
    for key, image in _keys(first):
        if key in owners:
            pair = (image, owners[key])
            if pair not in same:
                same[pair] = np.array_equal(first.features[image], second.features[pair[1]])
            shared += same[pair]
    return shared


def _keys(split: PrecomputedSplit) -> Iterator[tuple[tuple[bytes, str], int]]:
    """(the first numbers of the image's features, the caption) and the image, a caption each."""
    probe = np.ascontiguousarray(split.features[:, 0, :PROBED_NUMBERS], dtype=np.float32)
    for caption, image in zip(split.captions, split.image_of_caption.tolist(), strict=True):
        yield (probe[image].tobytes(), caption.lower()), image
