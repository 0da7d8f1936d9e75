"""Checks of a dataset, its splits, and pairs of splits; a new one of a split joins `CHECKS`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from os.path import isfile
from pathlib import Path

import numpy as np

from goal_kernels.data.feature_rows import row_faults
from goal_kernels.data.files import read_integers
from goal_kernels.data.inspection.findings import Finding, Level
from goal_kernels.data.layout import FEATURES
from goal_kernels.data.picture_files import decode_picture
from goal_kernels.data.progress import Progress
from goal_kernels.data.sources.base import COMMON_NAMES, DEV_NAMES, Source
from goal_kernels.data.split import REPLACEMENT, PictureSplit, PrecomputedSplit, Split
from goal_kernels.data.vocabulary import MAX_WORDS, count_words, number_said
from goal_kernels.extras import install

DECODED_PICTURES = 64  # of a split unless all are asked for; some 10 ms each
SHOWN = 5  # examples in a finding
PROBED_NUMBERS = 8  # of a feature row, compared before the whole row is

Answers = Iterator[tuple[Level, str]]
"""What a check of one split finds, each with its level."""


def check_split(split: Split, everything: bool, progress: Progress) -> Iterator[Finding]:
    """All checks of one split.

    Args:
        split: which.
        everything: decode every picture, not a sample of many.
        progress: told how far the reading is.
    """
    for check in CHECKS:
        for level, text in check(split, everything, progress):
            yield Finding(level, split.name, text)


def check_names(source: Source) -> Iterator[Finding]:
    """A dataset without splits, or with splits that training and tests would not find."""
    known = {*COMMON_NAMES, *DEV_NAMES}
    names = source.names()
    if not names:
        yield Finding(
            "problem", None, "there is no image with a caption: is the file whole, or a header?"
        )
    foreign = [name for name in names if name not in known]
    strange = [name for name in foreign if name.strip().lower() in known]
    if strange or (foreign and len(foreign) == len(names)):
        yield Finding(
            "problem",
            None,
            f"expected splits called train, dev and test, found {strange or foreign}; rename them",
        )


def check_captions(split: Split, everything: bool, progress: Progress) -> Answers:
    """Empty, wordless, broken, damaged captions, repeated captions of one image."""
    precomputed = isinstance(split, PrecomputedSplit)
    counted = "(counted from 0)"
    captions = list(enumerate(split.captions))
    if empty := [i for i, caption in captions if not caption]:
        yield _problem(
            f"{_count(empty, 'caption')} empty, first {_first(empty)} {counted}: an empty caption "
            "matches nothing; write one"
            + (" (without its line all later ones move)" if precomputed else " or leave it out")
        )
    if broken := [i for i, caption in captions if "\n" in caption or "\r" in caption]:
        yield (_problem if precomputed else _note)(
            f"{_count(broken, 'caption')} with a line break, first {_first(broken)} {counted}: is "
            "one several that were joined?"
        )
    if damaged := [i for i, caption in captions if REPLACEMENT in caption]:
        yield _note(
            f"{_count(damaged, 'caption')} with U+FFFD, first {_first(damaged)} {counted}, in "
            "place of a character that was lost, or of NUL or half a surrogate pair in JSON"
        )
    counts = [count_words(caption) for caption in split.captions]
    if wordless := [i for i, caption in captions if caption and not counts[i]]:
        yield _note(f"{_count(wordless, 'caption')} without a word: {_first(wordless)}")
    if long := [i for i, words in enumerate(counts) if words > MAX_WORDS]:
        yield _note(
            f"{_count(long, 'caption')} of more than {MAX_WORDS} words, the first {long[0]} "
            f"{counted} of {number_said(counts[long[0]])}: the first {MAX_WORDS} are read, "
            "--data.max_words N reads more"
        )
    pairs = zip(split.image_of_caption.tolist(), split.captions, strict=True)
    repeated = len(split.captions) - len(set(pairs)) - max(0, len(empty) - 1)
    if repeated > 0:
        yield _note(f"{repeated:,} captions repeat another one of the same image")


def check_ids(split: Split, everything: bool, progress: Progress) -> Answers:
    """Names and ids that come twice, negative ids, ids that disagree with repeated rows."""
    names = Counter(split.image_names or ())
    if repeated := [name for name, times in names.items() if times > 1]:
        yield _problem(
            f"{_count(repeated, 'image name')} in several entries, {repeated[0]!r} for instance: "
            "captions of one count as wrong for the other; put the captions of an image together"
        )
    if split.numbered:
        return
    values, times = np.unique(split.image_ids, return_counts=True)
    if twice := values[times > 1].tolist():
        yield _problem(
            f"{len(twice):,} image ids stand for several images: {_first(twice)}; captions of one "
            "count as wrong for the other; keep one row or entry an image with all of its captions"
        )
    if negative := values[values < 0].tolist():
        yield _problem(
            f"{len(negative):,} image ids are out of range: {_first(negative)}; expected 0 or more"
        )
    path = split.folder / f"{split.name}_ids.txt"
    if isinstance(split, PrecomputedSplit) and path.is_file():
        ids = np.array(read_integers(path))
        if len(ids) == len(split.captions) != len(split.image_ids):
            strange = np.flatnonzero(ids != split.image_ids[split.image_of_caption])
            if len(strange):
                yield _problem(
                    "identical consecutive feature rows have different ids, first in row "
                    f"{strange[0]}: are they one image? They are read as one"
                )


def check_features(split: Split, everything: bool, progress: Progress) -> Answers:
    """Features that float32 cannot hold, or that are zero throughout."""
    if not isinstance(split, PrecomputedSplit):
        return
    faults = row_faults(
        split.features, lambda done, total: progress(f"{split.name} features", done, total)
    )
    broken, zero = (rows.tolist() for rows in faults)
    if broken:
        yield _problem(
            f"{_count(broken, 'image')} with NaN or infinite features, rows {_first(broken)} of "
            f"{split.name}{FEATURES}, once they are float32; extract those features again"
        )
    if zero:
        yield _problem(
            f"{_count(zero, 'image')} with features that are zero throughout, rows {_first(zero)}; "
            "extract those features again"
        )


def check_pictures(split: Split, everything: bool, progress: Progress) -> Answers:
    """Image files that are missing or cannot be decoded."""
    if not isinstance(split, PictureSplit):
        return
    files = [split.file(row) for row in range(len(split.names))]
    missing = [file for file in files if not isfile(file)]
    if missing:
        all_of_them = " (all of them: is the folder right? --image-root names it)"
        yield _problem(
            f"{_count(missing, 'image file')} missing"
            f"{all_of_them if len(missing) == len(files) else ''}, the first {missing[0]}"
        )
    absent = set(missing)
    present = [file for file in files if file not in absent]
    if not everything and len(present) > DECODED_PICTURES:
        sample = np.linspace(0, len(present) - 1, DECODED_PICTURES).astype(int)
        present = [present[place] for place in sample]
        yield _note(f"{len(present)} image files were decoded; --all decodes every one")
    if find_spec("PIL") is None:
        yield _note(f"image files were not decoded: that needs Pillow, {install('train')}")
        return
    broken = []
    changed: dict[str, list[Path]] = {}  # by what was done to make them 8-bit RGB
    for done, file in enumerate(present, 1):
        try:
            changed.setdefault(decode_picture(file).remark, []).append(file)
        except ValueError as error:
            broken.append(f"{file} ({error})")
        progress(f"{split.name} images", done, len(present))
    if broken:
        yield _problem(
            f"{_count(broken, 'image file')} that cannot be decoded, the first {broken[0]}; fetch "
            "them again"
        )
    for remark, found in changed.items():
        if remark:
            yield _note(f"{_count(found, 'image file')} with {remark}, the first {found[0]}")


CHECKS: Sequence[Callable[[Split, bool, Progress], Answers]] = (
    check_captions,
    check_ids,
    check_features,
    check_pictures,
)


def find_leakage(splits: Mapping[str, Split]) -> Iterator[Finding]:
    """Images of train in each held-out split, and of dev in the test splits."""
    held_out = [split for name, split in splits.items() if name in (*DEV_NAMES, "test", "testall")]
    trained_on = [splits[name] for name in ("train", "restval") if name in splits]
    selected_on = [split for split in held_out if not split.name.startswith("test")]
    tested_on = [split for split in held_out if split.name.startswith("test")]
    pairs = [(a, b) for a in trained_on for b in held_out]
    pairs += [(a, b) for a in selected_on for b in tested_on]
    for first, second in pairs:
        if text := _leakage(first, second):
            yield Finding("problem", second.name, text)


def _leakage(first: Split, second: Split) -> str:
    """What is in both: ids and names say it surest, contents only where those are missing."""
    shared: dict[str, set] = {"id": set(), "name": set(), "group": set()}
    if not (first.numbered or second.numbered):
        shared["id"] = set(first.image_ids.tolist()) & set(second.image_ids.tolist())
    if first.image_names is not None and second.image_names is not None:
        shared["name"] = set(first.image_names) & set(second.image_names)
    shared["group"] = set(first.group_names or ()) & set(second.group_names or ())
    for what, found in shared.items():
        if found:
            things = "groups" if what == "group" else "images"
            return (
                f"{len(found):,} {things} are in {first.name} too, by {what}: "
                f"{', '.join(map(str, sorted(found)[:SHOWN]))}; results on {second.name} would be "
                "too good"
            )
    if isinstance(first, PrecomputedSplit) and isinstance(second, PrecomputedSplit):
        captions = _shared_contents(first, second)
        if captions:
            return (
                f"{captions:,} captions are in {first.name} too, with identical features: results "
                f"on {second.name} would be too good"
            )
    return ""


def _shared_contents(first: PrecomputedSplit, second: PrecomputedSplit) -> int:
    """The captions of ``second`` that ``first`` has with a feature row of the same content."""
    if first.features.shape[1:] != second.features.shape[1:]:
        return 0
    owners = dict(_keys(second))
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


def _problem(text: str) -> tuple[Level, str]:
    return "problem", text


def _note(text: str) -> tuple[Level, str]:
    return "note", text


def _count(things: Sequence[object], noun: str) -> str:
    """``1 caption``, ``2,000 captions``."""
    return f"{len(things):,} {noun}{'' if len(things) == 1 else 's'}"


def _first(values: Sequence[int]) -> str:
    """The first few of them."""
    shown = ", ".join(str(value) for value in values[:SHOWN])
    return shown + (", ..." if len(values) > SHOWN else "")
