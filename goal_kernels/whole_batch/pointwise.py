"""Losses that are a sum over anchors and single negatives: three products a step."""

from __future__ import annotations

import torch
from torch import Tensor

from goal_kernels.weights import ordered_sum, wide
from goal_kernels.whole_batch.blocks import Batch, Gradients, Side
from goal_kernels.whole_batch.kinds import NEGATIVE_INFINITY, Pointwise, Siglip, Terms, softplus


def run_pointwise(kind: Pointwise, batch: Batch, gradients: Gradients | None) -> Tensor:
    """The value of the loss, 0-d, summed over anchors; its gradients are added to `gradients`."""
    shares = [1.0 / count_candidates(batch, side).clamp(min=1) for side in batch.sides * kind.mean]
    values: list[Tensor] = []
    pull = [torch.zeros_like(wide(side.positive)) for side in batch.sides]
    for part, tile in batch.blocks():
        for rows, piece in batch.pieces(part, tile):
            batch.hide(piece, rows, batch.same(rows))
            total = None
            for number, side in enumerate(batch.sides):
                negative = within_limits(batch, piece, rows, side)
                for slot, positive in enumerate(side.positive):
                    terms = kind.terms(side.along(positive, rows), negative)
                    if kind.mean:
                        share = side.along(shares[number], rows)
                        terms = Terms(*(x * share for x in terms))
                    values.append(wide(terms.value.sum(dim=1)).sum())
                    pulled = wide(terms.pull.sum(dim=side.axis))
                    pull[number][slot, side.place(rows)] += pulled
                    total = terms.push if total is None else total.add_(terms.push)
            assert total is not None
            batch.count_active(total)
            piece.copy_(total)
        if gradients is not None:
            gradients.add(part, tile)
    if gradients is not None:
        by_side = zip(batch.sides, pull, strict=True)
        pulls = torch.stack([of_pairs(batch, side, x) for side, x in by_side])
        gradients.add_pairs(-pulls.sum(dim=0))
    return ordered_sum(torch.stack(values))


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
    return count


def of_pairs(batch: Batch, side: Side, values: Tensor) -> Tensor:
    """values [slots, anchors] of a side by the number of the pair, [M]; 0 for none."""
    result = values.new_zeros(len(batch.positive) + 1)
    number = torch.where(side.pairs < 0, len(batch.positive), side.pairs)
    result[number.flatten()] = torch.where(side.pairs < 0, 0.0, values).flatten()
    return result[:-1]


def run_siglip(kind: Siglip, batch: Batch, gradients: Gradients | None) -> tuple[Tensor, Tensor]:
    """The value of the loss and its derivative by the bias, 0-d.

    `gradients` are those by scale S.
    """
    values, biases = [], []
    for part, tile in batch.blocks():
        for rows, piece in batch.pieces(part, tile):
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
            values.append(wide(softplus(logit).sum(dim=1)).sum())
            if gradients is None:
                continue
            weight = logit.sigmoid_()
            batch.negate_positives(weight, rows, same)
            batch.count_active(weight)
            biases.append(wide(weight.sum(dim=1)).sum())
        if gradients is not None:
            gradients.add(part, tile)
    total = ordered_sum(torch.stack(values))
    return total, ordered_sum(torch.stack(biases)) if biases else torch.zeros_like(total)
