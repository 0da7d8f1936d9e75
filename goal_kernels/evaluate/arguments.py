"""The options and the help of ``goal-kernels eval``."""

from __future__ import annotations

import argparse
from pathlib import Path

from goal_kernels.constants import TIE_RULES
from goal_kernels.evaluate.protocols import ALL, PROTOCOLS

DESCRIPTION = """\
Evaluate image-text retrieval: recall at 1, 5 and 10, ranks, rsum, and what truth is known for.

INPUT is any of, and several of them are an ensemble (the mean of their similarities)
  runs/NAME or FILE.ckpt   a model of `goal-kernels fit`: encodes the test split of its data
  FILE.npz                 arrays image_embeddings [N, D] and text_embeddings [M, D], and, if the
                           number of captions differs between images, image_of_caption [M]; or a
                           matrix called similarity
  FILE.npy                 a matrix of similarities [N images, M captions], read block by block
"""

EPILOG = """\
Protocols
{protocols}
  all      those whose published test set has this size, else everything at once and five folds

Ties
  expected     the mean over all orders of equal scores; a collapsed model scores chance
  optimistic, pessimistic   equal scores all count for, or all against
  argsort      numpy.argsort(row)[::-1], as VSE++, SCAN and VSE-infinity print: the same figures to
               the last bit, whatever it makes of ties, NaN first; takes longer

Examples
  goal-kernels eval runs/goalworld
  goal-kernels eval runs/a runs/b --protocol all --output results/ensemble
  goal-kernels eval runs/coco --split testall --protocol coco-1k --save-embeddings coco.npz
  goal-kernels eval coco.npz --protocol all --ties argsort
  goal-kernels eval scan_sims.npy vse_sims.npy --protocol coco-5k --captions-per-image 5
  goal-kernels eval --embeddings images.npy captions.npy --truth cxc_it.json

Exit status: 0, or 2 after an error. docs/evaluation.md says what the figures mean.
"""


def add_eval_arguments(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the options and the help of ``eval``."""
    protocols = "\n".join(f"  {p.name:<8} {p.meaning}" for p in PROTOCOLS.values())
    parser.description = DESCRIPTION
    parser.epilog = EPILOG.format(protocols=protocols)
    parser.add_argument("inputs", nargs="*", type=Path, metavar="INPUT")
    parser.add_argument(
        "--embeddings",
        nargs=2,
        action="append",
        default=[],
        type=Path,
        metavar=("IMAGES.npy", "CAPTIONS.npy"),
        help="one more input: embeddings in two files",
    )
    _add_set_arguments(parser.add_argument_group("the set"))
    _add_model_arguments(parser.add_argument_group("models"))
    measuring = parser.add_argument_group("measuring")
    measuring.add_argument("--protocol", choices=[*PROTOCOLS, ALL], default="plain")
    measuring.add_argument(
        "--folds", type=int, metavar="F", help="with --protocol plain: the mean of F folds"
    )
    measuring.add_argument("--ties", choices=TIE_RULES, default="expected")
    measuring.add_argument("--strict", action="store_true", help="NaN is an error, not a warning")
    measuring.add_argument(
        "--backend", default="auto", help="that ranks embeddings; see `goal-kernels backends`"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    output.add_argument("--markdown", action="store_true", help="print the tables in Markdown")
    output.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the ranks")
    output.add_argument(
        "--output", type=Path, metavar="DIR", help="write metrics.json, metrics.md and ranks.png"
    )
    output.add_argument(
        "--save-embeddings",
        type=Path,
        metavar="FILE.npz",
        help="write what a model encodes; later calls need neither model nor data",
    )


def _add_set_arguments(group: argparse._ArgumentGroup) -> None:
    told = group.add_mutually_exclusive_group()
    told.add_argument(
        "--captions-per-image", type=int, metavar="K", help="default: as the counts say"
    )
    told.add_argument(
        "--image-of-caption",
        type=Path,
        metavar="FILE",
        help="image row of every caption, counted from 0: .npy, .npz, or a number a line",
    )
    group.add_argument(
        "--transpose", action="store_true", help="matrices are captions by images; turn them"
    )
    group.add_argument(
        "--normalize", action="store_true", help="bring rows of embeddings to unit length"
    )
    group.add_argument(
        "--truth",
        type=Path,
        metavar="FILE",
        help="which captions are true of which images: .npz of GoalWorld, or JSON, see "
        "docs/evaluation.md",
    )


def _add_model_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--split", metavar="NAME", help="default: the test split of the run's data")
    group.add_argument(
        "--data.folder",
        dest="folder",
        metavar="DIR",
        help="other data than the run's; for saved embeddings and matrices, whose captions and "
        "truth these are",
    )
    group.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another option of the run's data, such as vocabulary=my/vocab.json",
    )
    group.add_argument("--device", default="auto", help="auto, cpu or cuda")
    group.add_argument(
        "--ranking",
        choices=["matched", "full", "reranked", "dual"],
        help="of a model that scores pairs: the first re-ranked by its matching head, all of them, "
        "the first of its dual encoder, or none; what is cheaper stands beside it (default: as it "
        "was trained)",
    )
    group.add_argument(
        "--rerank", type=int, metavar="K", help="re-rank the first K (default: as it was trained)"
    )
    group.add_argument(
        "--save-scores",
        type=Path,
        metavar="FILE.npy",
        help="write the scores of all pairs; later calls need neither model nor data",
    )


def ranking_options(args: argparse.Namespace) -> list[str]:
    """The given options that only a model that scores pairs can serve."""
    names = ("ranking", "rerank", "save_scores")
    return [f"--{name.replace('_', '-')}" for name in names if getattr(args, name) is not None]
