"""Lists of ``{"image", "caption"}``, one JSON or JSON-lines file a split: ALBEF, BLIP."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from goal_kernels.data.files import parse_integer, parse_json, read_json, read_lines
from goal_kernels.data.sources.base import (
    COMMON_NAMES,
    DEV_NAMES,
    SourceOptions,
    files_in,
    one_of,
    starts_with,
)
from goal_kernels.data.sources.pictures import (
    ImageRecord,
    PictureSource,
    cut_captions,
    group_by_image,
)
from goal_kernels.data.split import group_name

_FIRST = {".json": "[", ".jsonl": "{", ".ndjson": "{"}  # characters of a file, by its suffix
SUFFIXES = tuple(_FIRST)
_SPLITS = "|".join(dict.fromkeys((*COMMON_NAMES, *DEV_NAMES)))
_FILE_NAME = re.compile(rf"(?:(?P<base>.*)[_.-])?(?P<split>{_SPLITS})", re.IGNORECASE)


class ListSource(PictureSource):
    """``[{"image": path, "caption": text or [text, ...], "image_id": n, "group": g}, ...]``.

    The splits are the files whose names differ in the last word alone: ``coco_train.json``,
    ``coco_val.json``. Entries of one image are put together. An ``image_id`` may be a number or end
    in one (``"coco_391895"``).
    """

    format = "list"
    summary = '{split}.json or .jsonl, entries {"image", "caption", "image_id"}, with image files'
    takes = frozenset({"image_root", "max_captions"})

    def __init__(self, path: Path, options: SourceOptions) -> None:
        super().__init__(path, options)
        self._records: dict[str, list[ImageRecord]] = {}

    @classmethod
    def recognise(cls, path: Path) -> Path | None:
        """One of the files."""
        if path.is_file():
            first = _FIRST.get(path.suffix.lower())
            return path if first is not None and starts_with(path, first) else None
        found: dict[str, Path] = {}  # by what the names of one dataset share
        for file in files_in(path, SUFFIXES):
            matched = _FILE_NAME.fullmatch(file.stem)
            if matched and cls.recognise(file):
                found.setdefault(matched["base"] or "", file)
        return one_of(path, list(found.values()))

    @cached_property
    def files(self) -> dict[str, Path]:
        """The file of each split."""
        own = _FILE_NAME.fullmatch(self.path.stem)
        if own is None:
            return {self.path.stem: self.path}
        found: dict[str, Path] = {}
        for file in files_in(self.path.parent, (self.path.suffix.lower(),)):
            matched = _FILE_NAME.fullmatch(file.stem)
            if matched and matched["base"] == own["base"]:
                split = matched["split"].lower()
                if split in found:
                    raise ValueError(
                        f"{file.parent}: expected one file of split {split}, found "
                        f"{found[split].name} and {file.name}; take one away"
                    )
                found[split] = file
        return found

    def stored_names(self) -> list[str]:
        """The last words of the file names."""
        return list(self.files)

    def records(self, split: str) -> Sequence[ImageRecord]:
        """The images of the split's file."""
        if split not in self._records:
            file = self.files[split]
            records = group_by_image(_rows(file))
            cut_captions(records, self.options.max_captions or 0)
            self._records[split] = records
        return self._records[split]


def _rows(file: Path) -> Iterator[tuple[str, ImageRecord]]:
    """The entries of a file, and where each is."""
    for number, entry in enumerate(_entries(file), 1):
        entry = entry if isinstance(entry, dict) else {"entry": entry}
        captions: Any = entry.get("caption")
        captions = [captions] if isinstance(captions, str) else captions
        where = f"{file}: entry {number}"
        image = entry.get("image")
        if not (_are(str, captions) and isinstance(image, str) and image.strip()):
            raise ValueError(
                f"{where}: expected 'image', a path, and 'caption', a text or a list of texts, "
                f"found {str(entry)[:80]}"
            )
        ids = entry.get("caption_ids")
        if ids is not None:
            if not (_are(int, ids) and len(ids) == len(captions)):
                raise ValueError(
                    f"{where}: expected {len(captions)} integers as 'caption_ids', found "
                    f"{str(ids)[:80]}"
                )
            ids = [parse_integer(i, f"{where}: caption_ids") for i in ids]
        group = group_name(entry.get("group"), where)
        yield where, ImageRecord(image, captions, _number(entry.get("image_id")), ids, group)


def _are(kind: type, values: object) -> bool:
    """Whether ``values`` is a filled list of that kind."""
    return isinstance(values, list) and bool(values) and all(type(v) is kind for v in values)


def _entries(file: Path) -> list[Any]:
    """The entries of a JSON list or of the lines of a file."""
    if file.suffix.lower() == ".json":
        entries = read_json(file)
        if not isinstance(entries, list):
            raise ValueError(
                f"{file}: expected a JSON list of entries, found {type(entries).__name__}; see "
                "docs/data.md for the format"
            )
        return entries
    entries = []
    for number, line in enumerate(read_lines(file), 1):
        if line.strip():
            entries.append(parse_json(line, f"{file}: line {number}"))
    return entries


def _number(identifier: object) -> int | None:
    """An id as a number, or the number that it ends in; None where there is none."""
    digits = re.search(r"(?<!\d)\d{1,18}$", str(identifier), re.ASCII)
    return int(digits.group()) if digits and not isinstance(identifier, float) else None
