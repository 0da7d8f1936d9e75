"""``goal-kernels data emoji``: the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from goal_kernels.data.emoji.dataset import LICENCES, make_emoji
from goal_kernels.data.emoji.packages import CLIENT, needed_packages
from goal_kernels.data.progress import progress_line

_DESCRIPTION = """\
Make a dataset of real drawings: emoji by several vendors, with the names and keywords that people
gave them. These are no captions: they name a thing and do not describe its picture. Results on this
dataset say nothing about COCO or Flickr30K.

About 1,640 things in up to four drawings each (Noto, Twemoji, Fluent, Emoji One; with --share-alike
OpenMoji too). A thing has 1 to 5 texts: its name, and lists of three to five keywords. Flags are
left out. The splits share no thing, and variants by gender and role are in one split; dev and test
have one drawing a thing.
"""

_EPILOG = """\
Files, in the list layout of ALBEF and BLIP
  {{split}}.json   "image", "caption" (a list), "image_id", "group" (the thing's number)
  images/{{vendor}}/{{code}}.png   named after the code points of the emoji
  {licences}   packages, versions, authors, licences

The packages (13 MB, 14 with --share-alike) come from the npm registry, by your own `npm` and its
configuration, at pinned versions that are checked by SHA-256. Where there is no network, fetch them
elsewhere and give the folder with --packages:
  {pack}

Half a minute on one core. 19 MB at --size 128, 10 MB at 64.

Examples
  goal-kernels data emoji --output data/emoji
  goal-kernels data emoji --output data/emoji --packages downloads --size 64
  goal-kernels data inspect data/emoji

Equal options give equal files.
"""


def add_emoji_arguments(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the options and the help of ``data emoji``."""
    parser.description = _DESCRIPTION
    specs = (package.spec for package in needed_packages(share_alike=True))
    parser.epilog = _EPILOG.format(
        licences=LICENCES, pack=" \\\n    ".join([f"{CLIENT} pack", *specs])
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", required=True, help="folder to make; may not exist"
    )
    parser.add_argument(
        "--packages", type=Path, metavar="FOLDER", help="take the packages' archives from here"
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="PX",
        default=128,
        help="side of the pictures in pixels, 16 to 1024 (default %(default)s)",
    )
    parser.add_argument(
        "--share-alike",
        action="store_true",
        help="OpenMoji's drawings too, whose licence (CC BY-SA 4.0) derived works have to keep",
    )


def run_emoji(args: argparse.Namespace) -> int:
    """Make the dataset and say what it holds; 0. Raises: ValueError, OSError."""
    with progress_line() as progress:
        made = make_emoji(
            args.output,
            packages=args.packages,
            size=args.size,
            share_alike=args.share_alike,
            progress=progress,
        )
    print(f"{args.output}: drawings of things, with names and keywords (not captions)")
    for split, counts in made.items():
        print(
            f"  {split:<6}{counts.things:>7,} things{counts.images:>7,} images"
            f"{counts.texts:>8,} texts"
        )
    print(f"licences: {args.output / LICENCES}")
    print(f"look at it: goal-kernels data inspect {args.output}")
    return 0
