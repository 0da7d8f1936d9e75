"""``goal-kernels data synth``: the command line of the data set."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from goal_kernels.data.goalworld.config import DTYPES, PRESETS
from goal_kernels.data.goalworld.dataset import DatasetSummary, generate_goalworld
from goal_kernels.data.progress import progress_line

DEFAULT_PRESET = "demo"

_DESCRIPTION = """\
Make GoalWorld, an image-text retrieval data set that needs no download and whose truth is known.

An image is a scene of 3 to 6 shapes (12 shapes, 12 colours, 3 sizes, 5 textures) before one of 10
settings in one of 4 lights. Its two siblings hold the same shapes, colours and so on with one
exchange, so a bag of words cannot tell them apart. Five captions an image, written independently,
say part of what is there: relations, numbers, negations, places, the setting, in about 330 words.
From the captions' logical forms follows which of all images every caption is true of, and so what
a retrieval model that understands everything could reach at best (the oracle).

No results on it say anything about COCO or Flickr30K; it is for trying, testing and comparing.
"""

_EPILOG = """\
Files, in the precomputed-feature layout of VSE++, SCAN and VSE-infinity
  {split}_ims.npy       float32 [N, K, D]: K boxes of a simulated detector, D numbers a box, the
                        last 5 of them x1, y1, x2, y2 and area
  {split}_caps.txt      5 N lines: the 5 captions of image 0, then of image 1, ...
  {split}_ids.txt       N integer ids; id_mapping.json names their pictures
  vocab.json            words and their numbers, from the train split alone
and beside it
  {split}_truth.npz     which captions are true of which images: indptr, indices, shape (CSR rows)
  {split}_scenes.jsonl  scene and logical forms of the captions, an image a line
  oracle.json           expected recalls of somebody who knows the truth, on dev and test
  dataset.json          seed, parameters, counts and a SHA-256 of each file
  images/{split}/{id}.png   with --images

Presets (train / dev / test images; seconds on one core; size)
  tiny        64 /    32 /    32      < 1 s    1 MB   for unit tests
  demo     4,000 / 1,000 / 1,000     10 s     30 MB   trains on a CPU in minutes
  medium  29,000 / 1,014 / 1,000    1 min    150 MB   as many images as Flickr30K
  Features of 36 x 2048 float16 take 147 kB an image: 0.9 GB for demo, 4.6 GB for medium.

Examples
  goal-kernels data synth                           demo, into data/goalworld
  goal-kernels data synth --preset tiny             into data/goalworld_tiny
  goal-kernels data synth --images --workers 4      with pictures to look at
  goal-kernels data synth --folder data/hard --siblings 4 --noise 0.2
  goal-kernels data synth --folder data/wide --regions 36 --dim 2048 --dtype float16

Equal options and seed give equal files, whatever --workers says. A folder that holds the very
data set asked for is left as it is.
"""


_OPTIONS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "splits": {
        "train": ("N", "images in the train split"),
        "dev": ("N", "images in the dev split"),
        "test": ("N", "images in the test split"),
    },
    "scenes and captions": {
        "siblings": ("N", "look-alikes beside each base scene, 0 to 4"),
        "min_objects": ("N", "fewest things in a scene, 2 to 6"),
        "max_objects": ("N", "most things in a scene, up to 6"),
        "detail": ("X", "0 to 1, how much a caption says"),
        "contrast": ("X", "0 to 1, share of captions meant to be true of no sibling"),
        "rarity": ("N", "random scenes that a caption should be false of"),
    },
    "features": {
        "regions": ("K", "boxes an image"),
        "dim": ("D", "numbers a box, at least 16"),
        "dtype": ("TYPE", "float32 or float16"),
        "noise": ("X", "standard deviation of the noise on what a box shows"),
        "miss": ("X", "probability that a thing gets no box"),
    },
    "pictures": {"image_size": ("PX", "side of the pictures in pixels")},
}
"""Fields of `GoalWorldConfig` by group: word for the value, meaning. The preset has defaults."""


def add_synth_arguments(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the options and the help of ``data synth``."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="where to (default data/goalworld, or data/goalworld_PRESET for another preset)",
    )
    parser.add_argument("--preset", choices=sorted(PRESETS), default=DEFAULT_PRESET)
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default 0)")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes to use (default 1)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace another or a damaged data set"
    )
    for title, options in _OPTIONS.items():
        group = parser.add_argument_group(title)
        if title == "pictures":
            group.add_argument(
                "--images",
                action="store_true",
                default=None,
                help="render a PNG of every scene (needs Pillow)",
            )
        for name, (metavar, meaning) in options.items():
            default = getattr(PRESETS[DEFAULT_PRESET], name)
            note = "default from the preset" if title == "splits" else f"default {default}"
            group.add_argument(
                f"--{name.replace('_', '-')}",
                type=type(default),
                metavar=metavar,
                choices=DTYPES if name == "dtype" else None,
                help=f"{meaning} ({note})",
            )


def run_synth(args: argparse.Namespace) -> int:
    """Generate as ``args`` say and print a summary; 0. Raises: ValueError, FileExistsError."""
    names = ["images", *(name for options in _OPTIONS.values() for name in options)]
    given = {name: getattr(args, name) for name in names}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if changes.get("images") and find_spec("PIL") is None:
        raise ValueError("--images needs Pillow: pip install pillow")
    name = "goalworld" if args.preset == DEFAULT_PRESET else f"goalworld_{args.preset}"
    started = time.perf_counter()
    with progress_line() as progress:
        summary = generate_goalworld(
            args.folder or Path("data") / name,  # where the recipes look for a preset
            preset=args.preset,
            seed=args.seed,
            overwrite=args.overwrite,
            workers=args.workers,
            progress=progress,
            **changes,
        )
    print(_describe(summary, time.perf_counter() - started))
    return 0


def _describe(summary: DatasetSummary, seconds: float) -> str:
    """The closing report."""
    action = f"made in {seconds:.1f} s" if summary.created else "was there already, left as it is"
    lines = [f"GoalWorld {summary.preset}, seed {summary.seed}: {action}", ""]
    lines.append(f"{'split':<8}{'images':>9}{'captions':>10}{'images a caption is true of':>30}")
    for split, counts in summary.counts.items():
        mean = counts["true_pairs"] / counts["captions"]
        lines.append(f"{split:<8}{counts['images']:>9,}{counts['captions']:>10,}{mean:>30.2f}")
    lines += ["", "oracle: expected recalls in % when ranking by truth alone"]
    cutoffs = ("R@1", "R@5", "R@10")
    names = [f"{direction} {cutoff}" for direction in ("i2t", "t2i") for cutoff in cutoffs]
    heads = "".join(f"{name:>10}" for name in names)
    lines.append(f"{'':<8}{heads}{'rsum':>8}")
    for split, figures in summary.oracle.items():
        recalls = [figures["i2t"][cutoff] for cutoff in cutoffs]
        recalls += [figures["t2i"][cutoff] for cutoff in cutoffs]
        row = "".join(f"{recall:>10.1f}" for recall in recalls)
        lines.append(f"{split:<8}{row}{figures['rsum']:>8.1f}")
    lines += ["", f"vocabulary: {summary.vocabulary} words, the 4 special ones included"]
    lines += ["captions such as", *(f"  {sample}" for sample in summary.samples)]
    lines += ["", f"folder: {summary.folder} ({summary.size / 1e6:,.0f} MB)"]
    return "\n".join(lines)
