"""`goal-kernels mine`: hard negatives of files, written to a file; a stopped search can resume."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goal_kernels.constants import NO_INDEX
from goal_kernels.dataset_mining.inputs import (
    Search,
    fingerprint,
    positive_scores,
    read_searches,
)
from goal_kernels.dataset_mining.outputs import check_output, write_output
from goal_kernels.dataset_mining.parts import Parts
from goal_kernels.evaluate.inputs import choose_device
from goal_kernels.pairs import cut
from goal_kernels.top_k import MinedTopK, mine_top_k

CORPUS_BYTES = 512 << 20
"""Of the corpus that is in memory at a time."""


def run_mine(args: argparse.Namespace) -> int:
    """Mine as ``args`` say and write the output; 0.

    Raises: ValueError, FileNotFoundError, MissingExtraError, BackendUnavailableError and
        CheckpointError for what cannot be mined or written.
    """
    check_output(args.output)
    for name in ("k", "block"):
        if getattr(args, name) < 1:
            raise ValueError(f"{name}: expected at least 1, got {getattr(args, name)}")
    searches = read_searches(args)
    if args.false_negative_margin is not None and searches[0].positives is None:
        raise ValueError(
            "--false-negative-margin: expected images and captions whose pairs are known, got ids "
            "alone; --max-score needs none"
        )
    parts = Parts(args.output.with_name(f"{args.output.name}.parts"), args.block)
    parts.begin(_manifest(args, searches))
    try:
        for search in searches:
            _search_all(search, args, parts)
        written = write_output(args.output, searches, parts, args.k)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        raise
    parts.remove()
    for path, rows in written.items():
        print(f"{path}: {rows:,} rows")
    return 0


def _manifest(args: argparse.Namespace, searches: list[Search]) -> dict[str, Any]:
    """What the result follows from; names and the backend change no result that counts."""
    what = f"embeddings of {' '.join(map(str, args.inputs))}"
    made: dict[int, dict[str, Any]] = {}  # by array: a set against itself is read once
    manifest: dict[str, Any] = {"directions": [search.name for search in searches]}
    for name in ("queries", "corpus", "query_ids", "corpus_ids"):
        array = getattr(searches[0], name)
        if id(array) not in made:
            made[id(array)] = fingerprint(array, what)
        manifest[name] = made[id(array)]
    for name in ("k", "block", "max_score", "false_negative_margin", "normalize"):
        manifest[name] = getattr(args, name)
    return json.loads(json.dumps(manifest))


def _search_all(search: Search, args: argparse.Namespace, parts: Parts) -> None:
    """Search the blocks of queries that no part holds yet."""
    missing = parts.missing(search)
    if not missing:
        return
    bounds = _bounds(search, args)
    pace = Pace(search.name or "rows", len(search.queries), sum(p.stop - p.start for p in missing))
    for part in missing:
        found = _search_block(search, part, bounds, args, pace)
        kept = {name: values.cpu().numpy() for name, values in found._asdict().items()}
        parts.write(search, part, kept)
    pace.end()


def _bounds(search: Search, args: argparse.Namespace) -> NDArray[np.floating] | None:
    """Upper bounds of the scores, [N]; NaN and None: none."""
    bounds = None
    if args.false_negative_margin is not None:
        bounds = positive_scores(search, args.normalize) + args.false_negative_margin
    if args.max_score is not None:
        fixed = np.full(len(search.queries), args.max_score)
        bounds = fixed if bounds is None else np.fmin(bounds, fixed)
    return bounds


def _search_block(
    search: Search,
    part: slice,
    bounds: NDArray[np.floating] | None,
    args: argparse.Namespace,
    pace: Pace,
) -> MinedTopK:
    """The k best of the whole corpus for one block of queries."""
    device = choose_device(args.device)
    queries = _tensor(search.queries[part], device)
    query_ids = _tensor(search.query_ids[part], device)
    bound = None if bounds is None else _tensor(bounds[part], device)
    row_bytes = search.corpus.shape[1] * search.corpus.dtype.itemsize
    best: MinedTopK | None = None
    for span in cut(len(search.corpus), max(1, CORPUS_BYTES // row_bytes)):
        found = mine_top_k(
            queries,
            _tensor(search.corpus[span], device),
            args.k,
            query_ids=query_ids,
            corpus_ids=_tensor(search.corpus_ids[span], device),
            max_score=bound,
            normalize=args.normalize,
            precision="highest",
            backend=args.backend,
        )
        indices = torch.where(found.indices >= 0, found.indices + span.start, NO_INDEX)
        found = found._replace(indices=indices)
        best = found if best is None else joined(best, found)
        pace.add((part.stop - part.start) * (span.stop - span.start) / len(search.corpus))
    assert best is not None
    return best


def joined(before: MinedTopK, found: MinedTopK) -> MinedTopK:
    """The k best of both; the indices of `before` are lower."""
    k = before.scores.shape[1]
    counts = (before.counts + found.counts).clamp(max=k)
    scores = torch.cat([before.scores, found.scores], dim=1)
    indices = torch.cat([before.indices, found.indices], dim=1)
    # What is no candidate comes last, also behind candidates of -inf.
    real = (indices < 0).byte().sort(dim=1, stable=True).indices
    scores, indices = scores.gather(1, real), indices.gather(1, real)
    order = scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return MinedTopK(scores.gather(1, order), indices.gather(1, order), counts)


def _tensor(rows: NDArray[Any], device: torch.device) -> Tensor:
    """A copy: maps are read-only, and the bytes of a file may be in another order."""
    return torch.from_numpy(np.array(rows, dtype=rows.dtype.newbyteorder("="))).to(device)


class Pace:
    """How far a search is, how fast, and how long it will take, on standard error."""

    def __init__(self, name: str, total: int, left: int) -> None:
        self.name, self.total, self.left = name, total, left
        self.done, self.start, self.told = 0.0, time.monotonic(), 0.0
        self.watched = sys.stderr.isatty()
        if left < total:
            print(f"{name}: {total - left:,} of {total:,} queries kept", file=sys.stderr)

    def add(self, queries: float) -> None:
        """So many more queries are searched; tells it now and then."""
        self.done += queries
        now = time.monotonic() - self.start
        if now - self.told < (0.5 if self.watched else 30.0):
            return
        self.told = now
        rate = self.done / now
        rest = int((self.left - self.done) / rate)
        line = (
            f"{self.name}: {self.total - self.left + int(self.done):,} of {self.total:,} queries, "
            f"{rate:,.0f}/s, {rest // 3600}:{rest // 60 % 60:02d}:{rest % 60:02d} left"
        )
        end = "" if self.watched else "\n"
        print(f"\r\x1b[K{line}" if self.watched else line, end=end, file=sys.stderr, flush=True)

    def end(self) -> None:
        seconds = time.monotonic() - self.start
        start = "\r\x1b[K" if self.watched else ""
        rate = self.left / max(seconds, 1e-9)
        print(
            f"{start}{self.name}: {self.left:,} queries in {seconds:.1f} s, {rate:,.0f}/s",
            file=sys.stderr,
        )
