"""Losses that are a sum over anchors and single negatives: three products a step."""

from __future__ import annotations

import torch
from torch import Tensor

from goal_kernels.backends.candidates import NEGATIVE_INFINITY
from goal_kernels.weights import ordered_sum, wide
from goal_kernels.whole_batch.blocks import Batch, Gradients, Side
from goal_kernels.whole_batch.fused import fused_epilogues
from goal_kernels.whole_batch.kinds import Averaged, Pointwise, Relate, Siglip, Terms, softplus
from goal_kernels.whole_batch.products import logistic, pair_products, readable
from goal_kernels.whole_batch.relative import RelativeSums
from goal_kernels.whole_batch.sparse import Listed, Lister, add_listed


def run_pointwise(kind: Pointwise, batch: Batch, gradients: Gradients | None) -> Tensor:
    """The value of the loss, 0-d, summed over anchors; its gradients are added to `gradients`.

    Of this process's share, as the gradients are.
    """
    sums, lister = _Sums(kind, batch), Lister(kind, batch, exact=gradients is None)
    for part in lister.parts():
        found = lister.find(part)
        if found is not None:
            weight = sums.weigh_listed(found, part)
            if gradients is not None:
                own, gradient = lister.rows[part], gradients.rows[part]
                add_listed(own, lister.columns, found, weight, (gradient, gradients.columns))
                # The value is linear in similarities that have a weight: put the exact ones in.
                exact = wide(pair_products(own, gradient))
                sums.values += [ordered_sum(exact), -ordered_sum(wide(weight * found.similarity))]
            continue
        for block, tile in batch.blocks(part):
            sums.weigh_block(tile, block)
            if gradients is not None:
                gradients.add(block, tile)
    if gradients is not None:
        gradients.add_pairs(sums.of_pairs())
    return ordered_sum(torch.stack(sums.values))


class _Sums:
    """What a pass over the matrix adds up: values, and the pull on every pair."""

    def __init__(self, kind: Pointwise, batch: Batch) -> None:
        self.kind, self.batch = kind, batch
        self.fused = fused_epilogues(kind, batch)
        self.shares: list[Tensor | None] = [None] * len(batch.sides)
        if kind.mean:
            counts = (count_candidates(batch, side) for side in batch.sides)
            self.shares = [1.0 / count.clamp(min=1) for count in counts]
        objective = kind.objective if isinstance(kind, Averaged) else None
        self.relative = None
        if objective is not None and objective.pair_element.relative != "none":
            self.relative = RelativeSums(objective, batch)
        self.values = [wide(batch.positive.new_zeros(()))]
        self.pull = [torch.zeros_like(wide(side.positive)) for side in batch.sides]

    def of_pairs(self) -> Tensor:
        """Derivative by the similarity of each pair, [M]."""
        by_side = zip(self.batch.sides, self.pull, strict=True)
        pulls = [of_pairs(self.batch, side, pull) for side, pull in by_side]
        return -torch.stack(pulls).sum(dim=0)

    def _terms(
        self, positive: Tensor, negative: Tensor, share: Tensor | None, relate: Relate | None = None
    ) -> Terms:
        terms = self.kind.terms(positive, negative, relate)
        return terms if share is None else Terms(*(x * share for x in terms))

    def weigh_block(self, block: Tensor, part: slice) -> None:
        """Turn similarities [rows, N] into their weights, in place."""
        batch = self.batch
        if self.fused is None:
            for rows, piece in batch.pieces(part, block):
                self.weigh(piece, rows)
            return
        values, pulls = self.fused.weigh_pairs(part, block)
        self.values.append(wide(values).sum())
        for side, pull, more in zip(batch.sides, self.pull, pulls, strict=True):
            pull[0, side.place(part)] += wide(more).sum(dim=0)
        batch.count_active(block)

    def weigh(self, piece: Tensor, rows: slice) -> None:
        """The same of a piece of a block, in plain torch."""
        batch = self.batch
        batch.hide(piece, rows, batch.same(rows))
        total = None
        for number, (side, share, pull) in enumerate(
            zip(batch.sides, self.shares, self.pull, strict=True)
        ):
            negative = within_limits(batch, piece, rows, side)
            along = None if share is None else side.along(share, rows)
            for slot, positive in enumerate(side.positive):
                few = None
                if slot and piece.is_cpu:  # few images have so many texts
                    few = (side.pairs[slot] >= 0).nonzero()[:, 0]
                relate = None if self.relative is None else self.relative.between(number, rows, few)
                if few is not None:
                    part = None if along is None else along[:, few]
                    terms = self._terms(positive[few], negative[:, few], part, relate)
                    pull[slot, few] += wide(terms.pull.sum(dim=0))
                    assert total is not None
                    total.index_add_(1, few, terms.push)
                else:
                    terms = self._terms(side.along(positive, rows), negative, along, relate)
                    pull[slot, side.place(rows)] += wide(terms.pull.sum(dim=side.axis))
                    total = terms.push if total is None else total.add_(terms.push)
                self.values.append(wide(terms.value.sum(dim=1)).sum())
        assert total is not None
        batch.count_active(total)
        piece.copy_(total)

    def weigh_listed(self, found: Listed, part: slice) -> Tensor:
        """The weights of the elements of a list, [P]."""
        batch = self.batch
        total = torch.zeros_like(found.similarity)
        for side, share, pull in zip(batch.sides, self.shares, self.pull, strict=True):
            anchor = found.row + part.start if side.axis == 1 else found.column
            count = len(side.positive[0])
            negative = found.similarity
            if side.limit is not None:
                over = negative > side.limit[anchor]
                if side.axis == 0 and batch.question.exempt is not None:
                    over &= ~batch.question.exempt[part][found.row]
                batch.skipped[1 - side.axis] += torch.bincount(anchor[over], minlength=count)
                negative = negative.masked_fill(over, NEGATIVE_INFINITY)
            for slot, positive in enumerate(side.positive):
                along = None if share is None else share[anchor]
                terms = self._terms(positive[anchor], negative, along)
                self.values.append(ordered_sum(wide(terms.value)))
                pull[slot] += torch.bincount(anchor, wide(terms.pull), minlength=count)
                total += terms.push
        batch.count_active(total)
        return total


def within_limits(batch: Batch, piece: Tensor, rows: slice, side: Side) -> Tensor:
    """Similarities [rows, N] with -inf also where the limits of a side leave something out."""
    over = batch.over_limit(piece, rows, side)
    if over is None:
        return piece
    batch.count_skipped(over, rows, side)
    return piece.masked_fill(over, NEGATIVE_INFINITY)


def count_candidates(batch: Batch, side: Side) -> Tensor:
    """How many negatives each anchor of a side has, [anchors]."""
    count = batch.positive.new_zeros(side.positive.shape[1])
    for part, tile in batch.blocks(products=batch.question.limited):
        for rows, piece in batch.pieces(part, tile):
            batch.hide(piece, rows, batch.same(rows))
            over = batch.over_limit(piece, rows, side)
            left = piece != NEGATIVE_INFINITY
            if over is not None:
                left &= ~over
            count[side.place(rows)] += left.sum(dim=side.axis)
    return batch.share.add(count)


def of_pairs(batch: Batch, side: Side, values: Tensor) -> Tensor:
    """values [slots, anchors] of a side by the number of the pair, [M]; 0 for none."""
    result = values.new_zeros(len(batch.positive) + 1)
    number = torch.where(side.pairs < 0, len(batch.positive), side.pairs)
    result[number.flatten()] = torch.where(side.pairs < 0, 0.0, values).flatten()
    return result[:-1]


def _decide(logit: Tensor) -> Tensor:
    """Replace every z [rows, N] by its sigmoid. Returns: [rows], the sums of log(1 + exp z)."""
    if readable(logit):
        return logistic(logit)
    sums = wide(softplus(logit).sum(dim=1))
    logit.sigmoid_()
    return sums


def run_siglip(kind: Siglip, batch: Batch, gradients: Gradients | None) -> tuple[Tensor, Tensor]:
    """The value of the loss and its derivative by the bias, 0-d, of this process's share.

    `gradients` are those by scale S.
    """
    zero = wide(batch.positive.new_zeros(()))
    values, biases = [zero], [zero]
    fused = fused_epilogues(kind, batch)
    for part, tile in batch.blocks():
        if fused is not None:
            found = [fused.weigh_siglip(part, tile)]
        else:
            pieces, wanted = batch.pieces(part, tile), gradients is not None
            found = [_weigh_siglip(kind, batch, piece, rows, wanted) for rows, piece in pieces]
        batch.count_active(tile)
        for value, by_bias in found:
            values.append(wide(value).sum())
            biases.append(wide(by_bias).sum())
        if gradients is not None:
            gradients.add(part, tile)
    return ordered_sum(torch.stack(values)), ordered_sum(torch.stack(biases))


def _weigh_siglip(
    kind: Siglip, batch: Batch, piece: Tensor, rows: slice, wanted: bool
) -> tuple[Tensor, Tensor]:
    """Turn similarities [rows, N] into their weights, where these are wanted, in plain torch.

    Returns: values and derivatives by the bias, [rows].
    """
    same = batch.same(rows)
    hidden = None
    if batch.question.limited:
        hidden = torch.zeros_like(piece, dtype=torch.bool) if same is None else same.clone()
        batch.fill_own(hidden, rows, True)
    overs = [batch.over_limit(piece, rows, side, hidden) for side in batch.sides]
    logit = piece.mul_(kind.scale).add_(kind.bias)
    batch.negate_positives(logit, rows, same)
    for side, over in zip(batch.sides, overs, strict=True):
        if over is not None:
            batch.count_skipped(over, rows, side)
            logit.masked_fill_(over, NEGATIVE_INFINITY)
    values = _decide(logit)
    if not wanted:
        return values, torch.zeros_like(values)
    batch.negate_positives(logit, rows, same)
    return values, logit.sum(dim=1)
