"""A miner and a GOAL loss by the arguments of pytorch-metric-learning.

Embeddings [N, D] with labels [N] are the anchors; they look for positives (equal labels) and
negatives among themselves, or among ref_emb [M, D] with ref_labels [M].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from goal_kernels import ops
from goal_kernels.backends.answers import Found
from goal_kernels.backends.base import Pairing, SearchQuery, accumulate_dtype
from goal_kernels.checks import check_embeddings, check_index_vector
from goal_kernels.constants import BETA, EPSILON, RESCORE_ELEMENTS
from goal_kernels.directions import makes_a_difference
from goal_kernels.functional import choose_backend
from goal_kernels.objective import Objective, as_objective
from goal_kernels.weights import Anchors, weigh_anchors

Triplets = tuple[Tensor, Tensor, Tensor]
"""Anchors, positives and negatives, int64 [T] each; the last two are rows of ref_emb if given."""


class _Batch(NamedTuple):
    """rows [N, D] and others [M, D] to be compared by inner products; labels [N] and [M]."""

    rows: Tensor
    others: Tensor
    labels: Tensor | None
    other_labels: Tensor | None


def _read(
    embeddings: Tensor,
    labels: Tensor | None,
    ref_emb: Tensor | None,
    ref_labels: Tensor | None,
    normalize: bool,
) -> _Batch:
    """Check the arguments. Without references the rows are their own. Raises: as `goal_loss`."""
    alone = ref_emb is None
    names = ("embeddings", "ref_emb")
    rows, others = check_embeddings(embeddings, embeddings if ref_emb is None else ref_emb, names)
    if labels is not None:
        labels = check_index_vector("labels", labels.to(rows.device), len(rows), rows.device)
    if alone:
        ref_labels = labels
    elif ref_labels is not None:
        place = rows.device
        ref_labels = check_index_vector("ref_labels", ref_labels.to(place), len(others), place)
    if normalize:
        rows = F.normalize(rows)
        others = rows if alone else F.normalize(others)
    return _Batch(rows, rows if alone else others, labels, ref_labels)


def _similarity(rows: Tensor, others: Tensor) -> Tensor:
    """Inner products over the last dimension, in the accumulate dtype."""
    dtype = accumulate_dtype(rows.dtype)
    return (rows.to(dtype) * others.to(dtype)).sum(dim=-1)


def _hardest_positive(batch: _Batch) -> Tensor:
    """The least similar row of `others` with the label of each row, the first of equals; [N].

    -1 where there is none. O(N G D) for at most G rows of a label, without the matrix [N, M].
    """
    rows, others, labels, other_labels = batch
    assert labels is not None
    assert other_labels is not None
    by_label = other_labels.argsort(stable=True)
    grouped = other_labels[by_label]
    first = torch.searchsorted(grouped, labels)
    count = torch.searchsorted(grouped, labels, right=True) - first
    most = int(count.max()) if len(count) else 0
    found = torch.full((len(rows),), -1, dtype=torch.int64, device=rows.device)
    step = max(1, RESCORE_ELEMENTS // max(1, most * rows.shape[1]))
    for start in range(0, len(rows) if most else 0, step):
        part = slice(start, start + step)
        slot = torch.arange(most, device=rows.device)
        place = by_label[(first[part, None] + slot).clamp(max=len(others) - 1)]
        allowed = slot < count[part, None]
        if others is rows:  # no anchor is its own positive
            allowed &= place != torch.arange(len(rows), device=rows.device)[part, None]
        score = _similarity(rows[part, None], others[place]).masked_fill(~allowed, torch.inf)
        chosen = place.gather(1, score.argmin(dim=1, keepdim=True))[:, 0]
        found[part] = torch.where(allowed.any(dim=1), chosen, -1)
    return found


NO_SUMS = ("none", EPSILON, BETA)


@torch.no_grad()
def _mine(
    batch: _Batch, sums: tuple[str, float, float], precision: str | None, backend: str
) -> tuple[Triplets, Found]:
    """Hardest positive and negative of every anchor that has both, and what the search found.

    sums: relative, epsilon and beta of `SearchQuery`.
    """
    if batch.labels is None or batch.other_labels is None:
        raise ValueError(
            "labels: expected the classes of embeddings and of ref_emb, got None; give labels and "
            "ref_labels, or the triplets of a miner as indices_tuple."
        )
    rows, others = batch.rows.detach(), batch.others.detach()
    name, precision = choose_backend(backend, rows.device.type, rows.dtype, precision)
    target = _hardest_positive(batch)
    pairing = Pairing(target, batch.labels, batch.other_labels)
    found = ops.search(name, rows, others, pairing, SearchQuery(*sums, False, precision))
    negative = found.mined.row_index
    anchors = ((target >= 0) & (negative >= 0)).nonzero()[:, 0]
    return (anchors, target[anchors], negative[anchors]), found


class GOALMiner(nn.Module):
    """The hardest positive and the hardest negative of every anchor, as BatchHardMiner finds them.

    Positives are looked for among the rows of one label, negatives by the kernels of `gk.mine`: the
    matrix of all similarities is never stored.

    Args:
        normalize: True compares by cosines (and so by distances of rows of unit length), False by
            inner products.
        precision, backend: as in `goal_loss`.
    """

    def __init__(
        self, *, normalize: bool = True, precision: str | None = None, backend: str = "auto"
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.precision = precision
        self.backend = backend

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Triplets:
        """Anchors that have both, their positives and negatives; int64 [T] each, T <= N.

        Raises: TypeError, ValueError naming the argument.
        """
        batch = _read(embeddings, labels, ref_emb, ref_labels, self.normalize)
        return _mine(batch, NO_SUMS, self.precision, self.backend)[0]


class GOALLoss(nn.Module):
    """A GOAL objective of triplets, by the arguments of `TripletMarginLoss`.

    The loss of a triplet is n - p (the hinge itself for hinge/constant), its gradient T P- along n
    and - T P+ along p (docs/derivation.md, eq. 1 to 4). Anchors are the rows of embeddings only.

    Args:
        objective: as in `goal_loss`.
        reducer: one of pytorch-metric-learning's, or None for the mean over the triplets. Those
            that look at losses (AvgNonZeroReducer, ThresholdReducer) go with hinge/constant: other
            objectives report n - p, which is negative for a triplet in order.
        normalize, precision, backend: as in `GOALMiner`.
        parameters: hyper-parameters of the objective by name.

    Raises: as `gk.Objective`.
    """

    def __init__(
        self,
        objective: Objective | str = "nca/sigmoid_ms",
        *,
        reducer: Callable[..., Tensor] | None = None,
        normalize: bool = True,
        precision: str | None = None,
        backend: str = "auto",
        **parameters: float,
    ) -> None:
        super().__init__()
        self.objective = as_objective(objective, parameters)
        if makes_a_difference(self.objective, normalize):
            raise ValueError(
                f"objective: expected the direction 'dot' with normalize=False, got "
                f"{self.objective.name!r}; leave the direction out."
            )
        self.reducer = _mean if reducer is None else reducer
        self.normalize = normalize
        self.precision = precision
        self.backend = backend

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        indices_tuple: tuple[Tensor, ...] | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Tensor:
        """The reduced loss.

        Args:
            indices_tuple: (anchors, positives, negatives) or (anchors, positives, anchors,
                negatives) of a miner; None: the hardest of every anchor, as `GOALMiner` finds them.
                The `_ms` elements weigh a triplet by the other pairs of the batch and need None.
        Raises: TypeError, ValueError naming the argument.
        """
        batch = _read(embeddings, labels, ref_emb, ref_labels, self.normalize)
        relative = self.objective.pair_element.relative
        sums = counts = torch.zeros(0, dtype=torch.int64, device=embeddings.device)
        if indices_tuple is None:
            asked = relative, self.objective.epsilon, self.objective.beta
            triplets, found = _mine(batch, asked, self.precision, self.backend)
            if relative != "none":
                sums, counts = (
                    x[triplets[0]] for x in (found.mined.row_sum, found.mined.row_count)
                )
        elif relative != "none":
            raise ValueError(
                f"indices_tuple: expected None with {self.objective.name}, whose weights need all "
                "similarities of the batch; leave the mining to the loss, or take a pair element "
                "without '_ms'."
            )
        else:
            triplets = _as_triplets(indices_tuple)
        info: dict[str, Any] = {"losses": 0, "indices": None, "reduction_type": "already_reduced"}
        if len(triplets[0]):
            losses = self._losses(batch, triplets, sums, counts)
            info = {"losses": losses, "indices": triplets, "reduction_type": "triplet"}
        return self.reducer({"loss": info}, embeddings, labels)

    def _losses(self, batch: _Batch, triplets: Triplets, sums: Tensor, counts: Tensor) -> Tensor:
        """[T], with the designed gradient."""
        anchor = batch.rows[triplets[0]]
        positive = _similarity(anchor, batch.others[triplets[1]])
        negative = _similarity(anchor, batch.others[triplets[2]])
        with torch.no_grad():
            valid = torch.ones_like(positive, dtype=torch.bool)
            anchors = Anchors(positive, negative, valid, sums, counts)
            weights = weigh_anchors(self.objective, anchors)
            attract, repel, value = (part.to(positive.dtype) for part in weights)
        slope = repel * negative - attract * positive
        return value + (slope - slope.detach())


def _as_triplets(indices: tuple[Tensor, ...]) -> Triplets:
    """Triplets, or each positive pair with each negative pair of its anchor."""
    if len(indices) == 3:
        return indices
    if len(indices) != 4:
        raise ValueError(
            "indices_tuple: expected (anchors, positives, negatives) or (anchors, positives, "
            f"anchors, negatives), got {len(indices)} tensors."
        )
    anchors, positives, others, negatives = indices
    pair, opposed = (anchors[:, None] == others).nonzero(as_tuple=True)
    return anchors[pair], positives[pair], negatives[opposed]


def _mean(losses: dict[str, dict[str, Any]], embeddings: Tensor, labels: object) -> Tensor:
    """The reducer when none is given; without triplets a zero that keeps the graph."""
    value = losses["loss"]["losses"]
    return value.mean() if isinstance(value, Tensor) else (embeddings * 0).sum()
