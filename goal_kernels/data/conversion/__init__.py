"""Bring any source of data into one layout: features as precomputed ones, pictures as lists."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np

from goal_kernels.data.conversion.features import (
    FeatureStream,
    RegionTsv,
    stream_of_split,
    stream_of_tsv,
    write_features,
)
from goal_kernels.data.files import write_text
from goal_kernels.data.layout import FEATURES, VOCABULARY
from goal_kernels.data.precomputed import write_texts
from goal_kernels.data.progress import Progress, no_progress
from goal_kernels.data.sources import Source
from goal_kernels.data.sources.base import DEV_NAMES
from goal_kernels.data.split import PictureSplit, PrecomputedSplit, Split
from goal_kernels.data.vocabulary import MIN_COUNT, Vocabulary

RECORD = "conversion.json"
Encode: TypeAlias = Callable[[PictureSplit], FeatureStream]

__all__ = ["RECORD", "Conversion", "convert"]


@dataclass
class Conversion:
    """What was made.

    Attributes:
        folder: where.
        kind: "precomputed" or "list", the format of the folder.
        counts: images and captions by split.
        vocabulary: number of words, the special ones included.
    """

    folder: Path
    kind: str
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    vocabulary: int = 0


def convert(
    source: Source,
    folder: str | Path,
    *,
    splits: Sequence[str] = (),
    half: bool = False,
    features: Sequence[Path] = (),
    encode: Encode | None = None,
    vocabulary_from: Sequence[str] = ("train",),
    min_count: int = MIN_COUNT,
    vocabulary: Path | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Conversion:
    """Write a source into ``folder``: see docs/data.md for the files.

    A source with features becomes the precomputed layout (repeated rows once, ragged captions with
    an index file), and so does one with pictures when TSV files have their features or `encode`
    makes them; otherwise pictures become one JSON list a split, with names relative to ``folder``.
    Each file is written in full or not at all, and ``conversion.json`` last.

    Args:
        source: from `goal_kernels.data.open_source`.
        folder: where to.
        splits: the ones to convert; all when empty.
        half: features as float16.
        features: TSV files of bottom-up attention with the features of the source's pictures.
        encode: makes features of the pictures of a split instead.
        vocabulary_from: the splits whose captions the vocabulary is built from.
        min_count: times that a word has to occur in them.
        vocabulary: a vocabulary file to take over instead.
        overwrite: replace what an earlier conversion left in the folder.
        progress: called with (stage, done, total).

    Raises:
        FileExistsError: ``folder`` holds something and may not be overwritten.
        FileNotFoundError: a split or a file is not there.
        ValueError: the options do not fit the source, or its data is unusable.
        OSError: the disk has too little room.
    """
    folder = Path(folder)
    names = [source.find(split) for split in splits] or source.names()
    held_out = [name for name in names if name in DEV_NAMES]
    if not names:
        raise ValueError(f"{source.path}: expected images with captions, found none at all")
    if len(held_out) > 1:
        raise ValueError(
            f"{source.path}: expected one split to call dev, found {held_out}; name those to "
            "convert with --splits"
        )
    if vocabulary is not None:
        words = Vocabulary.load(vocabulary)
    else:
        captions = [text for split in vocabulary_from for text in source.open(split).captions]
        words = Vocabulary.from_captions(captions, min_count)
    _prepare(folder, source, overwrite)
    regions = RegionTsv.index(features, progress) if features else None
    made = Conversion(folder, "list", vocabulary=len(words))
    mapping: dict[str, str] = {}
    for stored_name in names:
        split = source.open(stored_name)
        name = "dev" if stored_name in DEV_NAMES else stored_name
        stream = _stream(split, regions, encode)
        if stream is not None:
            made.kind = "precomputed"
            _write_precomputed(folder, name, split, stream, half, progress)
            mapping |= _names_by_id(split)
        elif half:
            raise ValueError("half: expected a source with features, this one has only pictures")
        else:
            assert isinstance(split, PictureSplit)
            _write_list(folder / f"{name}.json", split)
        made.counts[name] = {"images": len(split.image_ids), "captions": len(split.captions)}
    oracle = source.path / "oracle.json"
    if oracle.is_file():  # beside a dataset whose truth is known; by split, so it stays right
        shutil.copyfile(oracle, folder / oracle.name)
    if mapping:
        write_text(folder / "id_mapping.json", json.dumps(mapping, indent=0) + "\n")
    words.save(folder / VOCABULARY)
    record = {"source": str(source.path), "format": source.format, "splits": made.counts}
    write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")
    return made


def _prepare(folder: Path, source: Source, overwrite: bool) -> None:
    """Make the folder, or see that it is empty or may be overwritten."""
    here = source.path if source.path.is_dir() else source.path.parent
    if folder.resolve() == here.resolve():
        raise FileExistsError(f"{folder}: expected another folder than the source's own")
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; choose another folder")
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            finished = "a conversion" if (folder / RECORD).is_file() else "other files"
            raise FileExistsError(
                f"{folder}: expected an empty folder or none, it holds {finished}; choose another "
                "folder, or give --overwrite to replace files of the same names"
            )
        (folder / RECORD).unlink(missing_ok=True)  # until all is written again
    folder.mkdir(parents=True, exist_ok=True)


def _stream(split: Split, regions: RegionTsv | None, encode: Encode | None) -> FeatureStream | None:
    """The features of a split, None when it has only pictures."""
    if encode is not None:
        if not isinstance(split, PictureSplit):
            raise ValueError(f"{split.folder}: expected pictures to encode, found features")
        return encode(split)
    if regions is not None:
        return stream_of_tsv(split, regions)
    return stream_of_split(split) if isinstance(split, PrecomputedSplit) else None


def _write_precomputed(
    folder: Path, name: str, split: Split, stream: FeatureStream, half: bool, progress: Progress
) -> None:
    """All files of one split in the precomputed layout."""
    write_features(
        folder / f"{name}{FEATURES}",
        stream,
        half,
        lambda done, total: progress(f"{name} features", done, total),
    )
    index = split.image_of_caption
    write_texts(folder, name, split.captions, index, split.image_ids, split.group_names)
    if split.truth is not None:
        split.truth.save(folder / f"{name}_truth.npz")
    scenes = split.folder / f"{split.name}_scenes.jsonl"
    if scenes.is_file():
        shutil.copyfile(scenes, folder / f"{name}_scenes.jsonl")


def _names_by_id(split: Split) -> dict[str, str]:
    """File names by id, where the split has both."""
    if split.numbered or split.image_names is None:
        return {}
    return dict(zip(map(str, split.image_ids.tolist()), split.image_names, strict=True))


def _write_list(path: Path, split: PictureSplit) -> None:
    """One entry an image and a line: image, captions, and ids and group where there are any."""
    ends = np.cumsum(split.captions_per_image())
    starts = ends - split.captions_per_image()
    entries = []
    for row, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        image = Path(os.path.relpath(split.file(row).resolve(), path.parent.resolve())).as_posix()
        entry: dict[str, object] = {"image": image, "caption": split.captions[start:end]}
        if not split.numbered:
            entry["image_id"] = int(split.image_ids[row])
        if split.group_names is not None:
            entry["group"] = split.group_names[row]
        if split.caption_ids is not None:
            entry["caption_ids"] = split.caption_ids[start:end].tolist()
        entries.append(json.dumps(entry, ensure_ascii=False))
    write_text(path, "[\n" + ",\n".join(entries) + "\n]\n")
