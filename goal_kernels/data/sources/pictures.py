"""What the sources of image files share: records of images, their ids, their folder."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os.path import isfile, join  # not pathlib: a table may have a million names
from pathlib import Path

import numpy as np

from goal_kernels.data.sources.base import Source
from goal_kernels.data.split import PICTURE_FOLDERS, PictureSplit, all_or_none, writable

PROBED_NAMES = 200


@dataclass
class ImageRecord:
    """One image as a source describes it.

    Attributes:
        name: its file, relative to the image root or absolute.
        captions: its captions, at least one; `writable` like the name, and stripped of surrounding
            white space.
        image_id: the id that the source gives it.
        caption_ids: an id a caption, or none at all.
        group: the name of its group, from `group_name`.
    """

    name: str
    captions: list[str]
    image_id: int | None = None
    caption_ids: list[int] | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        self.name = writable(self.name)
        self.captions = [writable(text).strip() for text in self.captions]


class PictureSource(Source):
    """A source of image files; a format says which records a split has."""

    @abstractmethod
    def records(self, split: str) -> Sequence[ImageRecord]:
        """The images of a split, by its stored name, in the order of the file."""

    def image_root(self, names: Sequence[str]) -> Path:
        """The folder that ``names`` are relative to: as the options say, or where most of them are.

        The folder of the file and the one above it are tried, and the usual picture folders in
        both. Where no file is in any of them, the folder of the file is answered.
        """
        if self.options.image_root is not None:
            return self.options.image_root
        here = self.path if self.path.is_dir() else self.path.parent
        places = [
            place / inner for place in (here, here.parent) for inner in (".", *PICTURE_FOLDERS)
        ]
        # A few of many names settle it where most files are there.
        few = [names[len(names) * i // PROBED_NAMES] for i in range(PROBED_NAMES)]
        for probed in (few, names) if len(names) > PROBED_NAMES else (names,):
            found = [sum(isfile(join(place, name)) for name in probed) for place in places]
            if 2 * max(found) > len(probed):
                break
        return places[found.index(max(found))]

    def _open(self, split: str, limit: int | None) -> PictureSplit:
        """The split's names, captions and ids; no image is opened."""
        records = self.records(split)
        if not records:
            raise ValueError(
                f"{self.path}: expected images in split {split!r}, found none; add some, or take "
                "the split away"
            )
        groups = all_or_none(
            [record.group for record in records],
            [record.name for record in records],
            f"{self.path}: split {split!r}",
        )
        records = records[:limit]
        names = [record.name for record in records]
        captions = [caption for record in records for caption in record.captions]
        ids = distinct_ids(records)
        return PictureSplit(
            folder=self.path if self.path.is_dir() else self.path.parent,
            name=split,
            captions=captions,
            image_of_caption=np.repeat(
                np.arange(len(records)), [len(record.captions) for record in records]
            ),
            image_ids=np.arange(len(records)) if ids is None else ids,
            numbered=ids is None,
            caption_ids=_caption_ids(records),
            group_names=groups and groups[:limit],
            image_root=self.image_root(names),
            names=names,
        )


def distinct_ids(records: Sequence[ImageRecord]) -> np.ndarray | None:
    """int64 [N] when every record has an id, else None."""
    ids = [record.image_id for record in records if record.image_id is not None]
    return np.array(ids, dtype=np.int64) if len(ids) == len(records) else None


def _caption_ids(records: Sequence[ImageRecord]) -> np.ndarray | None:
    """int64 [M] when every caption has an id, else None."""
    if any(record.caption_ids is None for record in records):
        return None
    return np.array([i for record in records for i in record.caption_ids or ()], dtype=np.int64)


def cut_captions(records: Iterable[ImageRecord], limit: int) -> int:
    """Keep the first ``limit`` captions of each record, all when 0; how many were left out."""
    left_out = 0
    for record in records:
        if limit and len(record.captions) > limit:
            left_out += len(record.captions) - limit
            record.captions = record.captions[:limit]
            record.caption_ids = record.caption_ids and record.caption_ids[:limit]
    return left_out


def group_by_image(rows: Iterable[tuple[str, ImageRecord]]) -> list[ImageRecord]:
    """One record an image from rows and where each is, in order of first appearance.

    Raises ``ValueError`` when one image comes with two ids, or two groups.
    """
    found: dict[str, ImageRecord] = {}
    for where, row in rows:
        record = found.setdefault(row.name, row)
        if record is row:
            continue
        for what in ("image_id", "group"):
            first, other = getattr(record, what), getattr(row, what)
            if first != other:
                raise ValueError(
                    f"{where}: image {row.name!r}: expected one {what}, got {first} and {other}; "
                    "give all entries of an image the same"
                )
        record.captions += row.captions
        both = record.caption_ids is not None and row.caption_ids is not None
        record.caption_ids = (
            [*(record.caption_ids or ()), *(row.caption_ids or ())] if both else None
        )
    return list(found.values())
