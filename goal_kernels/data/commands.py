"""``goal-kernels data inspect`` and ``goal-kernels data convert``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from goal_kernels.data.conversion import Conversion, convert
from goal_kernels.data.inspection import inspect_source
from goal_kernels.data.inspection.findings import describe
from goal_kernels.data.progress import progress_line
from goal_kernels.data.sources import FORMATS, Source, SourceOptions, describe_formats, open_source
from goal_kernels.data.sources.base import COLUMNS
from goal_kernels.data.vocabulary import MIN_COUNT

_INSPECT = """\
Look at a dataset before training on it: which format it is, its splits, how captions and images go
together, ids, broken or empty features, missing or damaged image files, empty captions, words that
the vocabulary lacks, images that are in two splits, and what `goal-kernels fit` would do with it.
"""

_INSPECT_EPILOG = """\
Formats
{formats}
A folder of features may be the one with the files or one above it: coco_precomp/, coco/ with
precomp/ in it. docs/data.md has a picture of each.

Examples
  goal-kernels data inspect data/f30k_precomp
  goal-kernels data inspect data/dataset_coco.json --image-root data/images --restval
  goal-kernels data inspect my_pictures --column image=file --column caption=text
  goal-kernels data inspect data/coco/precomp --all --json > inspection.json

Exit status: 0 all is well, 1 problems were found, 2 there is no dataset of a known format.
"""

_CONVERT = """\
Bring a dataset into the layout that trains fastest. Features go to the precomputed layout: repeated
rows once, ragged captions with an index file, and with --half in half the place. Pictures go to one
JSON list a split, or with --features to the precomputed layout with their region features.
The vocabulary is built from captions of the train split alone unless told otherwise.
"""

_CONVERT_EPILOG = """\
Examples
  goal-kernels data convert data/coco/precomp data/coco_half --half
  goal-kernels data convert data/dataset_flickr30k.json data/f30k --image-root flickr30k-images
  goal-kernels data convert dataset_coco.json data/coco --restval --features trainval_36.tsv
  goal-kernels data convert captions.csv data/mine --vocabulary-from train,dev --min-count 2

Each file is written in full or not at all; nothing of the source is changed; pickles are not read.
"""


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """The path of a source and how to read it."""
    parser.add_argument(
        "source", type=Path, help="a folder, or the file that describes the dataset"
    )
    parser.add_argument("--format", choices=list(FORMATS), help="found by itself when left out")
    parser.add_argument(
        "--image-root", type=Path, metavar="DIR", help="folder that image names are relative to"
    )
    parser.add_argument(
        "--restval", action="store_true", help="karpathy: add COCO's restval to train, as published"
    )
    parser.add_argument(
        "--max-captions",
        type=int,
        metavar="N",
        help="keep so many captions an image; 0 all (default 5 for COCO's JSON, else all)",
    )
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="NAME=HEADER",
        help=f"table: header of a column, NAME one of {', '.join(COLUMNS)}; may be repeated",
    )
    for name in ("dev", "test"):
        parser.add_argument(
            f"--{name}-share",
            type=float,
            metavar="X",
            default=getattr(SourceOptions, f"{name}_share"),
            help=f"table without splits: share of the images in {name} (default %(default)s)",
        )
    parser.add_argument(
        "--split-seed", type=int, metavar="N", default=0, help="table without splits: other splits"
    )


def open_given(args: argparse.Namespace) -> Source:
    """The source that the arguments name; ValueError or FileNotFoundError when there is none."""
    columns = {}
    for given in args.column:
        name, equals, header = given.partition("=")
        if not equals:
            raise ValueError(f"--column: expected NAME=HEADER, got {given!r}")
        columns[name] = header
    options = SourceOptions(
        image_root=args.image_root,
        restval=args.restval,
        max_captions=args.max_captions,
        columns=columns,
        dev_share=args.dev_share,
        test_share=args.test_share,
        split_seed=args.split_seed,
    )
    return open_source(args.source, args.format, options)


def add_inspect_arguments(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the options and the help of ``data inspect``."""
    parser.description = _INSPECT
    parser.epilog = _INSPECT_EPILOG.format(formats=describe_formats())
    add_source_arguments(parser)
    parser.add_argument("--all", action="store_true", help="decode every image file")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run_inspect(args: argparse.Namespace) -> int:
    """Print the inspection; 0 fine, 1 problems found. Raises: ValueError, OSError."""
    with progress_line() as progress:
        inspection = inspect_source(open_given(args), everything=args.all, progress=progress)
    text = json.dumps(inspection.record(), indent=2) if args.json else describe(inspection)
    print(text)
    problems = len(inspection.of_level("problem"))
    if problems:
        print(f"goal-kernels data inspect: problems found: {problems}", file=sys.stderr)
    return inspection.status


def add_convert_arguments(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the options and the help of ``data convert``."""
    parser.description = _CONVERT
    parser.epilog = _CONVERT_EPILOG
    add_source_arguments(parser)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument(
        "--splits", type=_names, default=(), metavar="A,B", help="only these splits"
    )
    parser.add_argument("--half", action="store_true", help="features as float16")
    parser.add_argument(
        "--features",
        type=Path,
        nargs="+",
        default=(),
        metavar="TSV",
        help="region features of the pictures, in the TSV of bottom-up attention",
    )
    parser.add_argument(
        "--vocabulary-from",
        type=_names,
        default=("train",),
        metavar="A,B",
        help="splits whose captions the vocabulary is built from (default train)",
    )
    parser.add_argument(
        "--min-count",
        type=int,
        default=MIN_COUNT,
        metavar="N",
        help="times that a word has to occur (default %(default)s)",
    )
    parser.add_argument(
        "--vocabulary", type=Path, metavar="FILE", help="take over this JSON vocabulary instead"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files of an earlier conversion"
    )


def run_convert(args: argparse.Namespace) -> int:
    """Convert and say what was made; 0. Raises: ValueError, OSError."""
    source = open_given(args)
    with progress_line() as progress:
        made = convert(
            source,
            args.out,
            splits=args.splits,
            half=args.half,
            features=args.features,
            vocabulary_from=args.vocabulary_from,
            min_count=args.min_count,
            vocabulary=args.vocabulary,
            overwrite=args.overwrite,
            progress=progress,
        )
    print(describe_conversion(made, source))
    return 0


def describe_conversion(made: Conversion, source: Source) -> str:
    """What was made, in words."""
    lines = [f"{source.path} ({source.format}) is now {made.folder} ({made.kind})"]
    lines += [
        f"  {name:<12}{counts['images']:>10,} images{counts['captions']:>12,} captions"
        for name, counts in made.counts.items()
    ]
    lines.append(f"  vocabulary  {made.vocabulary:>10,} words")
    lines.append(f"look at it: goal-kernels data inspect {made.folder}")
    return "\n".join(lines)


def _names(text: str) -> tuple[str, ...]:
    """``"train,dev"`` as a tuple."""
    return tuple(name for name in text.split(",") if name)
