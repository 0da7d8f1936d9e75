"""Checks of one split. A new check is a function here and its name in `CHECKS`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Thoroughness:
    """``everything``: decode every picture. ``progress``: told how far the reading is."""

    everything: bool
    progress: Progress


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


def check_captions(split: Split, _: Thoroughness) -> Iterator[Finding]:
    """Empty, wordless, broken, damaged captions, repeated captions of one image."""
    precomputed = isinstance(split, PrecomputedSplit)
    empty = [i for i, caption in enumerate(split.captions) if not caption]
    if empty:
        yield Finding(
            "problem",
            split.name,
            f"{_count(empty, 'caption')} empty, first {_first(empty)} (counted from 0): an empty "
            "caption matches nothing; write one"
            + (" (without its line all later ones move)" if precomputed else " or leave it out"),
        )
    broken = [i for i, caption in enumerate(split.captions) if "\n" in caption or "\r" in caption]
    if broken:
        level: Level = "problem" if precomputed else "note"
        yield Finding(
            level,
            split.name,
            f"{_count(broken, 'caption')} with a line break, first {_first(broken)} (counted from "
            "0): is one several that were joined?",
        )
    damaged = [i for i, caption in enumerate(split.captions) if REPLACEMENT in caption]
    if damaged:
        yield Finding(
            "note",
            split.name,
            f"{_count(damaged, 'caption')} with U+FFFD, first {_first(damaged)} (counted from 0), "
            "in place of a character that was lost, or of NUL or half a surrogate pair in JSON",
        )
    counts = [count_words(caption) for caption in split.captions]
    wordless = [i for i, words in enumerate(counts) if split.captions[i] and not words]
    if wordless:
        text = f"{_count(wordless, 'caption')} without a word: {_first(wordless)}"
        yield Finding("note", split.name, text)
    long = [i for i, words in enumerate(counts) if words > MAX_WORDS]
    if long:
        yield Finding(
            "note",
            split.name,
            f"{_count(long, 'caption')} of more than {MAX_WORDS} words, the first {long[0]} "
            f"(counted from 0) of {number_said(counts[long[0]])}: the first "
            f"{MAX_WORDS} are read, --data.max_words N reads more",
        )
    pairs = zip(split.image_of_caption.tolist(), split.captions, strict=True)
    repeated = len(split.captions) - len(set(pairs)) - max(0, len(empty) - 1)
    if repeated > 0:
        yield Finding(
            "note", split.name, f"{repeated:,} captions repeat another one of the same image"
        )


def check_ids(split: Split, _: Thoroughness) -> Iterator[Finding]:
    """Names and ids that come twice, negative ids, ids that disagree with repeated rows."""
    names = split.image_names or ()
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        yield Finding(
            "problem",
            split.name,
            f"{_count(repeated, 'image name')} in several entries, {repeated[0]!r} for instance: "
            "captions of one count as wrong for the other; put the captions of an image together",
        )
    if split.numbered:
        return
    values, times = np.unique(split.image_ids, return_counts=True)
    twice = values[times > 1]
    if len(twice):
        yield Finding(
            "problem",
            split.name,
            f"{len(twice):,} image ids stand for several images: {_first(twice.tolist())}; "
            "captions of one count as wrong for the other; keep one row or entry an image with all "
            "of its captions",
        )
    negative = values[values < 0]
    if len(negative):
        yield Finding(
            "problem",
            split.name,
            f"{len(negative):,} image ids are out of range: {_first(negative.tolist())}; expected "
            "0 or more",
        )
    path = split.folder / f"{split.name}_ids.txt"
    if isinstance(split, PrecomputedSplit) and path.is_file():
        ids = np.array(read_integers(path))
        if len(ids) == len(split.captions) != len(split.image_ids):
            strange = np.flatnonzero(ids != split.image_ids[split.image_of_caption])
            if len(strange):
                yield Finding(
                    "problem",
                    split.name,
                    f"identical consecutive feature rows have different ids, first in row "
                    f"{strange[0]}: are they one image? They are read as one",
                )


def check_features(split: Split, how: Thoroughness) -> Iterator[Finding]:
    """Features that float32 cannot hold, or that are zero throughout."""
    if not isinstance(split, PrecomputedSplit):
        return

    def report(done: int, total: int) -> None:
        how.progress(f"{split.name} features", done, total)

    broken, zero = row_faults(split.features, report)
    if len(broken):
        yield Finding(
            "problem",
            split.name,
            f"{_count(broken.tolist(), 'image')} with NaN or infinite features, rows "
            f"{_first(broken.tolist())} of {split.name}{FEATURES}, once they are float32; extract "
            "those features again",
        )
    if len(zero):
        yield Finding(
            "problem",
            split.name,
            f"{_count(zero.tolist(), 'image')} with features that are zero throughout, rows "
            f"{_first(zero.tolist())}; extract those features again",
        )


def check_pictures(split: Split, how: Thoroughness) -> Iterator[Finding]:
    """Image files that are missing or cannot be decoded."""
    if not isinstance(split, PictureSplit):
        return
    missing = [row for row in range(len(split.names)) if not isfile(split.file(row))]
    if missing:
        everything = " (all of them: is the folder right? --image-root names it)"
        yield Finding(
            "problem",
            split.name,
            f"{_count(missing, 'image file')} missing"
            f"{everything if len(missing) == len(split.names) else ''}, the first "
            f"{split.file(missing[0])}",
        )
    absent = set(missing)
    rows = [row for row in range(len(split.names)) if row not in absent]
    if not how.everything and len(rows) > DECODED_PICTURES:
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, DECODED_PICTURES).astype(int)]
        yield Finding(
            "note", split.name, f"{len(rows)} image files were decoded; --all decodes every one"
        )
    if find_spec("PIL") is None:
        yield Finding(
            "note",
            split.name,
            f"image files were not decoded: that needs Pillow, {install('train')}",
        )
        return
    broken = []
    changed: dict[str, list[Path]] = {}  # by what was done to make them 8-bit RGB
    for done, row in enumerate(rows, 1):
        try:
            remark = decode_picture(split.file(row)).remark
        except ValueError as error:
            broken.append(f"{split.file(row)} ({error})")
        else:
            changed.setdefault(remark, []).append(split.file(row))
        how.progress(f"{split.name} images", done, len(rows))
    if broken:
        yield Finding(
            "problem",
            split.name,
            f"{_count(broken, 'image file')} that cannot be decoded, the first {broken[0]}; "
            "fetch them again",
        )
    for remark, files in changed.items():
        if remark:
            text = f"{_count(files, 'image file')} with {remark}, the first {files[0]}"
            yield Finding("note", split.name, text)


CHECKS: Sequence[Callable[[Split, Thoroughness], Iterator[Finding]]] = (
    check_captions,
    check_ids,
    check_features,
    check_pictures,
)


def _count(things: Sequence[object], noun: str) -> str:
    """``1 caption``, ``2,000 captions``."""
    return f"{len(things):,} {noun}{'' if len(things) == 1 else 's'}"


def _first(values: Sequence[int]) -> str:
    """The first few of them."""
    shown = ", ".join(str(value) for value in values[:SHOWN])
    return shown + (", ..." if len(values) > SHOWN else "")
