"""The similarities of both directions, block by block, without what is no candidate.

Plain torch on any device. Rows are texts and columns are images, as in `rectangular.py`: every row
has one column at most that it belongs to. docs/derivation.md, section 12, has the equations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from goal_kernels.backends.base import Pairing
from goal_kernels.backends.gumbel import noise, words
from goal_kernels.pairs import cut, owned

SEGMENT = 64
"""Candidates of a segment: the largest of an anchor is looked for in one of them."""

PIECE = 1 << 16
"""Candidates whose random keys are made at a time on a CPU."""

NEGATIVE_INFINITY = float("-inf")

HARDEST, SEMI_HARD, SKIP_HARDEST = "hardest", "semi_hard", "skip_hardest"
TOP_K, SAMPLED = "top_k", "sampled"


class Selection(NamedTuple):
    """Which candidates become negatives.

    kind: one of the words above. size: how many of the hardest SKIP_HARDEST skips or TOP_K takes.
    temperature, seed: of SAMPLED. margin, ratio: candidates with S > p + margin or S > ratio p are
    left out as false negatives; infinity: none are. first_row, first_column: numbers of the first
    row and column in the batch that they are a part of, for SAMPLED.
    """

    kind: str = HARDEST
    size: int = 1
    temperature: float = 1.0
    seed: int = 0
    margin: float = math.inf
    ratio: float = math.inf
    first_row: int = 0
    first_column: int = 0

    @property
    def slots(self) -> int:
        """k, the negatives of an anchor."""
        return self.size if self.kind == TOP_K else 1

    @property
    def kept(self) -> int:
        """How many of the hardest have to be known to find them."""
        return self.size + 1 if self.kind == SKIP_HARDEST else self.slots

    def numbered(self, first_row: int, first_column: int) -> Selection:
        """The same of a part of the batch, where the numbers make a difference."""
        if self.kind != SAMPLED:
            return self
        return self._replace(first_row=first_row, first_column=first_column)


PLAIN = Selection()
"""The hardest of all candidates, which every backend finds by itself (`Backend.search`)."""


Scores = Callable[[slice, Tensor], object]
"""Writes the similarities of a slice of rows and all columns into a tensor [rows, N]."""


class _Limits(NamedTuple):
    """Largest similarity that a candidate of each anchor may have, [A]: two reasons.

    The limit of false negatives does not apply to exempt candidates.
    """

    false_negative: Tensor
    too_hard: Tensor

    def of(self, part: slice) -> _Limits:
        """Those of some anchors."""
        return _Limits(self.false_negative[part], self.too_hard[part])


class Candidates:
    """The similarities of both directions, block by block, without what is no candidate."""

    def __init__(
        self,
        scores: Scores,
        positive: Tensor,
        columns: int,
        pairing: Pairing,
        exempt: Tensor | None,
        selection: Selection,
        block: int,
    ) -> None:
        assert pairing.target is not None
        self.scores, self.columns, self.pairing = scores, columns, pairing
        self.exempt, self.selection, self.block = exempt, selection, block
        self.rows = len(positive)
        self.limited = selection.kind == SEMI_HARD or not (
            selection.margin == selection.ratio == math.inf
        )
        height = min(block, self.rows)
        self.of_rows = positive.new_empty(height, whole_segments(columns))
        self.of_columns = positive.new_empty(columns, whole_segments(height))
        self.limits = [
            self._limits(positive, positive),
            self._limits(
                _of_columns(positive, pairing.target, columns, "amax"),
                _of_columns(positive, pairing.target, columns, "amin"),
            ),
        ]

    def parts(self) -> list[slice]:
        """The blocks."""
        return cut(self.rows, self.block)

    def _limits(self, highest: Tensor, lowest: Tensor) -> _Limits:
        """From the highest and lowest positive of each anchor; without one nothing is left out."""
        selection = self.selection
        limit = false_negative_limit(highest, selection.margin, selection.ratio)
        free = below = torch.full_like(highest, math.inf)
        if selection.kind == SEMI_HARD:
            below = torch.nextafter(lowest, torch.full_like(lowest, NEGATIVE_INFINITY))
            below = torch.where(highest == NEGATIVE_INFINITY, free, below)
        return _Limits(limit, below)

    def of(self, part: slice) -> list[tuple[Tensor, Tensor]]:
        """For both directions similarities [anchors, candidates], -inf where there is no candidate.

        They are buffers, padded to whole segments, which the next call overwrites. A candidate of
        -inf has the smallest finite number. Beside them the number of candidates of each anchor
        that the limits left out.
        """
        size = part.stop - part.start
        padded = self.of_rows[:size]
        tile = padded[:, : self.columns]
        self.scores(part, tile)
        padded[:, self.columns :] = NEGATIVE_INFINITY
        tile.clamp_(min=torch.finfo(tile.dtype).min)
        exclude(tile, part, self.pairing)
        turned = self.of_columns[:, : whole_segments(size)]
        turned[:, :size] = tile.T
        turned[:, size:] = NEGATIVE_INFINITY
        exempt = None if self.exempt is None else self.exempt[part]
        return [
            (padded, self._limit(padded, self.limits[0].of(part), None)),
            (turned, self._limit(turned, self.limits[1], exempt)),
        ]

    def _limit(self, tile: Tensor, limits: _Limits, exempt: Tensor | None) -> Tensor:
        """Leave out what is above the limits, in place. Returns: how many of each anchor. [A]"""
        skipped = torch.zeros(len(tile), dtype=torch.int64, device=tile.device)
        if not self.limited:
            return skipped
        most = torch.minimum(limits.false_negative, limits.too_hard)
        # Usually few anchors lose a candidate; but to ask which would be to wait for a GPU.
        places = (~(tile.amax(dim=1) <= most)).nonzero()[:, 0] if tile.is_cpu else None
        part = tile if places is None else tile[places]
        if places is not None:
            limits = _Limits(limits.false_negative[places], limits.too_hard[places])
        over = part > limits.false_negative[:, None]
        if exempt is not None:
            over[:, : len(exempt)] &= ~exempt
        over |= part > limits.too_hard[:, None]
        if places is None:
            tile.masked_fill_(over, NEGATIVE_INFINITY)
            return over.sum(dim=1)
        tile[places] = part.masked_fill_(over, NEGATIVE_INFINITY)
        return skipped.index_copy_(0, places, over.sum(dim=1))

    def keys(self, candidates: Tensor, part: slice, direction: int) -> Tensor:
        """What decides which candidates are taken: their similarities, or random keys."""
        selection = self.selection
        if selection.kind != SAMPLED:
            return candidates
        own, others = self.words(candidates, part, direction)
        # In pieces that stay in a processor's cache, which a dozen passes over them need.
        step = max(1, PIECE // candidates.shape[1]) if candidates.is_cpu else len(candidates)
        parts = []
        for rows, word in zip(candidates.split(step), own.split(step), strict=True):
            added = noise(word[:, None] + others)
            parts.append(rows.to(added.dtype).div(selection.temperature).add_(added))
        return torch.cat(parts)

    def words(self, candidates: Tensor, part: slice, direction: int) -> tuple[Tensor, Tensor]:
        """Those of the anchors [A] and of their candidates [C], of which SAMPLED makes its noise.

        Also for what pads a block, which is no candidate.
        """
        selection, device = self.selection, candidates.device
        counts = candidates.shape if direction == 1 else candidates.shape[::-1]
        image = torch.arange(counts[0], device=device) + selection.first_column
        text = torch.arange(counts[1], device=device) + part.start + selection.first_row
        both = words(image, text, direction, selection.seed)
        return both if direction == 1 else both[::-1]


def exclude(score: Tensor, part: slice, pairing: Pairing) -> None:
    """Write -inf over the positives of the rows `part`, and over equal ids. score: [rows, M]."""
    columns, device = score.shape[1], score.device
    target = pairing.target
    if target is None:
        target = torch.arange(part.start, part.stop, device=device)
    else:
        target = target[part]
    exists = owned(target, columns)[:, None]
    own = target.clamp(0, columns - 1)[:, None]
    score.scatter_(1, own, score.gather(1, own).masked_fill(exists, NEGATIVE_INFINITY))
    if pairing.image_ids is not None and pairing.text_ids is not None:
        same = pairing.image_ids[part, None] == pairing.text_ids
        score.masked_fill_(same, NEGATIVE_INFINITY)


def false_negative_limit(highest: Tensor, margin: float, ratio: float) -> Tensor:
    """Largest similarity of a candidate that is no false negative, [A]; see `Selection`.

    Args: highest: [A], of each anchor's positives; -inf where it has none: nothing is left out.
    """
    limit = free = torch.full_like(highest, math.inf)
    if margin != math.inf:
        limit = torch.minimum(limit, highest + margin)
    if ratio != math.inf:
        limit = torch.minimum(limit, highest * ratio)
    return torch.where(highest == NEGATIVE_INFINITY, free, limit)


def _of_columns(positive: Tensor, target: Tensor, columns: int, reduce: str) -> Tensor:
    """Highest ("amax") or lowest ("amin") positive of each column, -inf where it has none. [N]"""
    exists = owned(target, columns)
    start = NEGATIVE_INFINITY if reduce == "amax" else math.inf
    value = torch.where(exists, positive, start)
    none = positive.new_full((columns,), start)
    best = none.scatter_reduce(0, target.clamp(0, columns - 1), value, reduce)
    return torch.where(best == math.inf, NEGATIVE_INFINITY, best) if reduce == "amin" else best


def whole_segments(count: int) -> int:
    return -(-count // SEGMENT) * SEGMENT
