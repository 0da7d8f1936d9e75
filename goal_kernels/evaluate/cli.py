"""``goal-kernels eval``: read, rank, show, write."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from goal_kernels.data.arrays import open_array
from goal_kernels.data.files import replacing, write_text
from goal_kernels.data.precomputed import open_split
from goal_kernels.data.split import Split
from goal_kernels.evaluate.alignment import read_index
from goal_kernels.evaluate.arguments import ranking_options
from goal_kernels.evaluate.inputs import (
    EMBEDDINGS,
    Alignment,
    Member,
    combine,
    embeddings_member,
    read_member,
)
from goal_kernels.evaluate.protocols import choose_protocols
from goal_kernels.evaluate.results import (
    EvaluationOptions,
    compare_rankings,
    describe_broken,
    evaluate_member,
)
from goal_kernels.evaluate.tables import histogram_text, markdown, tables, write_histogram
from goal_kernels.evaluate.truth_files import read_truth
from goal_kernels.extras import importing, require
from goal_kernels.retrieval import Scores, sibling_recalls
from goal_kernels.terminal import show
from goal_kernels.training.evaluation import describe_scoring, read_oracle, worse_reranked
from goal_kernels.training.rankings import RANKS_ONLY

if TYPE_CHECKING:
    from goal_kernels.evaluate.checkpoints import Encoded
    from goal_kernels.evaluate.pair_rankings import PairRankings

ARRAY_FILES = (".npy", ".npz")


def run_eval(args: argparse.Namespace) -> int:
    """Evaluate as ``args`` say, print and write; 0.

    Raises: ValueError, FileNotFoundError, MissingExtraError, BackendUnavailableError and
        CheckpointError for what cannot be evaluated.
    """
    _show(_evaluate(args), args.markdown)
    return 0


def _evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """Read, rank, write the files that were asked for; the record."""
    _check(args)
    encoded = {path: _encode(path, args) for path in _models(args)}
    index: NDArray[np.integer] | None = None
    split: Split | None = None
    groups = None
    if encoded:
        split = next(iter(encoded.values())).split
    elif args.folder is not None:  # what saved embeddings or matrices are of
        split = open_split(args.folder, args.split or "test")
        index, groups = split.image_of_caption, split.groups
    truth, oracle, families = None, None, None
    if split is not None:
        truth, oracle, families = split.truth, read_oracle(split), split.families
    if args.image_of_caption is not None:
        index = read_index(args.image_of_caption)
    alignment = Alignment(
        captions_per_image=args.captions_per_image,
        image_of_caption=index,
        transpose=args.transpose,
        normalize=args.normalize,
    )
    for found in encoded.values():  # refused before hours of scoring
        choose_protocols(args.protocol, args.folds, len(found.image_embeddings))
    rankings = _rankings(args, encoded)
    members = _read_members(args, alignment, encoded, rankings)
    member = combine(members)
    if groups is not None:
        member = replace(member, groups=groups)
    elif member.groups is not None and not encoded:
        oracle = None  # of the folder, which knows no groups
    images, texts = member.scores.shape
    if any(made.asked in RANKS_ONLY for made in rankings.values()):
        truth = None  # which needs scores of all pairs
    if args.truth is not None:
        truth = read_truth(args.truth, texts, images)
    options = EvaluationOptions(
        protocols=choose_protocols(args.protocol, args.folds, images),
        ties=args.ties,
        backend=args.backend,
        strict=args.strict,
        truth=truth,
        oracle=oracle,
    )
    record = {"inputs": [part.name for part in members], **evaluate_member(member, options)}
    compared: Mapping[str, Scores] = {member.name: member.scores}
    if len(members) == 1 and rankings:
        [made] = rankings.values()
        same = {name: replace(member, scores=scores) for name, scores in made.scores.items()}
        record["rankings"] = compare_rankings(same, record, made.asked, options)
        record["scoring"] = made.costs
        compared = made.scores
    record["siblings"] = sibling_recalls(compared, member.image_of_caption, families)
    _write(record, args, encoded)
    return record


def _rankings(
    args: argparse.Namespace, encoded: Mapping[Path, Encoded]
) -> dict[Path, PairRankings]:
    """Of the models that score pairs."""
    made = {}
    if encoded:  # else torch alone is enough
        from goal_kernels.evaluate.pair_rankings import rank_pairs

        made = {path: rank_pairs(str(path), found, args) for path, found in encoded.items()}
    return {path: rankings for path, rankings in made.items() if rankings is not None}


def _models(args: argparse.Namespace) -> list[Path]:
    return [path for path in args.inputs if path.suffix not in ARRAY_FILES]


def _check(args: argparse.Namespace) -> None:
    """Refuse combinations that mean nothing. Raises: ValueError, MissingExtraError."""
    models = _models(args)
    if not args.inputs and not args.embeddings:
        raise ValueError("INPUT: expected a run, a checkpoint, or saved arrays; see --help")
    for name in ("captions_per_image", "folds", "rerank"):
        given = getattr(args, name)
        if given is not None and given < 1:
            raise ValueError(f"--{name.replace('_', '-')}: expected at least 1, got {given}")
    if args.save_embeddings is not None and len(models) != 1:
        raise ValueError(f"--save-embeddings: expected one model as INPUT, got {len(models)}")
    inputs = len(args.inputs) + len(args.embeddings)
    for option in ranking_options(args):
        if not models:
            raise ValueError(f"{option}: expected a model as INPUT, not saved arrays; leave it out")
        if option != "--ranking" and inputs > 1:
            raise ValueError(f"{option}: expected one model as the only INPUT, got {inputs} inputs")
    if args.split is not None and not models and args.folder is None:
        raise ValueError("--split: expected a model as INPUT, or --data.folder that has the split")
    if args.plot is not None or args.output is not None:
        require("a plot", "plots", "matplotlib")
    if models:
        require(f"{models[0]}: a model", "train", "pytorch_lightning", "jsonargparse")


def _encode(path: Path, args: argparse.Namespace) -> Encoded:
    """The encoded split of one model."""
    with importing():
        from goal_kernels.evaluate.checkpoints import encode_split, open_run

    data = {}
    for given in args.data:
        name, equals, value = given.partition("=")
        if not equals:
            raise ValueError(f"--data: expected NAME=VALUE, got {given!r}")
        data[name] = value
    if args.folder is not None:
        data["folder"] = args.folder
    if args.split is not None:
        data["test_split"] = args.split
    return encode_split(open_run(path, data, args.device))


def _read_members(
    args: argparse.Namespace,
    alignment: Alignment,
    encoded: Mapping[Path, Encoded],
    rankings: Mapping[Path, PairRankings],
) -> list[Member]:
    """All inputs, in the order of the command line, `--embeddings` last."""
    members = []
    for path in args.inputs:
        if path in encoded:
            found = encoded[path]
            sides = (found.image_embeddings.numpy(), found.text_embeddings.numpy())
            straight = replace(alignment, transpose=False)
            name = f"{path}, split {found.split.name}"
            member = embeddings_member(name, *sides, straight, found.split.image_of_caption)
            member = replace(member, groups=found.split.groups)
            if path in rankings:
                scores = rankings[path].scores[rankings[path].asked]
                member = replace(member, scores=scores)
            members.append(member)
        else:
            members.append(read_member(path, alignment))
    for image, text in args.embeddings:
        name = f"{image} and {text}"
        members.append(embeddings_member(name, open_array(image), open_array(text), alignment))
    return members


def _write(
    record: dict[str, Any], args: argparse.Namespace, encoded: Mapping[Path, Encoded]
) -> None:
    """The files that were asked for, each whole or not there."""
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    if args.save_embeddings is not None:
        [model] = encoded.values()
        arrays = {name: getattr(model, name).numpy() for name in EMBEDDINGS}
        arrays["image_of_caption"] = model.split.image_of_caption
        if model.split.groups is not None:
            arrays["groups"] = model.split.groups
        with replacing(args.save_embeddings) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)
    if args.json is not None:
        write_text(args.json, text)
    if args.plot is not None:
        write_histogram(args.plot, record)
    if args.output is not None:
        write_text(args.output / "metrics.json", text)
        write_text(args.output / "metrics.md", markdown(tables(record)))
        write_histogram(args.output / "ranks.png", record)


def _show(record: dict[str, Any], as_markdown: bool) -> None:
    """Print notes and tables; warnings go to standard error."""
    if record["broken"]:
        place = "first" if record["ties"] == "argsort" else "last"
        print(
            f"WARNING: {describe_broken(record['broken'])}. NaN ranks {place}, and no figure below "
            "can be trusted; find out where it comes from (--strict makes it an error).",
            file=sys.stderr,
        )
    for name, rankings in record["rankings"].items():
        if message := worse_reranked(rankings):
            print(f"WARNING: {name}: {message}", file=sys.stderr)
    if as_markdown:
        print(markdown(tables(record)), end="")
        return
    least, most = record["captions_per_image"].values()
    each = f"{least}" if least == most else f"{least} to {most}"
    print(
        f"{record['input']}: {record['images']:,} images, {record['captions']:,} captions, "
        f"{each} an image"
    )
    for note in record["notes"]:
        print(f"note: {note}")
    print()
    show(tables(record))
    for name, part in record["protocols"].items():
        print(f"\n{histogram_text(name, part['histogram'])}")
    if record["scoring"]:
        print(f"\n{describe_scoring(record['scoring'])}")
    print(f"\nties: {record['ties']}; ranked in {record['seconds']:.1f} s")
