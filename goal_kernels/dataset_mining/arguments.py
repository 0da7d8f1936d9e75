"""The options and the help of ``goal-kernels mine``."""

from __future__ import annotations

import argparse
from pathlib import Path

DESCRIPTION = """\
Mine the K hardest negatives of every item of a dataset. Arrays may be larger than memory.

INPUT is one of
  IMAGES.npy CAPTIONS.npy  embeddings [N, D] and [M, D], memory-mapped; or of any two sets, with ids
  ROWS.npy                 one set against itself
  FILE.npz                 image_embeddings, text_embeddings, image_of_caption: what
                           --save-embeddings of `goal-kernels eval` writes (read whole)
  runs/NAME or FILE.ckpt   a model of `goal-kernels fit`: encodes the train split of its data

FILE of --output says by its ending what is written
  .npz      scores, indices and counts, [N, K], [N, K] and [N]; of both directions, with i2t_ and
            t2i_ before their names
  .jsonl    a line a positive pair: anchor, positive, negative_1 to negative_K, as
            sentence-transformers reads n-tuples; pairs with fewer than K negatives are left out
  .parquet  the same columns (needs the extra parquet)
"""

EPILOG = """\
Work is kept query block by query block in FILE.parts. The same command goes on after a stop, with
the same inputs and options; it is removed when FILE is written.

Examples
  goal-kernels mine images.npy captions.npy --captions-per-image 5 --output negatives.npz
  goal-kernels mine coco.npz -k 5 --direction t2i --false-negative-margin 0 --output coco.jsonl
  goal-kernels mine runs/coco --corpus-text captions.txt --output negatives.parquet
  goal-kernels mine rows.npy --query-ids labels.npy --output negatives.npz

Exit status: 0, or 2 after an error. docs/mining.md says more.
"""


def add_mine_arguments(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the options and the help of ``mine``."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("-k", type=int, default=10, help="negatives of each item; 10 unless given")
    pairs = parser.add_argument_group("what belongs together, and so is no negative")
    told = pairs.add_mutually_exclusive_group()
    told.add_argument(
        "--captions-per-image", type=int, metavar="C", help="default: as the counts say"
    )
    told.add_argument(
        "--image-of-caption",
        "--text-to-image",
        dest="image_of_caption",
        type=Path,
        metavar="FILE",
        help="image row of every caption, counted from 0, -1 for none: .npy, .npz, or a number a "
        "line",
    )
    told.add_argument(
        "--query-ids",
        type=Path,
        metavar="FILE",
        help="integers of the first array's rows; equal ones belong together. No pairs are known "
        "then, and one direction is mined",
    )
    pairs.add_argument("--corpus-ids", type=Path, metavar="FILE", help="of the second array's")
    bounds = parser.add_argument_group("false negatives")
    bounds.add_argument(
        "--max-score", type=float, metavar="S", help="leave out what scores above S"
    )
    bounds.add_argument(
        "--false-negative-margin",
        type=float,
        metavar="D",
        help="leave out what scores above the best positive plus D; 0 or below it is usual",
    )
    _add_search_arguments(parser.add_argument_group("search"))
    _add_model_arguments(parser.add_argument_group("models"))
    names = parser.add_argument_group("names in .jsonl and .parquet, instead of row numbers")
    names.add_argument(
        "--query-text", type=Path, metavar="FILE", help="a line for each row of the first array"
    )
    names.add_argument(
        "--corpus-text", type=Path, metavar="FILE", help="for each of the second: the captions"
    )


def _add_search_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--direction",
        choices=("both", "i2t", "t2i"),
        default="both",
        help="captions for images, images for captions; both write two files but for .npz",
    )
    group.add_argument(
        "--normalize", action="store_true", help="bring rows of embeddings to unit length"
    )
    group.add_argument(
        "--block", type=int, default=65536, metavar="ROWS", help="queries that are kept at a time"
    )
    group.add_argument("--backend", default="auto", help="see `goal-kernels backends`")
    group.add_argument("--device", default="auto", help="auto, cpu or cuda")


def _add_model_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--split", metavar="NAME", default="train", help="train unless given")
    group.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another option of the run's data, such as folder=my/precomp",
    )
