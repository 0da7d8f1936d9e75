"""What `goal-kernels fit` would do with a dataset, and the command line for it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from goal_kernels.data.inspection.findings import Finding, Inspection, Level
from goal_kernels.data.sources import Source
from goal_kernels.data.sources.base import DEV_NAMES
from goal_kernels.data.split import PictureSplit, Split
from goal_kernels.data.vocabulary import MIN_COUNT, PICKLE_SUFFIXES, SPECIAL_WORDS, Vocabulary
from goal_kernels.extras import install
from goal_kernels.recipes import recipe_names

BATCH_SIZE = 128  # of the recipes
DEV_IMAGES = 1000  # the checkpoints of VSE++, SCAN and VSE-infinity are chosen on so many
FEW_CAPTIONS = 1000  # in more of them some words do come often enough
PICTURE_WORKERS = 4  # decoding takes longer than a step
MANY_UNKNOWN = 0.05  # share of unknown words in a split above which a note says so


def make_plan(source: Source, splits: Mapping[str, Split], inspection: Inspection) -> None:
    """Fill in ``inspection.plan`` and ``inspection.command``."""
    train = splits.get("train")
    dev = next((splits[name] for name in DEV_NAMES if name in splits), None)
    if train is None or dev is None:
        lacking = "train" if train is None else "dev, on which the checkpoint is chosen"
        inspection.plan.append(
            f"Nothing can be trained: there is no usable split {lacking}. A checkpoint can be "
            "evaluated: goal-kernels test --data.test_split NAME"
        )
        return
    options: dict[str, object] = {"folder": source.path}
    batch_size = min(BATCH_SIZE, len(train.captions))
    if batch_size < BATCH_SIZE:
        options["batch_size"] = batch_size
    inspection.plan.append(
        f"Trains on {len(train.captions):,} pairs of {len(train.image_ids):,} images, "
        f"{len(train.captions) // batch_size:,} steps of {batch_size} an epoch."
    )
    _plan_pictures(train, splits, source, inspection, options)
    if (
        len(train.captions) < FEW_CAPTIONS
        and not source.vocabulary_files()
        and len(Vocabulary.from_captions(train.captions, MIN_COUNT)) == len(SPECIAL_WORDS)
    ):
        options["min_count"] = 1  # else not one word would be known
    text = f"Chooses the checkpoint on the {len(dev.image_ids):,} images of {dev.name}"
    if len(dev.image_ids) > DEV_IMAGES:
        text += f"; published figures choose on the first {DEV_IMAGES}"
        options["dev_limit"] = DEV_IMAGES
    inspection.plan.append(text + ".")
    _plan_test(splits, dev, inspection, options)
    recipe = _recipe(source.path, "grid" if isinstance(train, PictureSplit) else "region")
    given = [f"--data.{name} {shlex.quote(_written(value))}" for name, value in options.items()]
    if isinstance(train, PictureSplit):
        given.append("--model.image.weights null")
    inspection.command = " ".join([f"goal-kernels fit --config {recipe}", *given])


def _plan_pictures(
    train: Split,
    splits: Mapping[str, Split],
    source: Source,
    inspection: Inspection,
    options: dict[str, object],
) -> None:
    """Options of a source of image files, also where they only repeat a default."""
    if not isinstance(train, PictureSplit):
        return
    inspection.plan.append(
        f"Images go through a backbone, which needs {install('train,grid')}. As the "
        "command stands it starts from random weights; published models start from trained ones: "
        "--model.image.weights FILE."
    )
    roots = {split.image_root for split in splits.values() if isinstance(split, PictureSplit)}
    root = roots.pop() if len(roots) == 1 else None  # else each split's is found again
    options |= {"image_root": root, "restval": source.options.restval}
    changed = source.options.changed() - {*options, "columns"}
    options |= {name: getattr(source.options, name) for name in sorted(changed)}
    options |= {f"columns.{name}": header for name, header in source.options.columns.items()}
    options["num_workers"] = PICTURE_WORKERS


def _plan_test(
    splits: Mapping[str, Split], dev: Split, inspection: Inspection, options: dict[str, object]
) -> None:
    """Which split is tested: testall where there is one, as COCO's figures are."""
    found = [name for name in ("testall", "test") if name in splits]
    name = found[0] if found else dev.name
    why = "" if found else ", since there is no split test"
    inspection.plan.append(f"Tests on {name}{why}.")
    options["test_split"] = name


def _recipe(path: Path, kind: str) -> str:
    """The recipe for such data: by the names of the folders, COCO's or Flickr30K's."""
    if (path / "dataset.json").is_file():  # GoalWorld's manifest
        return "goalworld"
    dataset = "coco" if "coco" in str(path).lower() else "f30k"
    known = recipe_names()
    wanted = f"vse_infinity_{kind}_bigru_{dataset}"
    return wanted if wanted in known else "goalworld"


def _written(value: object) -> str:
    """A value as the command line has it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_vocabulary(
    source: Source, splits: Mapping[str, Split], inspection: Inspection
) -> Iterator[Finding]:
    """Say in ``inspection.vocabulary`` which it is; findings about it."""
    vocabulary, text = None, ""
    reason = "is it of another dataset or tokenizer?"
    for path in source.vocabulary_files():
        try:
            vocabulary = Vocabulary.load(path)
            text = f"{path}, {len(vocabulary):,} words"
            break
        except ValueError as error:
            level: Level = "note" if path.suffix in PICKLE_SUFFIXES else "problem"
            yield Finding(level, None, f"vocabulary {error}")
    if vocabulary is None and "train" in splits:
        vocabulary = Vocabulary.from_captions(splits["train"].captions, MIN_COUNT)
        reason = "train captions use them too seldom; --data.min_count 1 keeps every word of train"
        text = (
            f"none is here; `fit` builds one from the words that train captions use {MIN_COUNT} "
            f"times or more ({len(vocabulary):,} words) and writes it into the run folder"
        )
    if vocabulary is None:
        inspection.vocabulary = "none is here, and no train split to build one from"
        return
    shares = {name: vocabulary.unknown_share(split.captions) for name, split in splits.items()}
    known = ", ".join(f"{name} {100 * share:.1f}%" for name, share in shares.items())
    inspection.vocabulary = f"{text}; unknown words: {known}"
    for name, share in shares.items():
        if share > MANY_UNKNOWN:
            yield Finding(
                "note",
                name,
                f"{100 * share:.1f}% of the words are unknown to the vocabulary: {reason}",
            )
