"""One split of a dataset: captions, their images, and for each image its features or its file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from os.path import isfile  # False, not an error, for names that no file can have
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goal_kernels.data.feature_rows import Features
from goal_kernels.data.files import parse_json, read_json, read_lines
from goal_kernels.data.truth_relation import TruthRelation

PICTURE_FOLDERS = ("images", "flickr30k-images", "flickr30k_images", "Images")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
REPLACEMENT = "\ufffd"  # stands for a character that could not be decoded
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")


def writable(text: str) -> str:
    """``text`` with U+FFFD for NUL and halves of surrogate pairs, which JSON may hold."""
    return text if text.isprintable() else _UNWRITABLE.sub(REPLACEMENT, text)


def group_name(given: object, where: str) -> str | None:
    """The name of a group, an integer or a text with white space as single spaces; None for none.

    Raises ``ValueError`` that begins with ``where`` for anything else.
    """
    if given is None:
        return None
    if type(given) not in (int, str):
        raise ValueError(
            f"{where}: group: expected an integer or a text, found {str(given)[:80]!r}; write one, "
            "or leave it out for all images"
        )
    return " ".join(writable(str(given)).split()) or None


def all_or_none(
    groups: Sequence[str | None], images: Sequence[object], where: str
) -> list[str] | None:
    """The groups of all N images, None where none has one.

    Raises ``ValueError`` that begins with ``where`` and names an image when only some have one.
    """
    found = [group for group in groups if group is not None]
    if 0 < len(found) < len(groups):
        raise ValueError(
            f"{where}: expected a group of every image or of none, found {len(found):,} for "
            f"{len(groups):,} images and none for image {images[groups.index(None)]!r}; give an "
            "image that has no other of its kind a group of its own"
        )
    return found or None


@dataclass(frozen=True, kw_only=True)
class Split:
    """What all sources of data have in common: N images and M captions, and which go together.

    Attributes:
        folder: the folder that the split was read from.
        name: the split's name, ``"train"`` for instance.
        captions: M captions, stripped of surrounding white space.
        image_of_caption: int64 [M], the image row of each caption, ascending; every image has one.
        image_ids: int64 [N].
        numbered: True when the source gives no ids, so that ``image_ids`` only count the images.
        caption_ids: int64 [M] where the source gives them (COCO's annotation ids).
        group_names: N texts where the source gives them: images of equal ones show one thing.
        truth: which captions are true of which images, where the source says so.
    """

    folder: Path
    name: str
    captions: list[str]
    image_of_caption: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    numbered: bool = False
    caption_ids: NDArray[np.int64] | None = None
    group_names: Sequence[str] | None = None
    truth: TruthRelation | None = None

    @cached_property
    def groups(self) -> NDArray[np.int64] | None:
        """int64 [N]: number of each image's group, from 0 as they first appear; None without."""
        if self.group_names is None:
            return None
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(name, len(numbers)) for name in self.group_names])

    @property
    def group_of_caption(self) -> NDArray[np.int64]:
        """int64 [M]: the group of each caption's image, its row where there are no groups."""
        owner = np.asarray(self.image_of_caption)
        return owner if self.groups is None else self.groups[owner]

    @cached_property
    def scenes(self) -> list[dict[str, Any]] | None:
        """One record an image from ``{split}_scenes.jsonl``, or None; read on first use."""
        path = self.folder / f"{self.name}_scenes.jsonl"
        if not path.is_file():
            return None
        lines = read_lines(path)[: len(self.image_ids)]
        records = [parse_json(line, f"{path}: line {i}") for i, line in enumerate(lines, 1)]
        if len(records) != len(self.image_ids):
            raise ValueError(
                f"{path}: expected {len(self.image_ids)} lines, one an image, "
                f"found {len(records)}; write the folder again"
            )
        return records

    @cached_property
    def families(self) -> NDArray[np.int64] | None:
        """int64 [N]: the "family" of each image's scene, as GoalWorld has it; None without."""
        if self.scenes is None or any("family" not in scene for scene in self.scenes):
            return None
        return np.array([scene["family"] for scene in self.scenes])

    @cached_property
    def image_names(self) -> Sequence[str] | None:
        """N file names, or None where the source has none."""
        return None

    def captions_per_image(self) -> NDArray[np.int64]:
        """int64 [N]: how many captions each image has."""
        return np.bincount(self.image_of_caption, minlength=len(self.image_ids))

    def picture(self, row: int) -> Path | None:
        """The file to show for image ``row``, or None where there is none."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class PrecomputedSplit(Split):
    """A split whose images are given as features.

    Attributes:
        features: [N, K, D] region features, memory-mapped and read-only, in the file's dtype:
            an array view, or where repeated rows follow no fixed step a ``FeatureRows``, which
            is indexed in the same way (``features[images]``).
    """

    features: Features

    @cached_property
    def image_names(self) -> Sequence[str] | None:
        """File names from ``id_mapping.json`` in the folder or beside it, None without one."""
        for folder in (self.folder, self.folder.parent):
            path = folder / "id_mapping.json"
            if path.is_file():
                table = read_json(path)
                if isinstance(table, dict) and all(str(i) in table for i in self.image_ids):
                    return [writable(str(table[str(i)])) for i in self.image_ids]
        return None

    def picture(self, row: int) -> Path | None:
        """``images/{split}/{id}.png`` (or jpg), or the file that ``id_mapping.json`` names."""
        own = self.folder / "images" / self.name
        candidates = [own / f"{self.image_ids[row]}{suffix}" for suffix in PICTURE_SUFFIXES]
        if self.image_names is not None:
            candidates += [
                folder / pictures / self.image_names[row]
                for folder in (self.folder, self.folder.parent)
                for pictures in ("", *PICTURE_FOLDERS)
            ]
        return next((path for path in candidates if isfile(path)), None)


@dataclass(frozen=True, kw_only=True)
class PictureSplit(Split):
    """A split whose images are files.

    Attributes:
        image_root: folder that the names are relative to.
        names: N file names.
    """

    image_root: Path
    names: list[str]

    @cached_property
    def image_names(self) -> Sequence[str] | None:
        """N file names, relative to ``image_root``."""
        return self.names

    def file(self, row: int) -> Path:
        """The file of image ``row``, which may be missing: see ``goal-kernels data inspect``."""
        return self.image_root / self.names[row]

    def picture(self, row: int) -> Path | None:
        """The file of image ``row``, None when it is missing."""
        path = self.file(row)
        return path if isfile(path) else None
