"""Karpathy's splits: ``dataset_coco.json``, ``dataset_flickr30k.json``, and image files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from goal_kernels.data.files import parse_integer, read_json
from goal_kernels.data.sources.base import files_in, fold_split, one_of, renamings, starts_with
from goal_kernels.data.sources.pictures import ImageRecord, PictureSource, cut_captions
from goal_kernels.data.split import group_name

COCO_CAPTIONS = 5  # an image; the lineage cuts the few images that have more
RESTVAL = "restval"


class KarpathySource(PictureSource):
    """``{"images": [{"split", "filepath", "filename", "sentences": [{"raw"}]}]}``.

    ``val`` is called ``dev``. ``testall``, the name of COCO's 5000 test images in the precomputed
    layout, is another name for ``test``. Ids of images are ``cocoid``, else ``imgid``; those of
    captions ``sentid``. An image may have a ``group``.
    """

    format = "karpathy"
    summary = "dataset_coco.json or dataset_flickr30k.json with image files"
    takes = frozenset({"image_root", "restval", "max_captions"})

    @classmethod
    def recognise(cls, path: Path) -> Path | None:
        """The JSON file."""
        if path.is_file():
            return path if path.suffix.lower() == ".json" and starts_with(path, "{") else None
        files = files_in(path, (".json",))
        return one_of(path, [file for file in files if file.name.startswith("dataset_")])

    @cached_property
    def _read(self) -> tuple[dict[str, list[ImageRecord]], list[str]]:
        """Records by split, and the remarks on what was left out."""
        table = read_json(self.path)
        if not isinstance(table, dict) or not isinstance(table.get("images"), list):
            raise ValueError(f"{self.path}: expected a JSON object with a list 'images'")
        by_split: dict[str, list[ImageRecord]] = {}
        given = []
        for number, entry in enumerate(table["images"]):
            record = self._record(number, entry)
            given.append(entry.get("split"))
            split = fold_split(given[-1], f"{self.path}: image {number}")
            by_split.setdefault(split, []).append(record)
        limit = self.options.max_captions
        if limit is None:
            limit = COCO_CAPTIONS if table.get("dataset") == "coco" else 0
        remarks = renamings(given)
        left_out = sum(cut_captions(records, limit) for records in by_split.values())
        if left_out:
            remarks.append(
                f"{left_out} captions beyond the first {limit} of an image are left out "
                f"({COCO_CAPTIONS} of COCO is the published habit); --data.max_captions 0 keeps all"
            )
        if self.options.restval:
            if RESTVAL not in by_split:
                raise ValueError(
                    f"restval: expected images in split 'restval' of {self.path}, found none "
                    "(Flickr30K has no such split); leave the option out"
                )
            by_split.setdefault("train", []).extend(by_split.pop(RESTVAL))
        elif RESTVAL in by_split:
            remarks.append(
                f"{len(by_split[RESTVAL])} images of split restval are not in train; the published "
                "figures since SCAN train on them too: --data.restval true"
            )
        return by_split, remarks

    def _record(self, number: int, entry: Any) -> ImageRecord:
        """The record of the ``number``-th image, or a ValueError that says what it lacks."""
        where = f"{self.path}: image {number}"
        try:
            name = str(Path(entry.get("filepath", "")) / entry["filename"])
            captions = [sentence["raw"] for sentence in entry["sentences"]]
            ids = [sentence.get("sentid") for sentence in entry["sentences"]]
            given = entry.get("cocoid", entry.get("imgid"))
            "".join(captions)  # all of them texts
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{where}: expected 'filename' and 'sentences' with texts 'raw'; {error!r} in "
                f"{str(entry)[:80]}; write the image anew or leave it out"
            ) from error
        caption_ids = None if None in ids else [parse_integer(i, f"{where}: sentid") for i in ids]
        identifier = None if given is None else parse_integer(given, f"{where}: id")
        if not captions:
            raise ValueError(f"{where} ({name}): expected sentences, found none; leave it out")
        group = group_name(entry.get("group"), where)
        return ImageRecord(name, captions, identifier, caption_ids, group)

    def stored_names(self) -> list[str]:
        """The splits of the file."""
        return list(self._read[0])

    def find(self, split: str) -> str:
        """Likewise with ``testall`` for ``test``."""
        return super().find("test" if split == "testall" else split)

    def records(self, split: str) -> Sequence[ImageRecord]:
        """The images of a split in the order of the file, restval's behind train's."""
        return self._read[0][split]

    def remarks(self) -> list[str]:
        """Whether restval takes part, and captions that are left out."""
        return self._read[1]
