"""Negatives other than the hardest: which of the candidates are taken.

Plain torch on any device, in blocks of rows of the similarity matrix, like the `chunked` backend;
the `reference` backend takes the matrix in one block, and `cpu` draws SAMPLED natively. Rows are
texts and columns are images.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from goal_kernels import native
from goal_kernels.backends.arguments import DTYPES, addresses, matrix_argument
from goal_kernels.backends.base import Pairing, RelativeQuery
from goal_kernels.backends.candidates import (
    NEGATIVE_INFINITY,
    SAMPLED,
    SEGMENT,
    Candidates,
    Scores,
    Selection,
)
from goal_kernels.constants import NO_INDEX

BLOCK = 512
"""Rows of a block, as in `chunked`."""


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


def select(
    scores: Scores,
    positive: Tensor,
    columns: int,
    pairing: Pairing,
    exempt: Tensor | None,
    relative: RelativeQuery,
    selection: Selection,
    block: int = BLOCK,
    natively: bool = False,
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
        natively: whether the native module may draw, on a CPU that has it.
    """
    plan = Candidates(scores, positive, columns, pairing, exempt, selection, block)
    keep, slots = selection.kept, selection.slots
    drawing = natively and selection.kind == SAMPLED and positive.is_cpu and native.status()[0]
    row_picks, row_skipped = [], []
    column_pick = _Pick.nothing(keep, columns, positive)
    column_skipped = torch.zeros(columns, dtype=torch.int64, device=positive.device)
    for part in plan.parts():
        for direction, (candidates, skipped) in enumerate(plan.of(part)):
            if drawing:
                words = plan.words(candidates, part, direction)
                pick = _draw(candidates, words, selection.temperature)
            else:
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
        return cls(none, none, torch.full_like(none, NO_INDEX, dtype=torch.int64))

    @classmethod
    def of(cls, key: Tensor, place: Tensor, value: Tensor) -> _Pick:
        """From what may be none, by its key, and similarities of which the lowest is -inf."""
        none = key == NEGATIVE_INFINITY
        lowest = value == torch.finfo(value.dtype).min
        value = value.masked_fill(none | lowest, NEGATIVE_INFINITY)
        return cls(key, value, place.masked_fill(none, NO_INDEX))

    def moved(self, start: int) -> _Pick:
        """With places that count from `start` on."""
        return self._replace(place=torch.where(self.place >= 0, self.place + start, NO_INDEX))

    def joined(self, other: _Pick, kept: int) -> _Pick:
        """The first of both; on ties those of `self`."""
        key = torch.cat([self.key, other.key])
        order = key.sort(dim=0, descending=True, stable=True).indices[:kept]
        value, place = torch.cat([self.value, other.value]), torch.cat([self.place, other.place])
        return _Pick(*(x.gather(0, order) for x in (key, value, place)))


def _take(key: Tensor, candidates: Tensor, keep: int) -> _Pick:
    """The first `keep` by key of every anchor, the lowest place on ties.

    Args: key, candidates: [anchors, C], C a multiple of SEGMENT; key is used up. Candidates of -inf
        are none and have a key of -inf.
    """
    anchors = len(key)
    segments = key.unflatten(1, (-1, SEGMENT))
    largest = segments.amax(dim=2)
    taken = []
    for slot in range(keep):
        value, segment = largest.max(dim=1, keepdim=True)
        where = segment[:, :, None].expand(-1, 1, SEGMENT)
        place = segment * SEGMENT + segments.gather(1, where)[:, 0].max(dim=1, keepdim=True).indices
        taken.append((value, place))
        if slot + 1 < keep:
            key.scatter_(1, place, NEGATIVE_INFINITY)
            rest = segments.gather(1, where)[:, 0].amax(dim=1, keepdim=True)
            largest.scatter_(1, segment, rest)
    keys, places = (torch.stack(x).view(keep, anchors) for x in zip(*taken, strict=True))
    values = keys if key is candidates else candidates.gather(1, places.T).T
    return _Pick.of(keys, places, values)


def _draw(candidates: Tensor, words: tuple[Tensor, Tensor], temperature: float) -> _Pick:
    """What `_take` finds of the keys of SAMPLED, natively: csrc/cpu/sample.h makes few keys.

    Args: candidates: [anchors, C]. words: of both, see `gumbel.words`.
    """
    key = candidates.new_empty((1, len(candidates)), dtype=torch.float64)
    place = torch.empty_like(key, dtype=torch.int64)
    native.load().sample(
        DTYPES[candidates.dtype],
        matrix_argument(candidates),
        candidates.shape[1],
        addresses(*words),
        temperature,
        addresses(key, place),
        torch.get_num_threads(),
    )
    return _Pick.of(key, place, candidates.gather(1, place.clamp(min=0).T).T)


def _relative_sums(
    plan: Candidates, picks: tuple[_Pick, _Pick], relative: RelativeQuery
) -> list[tuple[Tensor, Tensor]]:
    """The sums behind R- for every negative that was taken: a second pass over the blocks."""
    slots = plan.selection.slots
    rows: list[list[Tensor]] = []
    first = picks[1].value[-slots:]
    total = torch.zeros_like(first)
    count = torch.zeros_like(first, dtype=torch.int64)
    for part in plan.parts():
        (own, _), (other, _) = plan.of(part)
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
        candidates: [anchors, C], as `Candidates.of` gives them.
        value, place: [kept, anchors]; all but the last `slots` were skipped and do not count.
    """
    passed_over = place[:-slots]
    for skipped in passed_over:
        index = skipped.clamp(min=0)[:, None]
        kept = candidates.gather(1, index).masked_fill((skipped >= 0)[:, None], NEGATIVE_INFINITY)
        candidates.scatter_(1, index, kept)
    # What is no candidate is below every threshold but -inf.
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
            term = gap.mul_(-relative.beta).exp_()
        over &= (negative != NEGATIVE_INFINITY)[:, None]
        totals.append(torch.where(over, term, 0.0).sum(dim=1))
        counts.append(over.sum(dim=1))
    return [torch.stack(totals), torch.stack(counts)]
