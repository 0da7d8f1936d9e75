"""Negatives other than the hardest: which candidates count, and which of them are taken.

Plain torch on any device, in blocks of rows of the similarity matrix, like the `chunked` backend;
the `reference` backend takes the matrix in one block. Rows are texts and columns are images, as in
`rectangular.py`: every row has one column at most that it belongs to. docs/derivation.md, section
12, has the equations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from goal_kernels.backends.base import Pairing, RelativeQuery
from goal_kernels.backends.gumbel import gumbel
from goal_kernels.constants import NO_INDEX
from goal_kernels.pairs import owned

BLOCK = 512
"""Rows of a block, as in `chunked`."""

SEGMENT = 64
"""Candidates of a segment: the largest of an anchor is looked for in one of them."""

NEGATIVE_INFINITY = float("-inf")

HARDEST, SEMI_HARD, SKIP_HARDEST = "hardest", "semi_hard", "skip_hardest"
TOP_K, SAMPLED = "top_k", "sampled"


class Selection(NamedTuple):
    """Which candidates become negatives.

    kind: one of the words above. size: how many of the hardest SKIP_HARDEST skips or TOP_K takes.
    temperature, seed: of SAMPLED. margin, ratio: candidates with S > p + margin or S > ratio p are
    left out as false negatives; infinity: none are.
    """

    kind: str = HARDEST
    size: int = 1
    temperature: float = 1.0
    seed: int = 0
    margin: float = math.inf
    ratio: float = math.inf

    @property
    def slots(self) -> int:
        """k, the negatives of an anchor."""
        return self.size if self.kind == TOP_K else 1

    @property
    def kept(self) -> int:
        """How many of the hardest have to be known to find them."""
        return self.size + 1 if self.kind == SKIP_HARDEST else self.slots


PLAIN = Selection()
"""The hardest of all candidates, which every backend finds by itself (`Backend.search`)."""


class Chosen(NamedTuple):
    """The negatives of A anchors, hardest first.

    value, place: [k, A], -inf and -1 where there are fewer. total, number: [k, A], the relative
    sums of `Mined` for each of them, [k, 0] when none were asked for. skipped: int64 [A],
    candidates that were left out as false negatives, or as too hard (SEMI_HARD).
    """

    value: Tensor
    place: Tensor
    total: Tensor
    number: Tensor
    skipped: Tensor


Scores = Callable[[slice], Tensor]
"""Similarities of a slice of rows and all columns, a tensor of its own: [rows, N]."""


class _Limits(NamedTuple):
    """Largest similarity that a candidate of each anchor may have, [A]: two reasons.

    The limit of false negatives does not apply to exempt candidates.
    """

    false_negative: Tensor
    too_hard: Tensor

    def of(self, part: slice) -> _Limits:
        """Those of some anchors."""
        return _Limits(self.false_negative[part], self.too_hard[part])


def select(
    scores: Scores,
    positive: Tensor,
    columns: int,
    pairing: Pairing,
    exempt: Tensor | None,
    relative: RelativeQuery,
    selection: Selection,
    block: int = BLOCK,
) -> tuple[Chosen, Chosen]:
    """The negatives of the rows among the columns, and of the columns among the rows.

    Args:
        scores: see `Scores`.
        positive: [M], similarity of each row and its column, -inf where it has none.
        columns: N.
        pairing: `target` [M] is the column of each row.
        exempt: bool [M], rows that are never left out as false negatives; None: none.
        relative: the relative sums that are wanted.
        block: rows of the matrix that are held at a time.
    """
    plan = _Plan(scores, positive, columns, pairing, exempt, selection, block)
    keep, slots = selection.kept, selection.slots
    row_picks, row_skipped = [], []
    column_pick = _Pick.nothing(keep, columns, positive)
    column_skipped = torch.zeros(columns, dtype=torch.int64, device=positive.device)
    for part in plan.parts():
        for direction, (candidates, skipped) in enumerate(plan.candidates(part)):
            pick = _take(plan.keys(candidates, part, direction), candidates, keep)
            if direction == 0:
                row_picks.append(pick)
                row_skipped.append(skipped)
            else:
                column_pick = column_pick.joined(pick.moved(part.start), keep)
                column_skipped += skipped
    picks = _Pick(*(torch.cat(x, dim=1) for x in zip(*row_picks, strict=True))), column_pick
    totals = [(x.value.new_empty(slots, 0), x.place.new_empty(slots, 0)) for x in picks]
    if relative.kind != "none":
        totals = _relative_sums(plan, picks, relative)
    skips = torch.cat(row_skipped), column_skipped
    rows, cols = (
        Chosen(pick.value[-slots:], pick.place[-slots:], *total, skipped)
        for pick, total, skipped in zip(picks, totals, skips, strict=True)
    )
    return rows, cols


class _Pick(NamedTuple):
    """The first few candidates of A anchors by key, each [kept, A]; -inf, -inf and -1: none."""

    key: Tensor
    value: Tensor
    place: Tensor

    @classmethod
    def nothing(cls, kept: int, anchors: int, like: Tensor) -> _Pick:
        """No candidates yet."""
        none = like.new_full((kept, anchors), NEGATIVE_INFINITY)
        place = torch.full_like(none, NO_INDEX, dtype=torch.int64)
        return cls(none.to(like.dtype), none, place)

    def moved(self, start: int) -> _Pick:
        """With places that count from `start` on."""
        return self._replace(place=torch.where(self.place >= 0, self.place + start, NO_INDEX))

    def joined(self, other: _Pick, kept: int) -> _Pick:
        """The first of both; on ties those of `self`."""
        key = torch.cat([self.key, other.key])
        order = key.sort(dim=0, descending=True, stable=True).indices[:kept]
        value, place = torch.cat([self.value, other.value]), torch.cat([self.place, other.place])
        return _Pick(*(x.gather(0, order) for x in (key, value, place)))


class _Plan:
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
        self.rows, self.target = len(positive), pairing.target
        self.limits = [
            self._limits(positive, positive),
            self._limits(
                _of_columns(positive, self.target, columns, "amax"),
                _of_columns(positive, self.target, columns, "amin"),
            ),
        ]

    def parts(self) -> list[slice]:
        """The blocks."""
        starts = range(0, self.rows, self.block)
        return [slice(start, min(start + self.block, self.rows)) for start in starts]

    def _limits(self, highest: Tensor, lowest: Tensor) -> _Limits:
        """From the highest and lowest positive of each anchor; without one nothing is left out."""
        free = torch.full_like(highest, math.inf)
        selection = self.selection
        limit = free
        if selection.margin != math.inf:
            limit = torch.minimum(limit, highest + selection.margin)
        if selection.ratio != math.inf:
            limit = torch.minimum(limit, highest * selection.ratio)
        limit = torch.where(highest == NEGATIVE_INFINITY, free, limit)
        below = free
        if selection.kind == SEMI_HARD:
            below = torch.nextafter(lowest, torch.full_like(lowest, NEGATIVE_INFINITY))
            below = torch.where(highest == NEGATIVE_INFINITY, free, below)
        return _Limits(limit, below)

    def candidates(self, part: slice) -> list[tuple[Tensor, Tensor]]:
        """For both directions similarities [anchors, candidates], -inf where there is no candidate.

        A candidate of -inf has the smallest finite number. Beside them the number of candidates of
        each anchor that the limits left out.
        """
        tile = self.scores(part)
        tile = tile.clamp_(min=torch.finfo(tile.dtype).min)
        target = self.target[part]
        exists = owned(target, self.columns)[:, None]
        own = target.clamp(0, self.columns - 1)[:, None]
        tile.scatter_(1, own, tile.gather(1, own).masked_fill(exists, NEGATIVE_INFINITY))
        row_ids, column_ids = self.pairing.image_ids, self.pairing.text_ids
        if row_ids is not None and column_ids is not None:
            tile.masked_fill_(row_ids[part, None] == column_ids, NEGATIVE_INFINITY)
        exempt = None if self.exempt is None else self.exempt[part]
        return [
            self._within(tile.clone(), self.limits[0].of(part), None),
            self._within(tile.T.contiguous(), self.limits[1], exempt),
        ]

    def _within(
        self, tile: Tensor, limits: _Limits, exempt: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Leave out what is above the limits, in place, and count it."""
        over = tile > limits.false_negative[:, None]
        if exempt is not None:
            over &= ~exempt
        over |= tile > limits.too_hard[:, None]
        return tile.masked_fill_(over, NEGATIVE_INFINITY), over.sum(dim=1)

    def keys(self, candidates: Tensor, part: slice, direction: int) -> Tensor:
        """What decides which candidates are taken: their similarities, or random keys."""
        selection = self.selection
        if selection.kind != SAMPLED:
            return candidates
        device = candidates.device
        image = torch.arange(self.columns, device=device)
        text = torch.arange(part.start, part.stop, device=device)
        first, second = (text[:, None], image) if direction == 0 else (text, image[:, None])
        noise = gumbel(second, first, direction, selection.seed)
        return candidates.to(noise.dtype) / selection.temperature + noise


def _of_columns(positive: Tensor, target: Tensor, columns: int, reduce: str) -> Tensor:
    """Highest ("amax") or lowest ("amin") positive of each column, -inf where it has none. [N]"""
    exists = owned(target, columns)
    start = NEGATIVE_INFINITY if reduce == "amax" else math.inf
    value = torch.where(exists, positive, start)
    none = positive.new_full((columns,), start)
    best = none.scatter_reduce(0, target.clamp(0, columns - 1), value, reduce)
    return torch.where(best == math.inf, NEGATIVE_INFINITY, best) if reduce == "amin" else best


def _take(key: Tensor, candidates: Tensor, keep: int) -> _Pick:
    """The first `keep` by key of every anchor, the lowest place on ties.

    Args: key, candidates: [anchors, C]; candidates of -inf are none.
    """
    anchors, count = key.shape
    width = -(-count // SEGMENT) * SEGMENT
    work = key.new_full((anchors, width), NEGATIVE_INFINITY)
    work[:, :count] = key.masked_fill(candidates == NEGATIVE_INFINITY, NEGATIVE_INFINITY)
    segments = work.view(anchors, -1, SEGMENT)
    largest = segments.amax(dim=2)
    keys, places = [], []
    for _ in range(keep):
        value, segment = largest.max(dim=1, keepdim=True)
        inside = segments.gather(1, segment[:, :, None].expand(-1, 1, SEGMENT))[:, 0]
        place = segment * SEGMENT + inside.max(dim=1, keepdim=True).indices
        keys.append(value[:, 0])
        places.append(torch.where(value == NEGATIVE_INFINITY, NO_INDEX, place)[:, 0])
        work.scatter_(1, place, NEGATIVE_INFINITY)
        rest = segments.gather(1, segment[:, :, None].expand(-1, 1, SEGMENT))[:, 0]
        largest.scatter_(1, segment, rest.amax(dim=1, keepdim=True))
    place = torch.stack(places)
    value = candidates.gather(1, place.T.clamp(min=0)).T
    lowest = torch.finfo(value.dtype).min  # a similarity of -inf
    value = torch.where((place < 0) | (value == lowest), NEGATIVE_INFINITY, value)
    return _Pick(torch.stack(keys), value, place)


def _relative_sums(
    plan: _Plan, picks: tuple[_Pick, _Pick], relative: RelativeQuery
) -> list[tuple[Tensor, Tensor]]:
    """The sums behind R- for every negative that was taken: a second pass over the blocks."""
    slots = plan.selection.slots
    rows: list[list[Tensor]] = []
    first = picks[1].value[-slots:]
    total = torch.zeros_like(first)
    count = torch.zeros_like(first, dtype=torch.int64)
    for part in plan.parts():
        (own, _), (other, _) = plan.candidates(part)
        pick = _Pick(*(x[:, part] for x in picks[0]))
        rows.append(_sums(own, pick.value, pick.place, slots, relative))
        place = picks[1].place - part.start
        place = torch.where((place >= 0) & (place < part.stop - part.start), place, NO_INDEX)
        more, number = _sums(other, picks[1].value, place, slots, relative)
        total, count = total + more, count + number
    joined = [torch.cat(x, dim=1) for x in zip(*rows, strict=True)]
    return [(joined[0], joined[1]), (total, count)]


def _sums(
    candidates: Tensor, value: Tensor, place: Tensor, slots: int, relative: RelativeQuery
) -> list[Tensor]:
    """Relative sums of one block: total and count, each [slots, anchors].

    Args:
        candidates: [anchors, C], as `_Plan.candidates` gives them.
        value, place: [kept, anchors]; all but the last `slots` were skipped and do not count.
    """
    passed_over = place[:-slots]
    for skipped in passed_over:
        index = skipped.clamp(min=0)[:, None]
        kept = candidates.gather(1, index).masked_fill((skipped >= 0)[:, None], NEGATIVE_INFINITY)
        candidates.scatter_(1, index, kept)
    counted = (candidates >= relative.threshold) & (candidates != NEGATIVE_INFINITY)
    totals, counts = [], []
    for negative, own in zip(value[-slots:], place[-slots:], strict=True):
        gap = negative[:, None] - candidates
        if relative.kind == "linear":
            over = counted & ((gap > 0) | (gap < 0))
            term = gap
        else:
            index = own.clamp(min=0)[:, None]
            is_own = (own >= 0)[:, None]
            over = counted.scatter(1, index, counted.gather(1, index) & ~is_own)
            term = torch.exp(-relative.beta * gap)
        over = over & (negative != NEGATIVE_INFINITY)[:, None]
        totals.append(torch.where(over, term, 0.0).sum(dim=1))
        counts.append(over.sum(dim=1))
    return [torch.stack(totals), torch.stack(counts)]
