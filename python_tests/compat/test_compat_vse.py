"""`goal_kernels.compat.vse` against the formulas of VSE++ and VSE_Gradient in plain torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compat_cases import assert_same, outcome, unit_rows
from torch import Tensor

from goal_kernels import goal_loss
from goal_kernels.compat.vse import ContrastiveLoss, TripletGrad


def hinges(im: Tensor, s: Tensor, margin: float, hardest: bool) -> Tensor:
    """VSE++'s equations 5 and 6: a hinge for every negative, or for the worst of each anchor."""
    total = im.new_zeros(())
    scores = im @ s.T
    for anchors in (scores, scores.T):
        for i, row in enumerate(anchors):
            others = torch.cat([row[:i], row[i + 1 :]])
            violations = (margin + others - row[i]).clamp(min=0)
            total = total + (violations.max() if hardest else violations.sum())
    return total


@pytest.mark.parametrize("margin", [0.05, 0.2])
@pytest.mark.parametrize("hardest", [False, True], ids=["all", "hardest"])
def test_contrastive_loss_is_the_formula(margin: float, hardest: bool) -> None:
    batch = unit_rows(9, 6), unit_rows(9, 6, seed=1)
    loss = ContrastiveLoss(opt=None, margin=margin, max_violation=hardest)
    assert_same(outcome(loss, *batch), outcome(lambda x, y: hinges(x, y, margin, hardest), *batch))


def test_max_violation_switches() -> None:
    batch = unit_rows(6, 4), unit_rows(6, 4, seed=1)
    loss = ContrastiveLoss(object(), 0.2)
    every = loss(*batch)
    loss.max_violation_on()
    hardest = loss(*batch)
    loss.max_violation_off()
    assert hardest < every
    assert torch.equal(loss(*batch), every)


def test_another_objective_takes_the_place_of_the_hardest_hinge() -> None:
    batch = unit_rows(6, 4), unit_rows(6, 4, seed=1)
    ids = torch.arange(6) // 2
    loss = ContrastiveLoss(None, 0.2, True, objective="nca/sigmoid_ms", negatives="semi_hard")
    wanted = goal_loss(*batch, "nca/sigmoid_ms", image_ids=ids, negatives="semi_hard")
    assert torch.equal(loss(*batch, ids), wanted)
    loss.max_violation_off()
    assert not torch.equal(loss(*batch, ids), loss(*batch))


def test_vsepp_names_its_measure() -> None:
    assert ContrastiveLoss(margin=0.2, measure="cosine", max_violation=True).margin == 0.2
    with pytest.raises(ValueError, match="measure: expected 'cosine'"):
        ContrastiveLoss(margin=0.2, measure="order")


@pytest.mark.filterwarnings("ignore:goal_loss")
@pytest.mark.parametrize("hardest", [False, True], ids=["all", "hardest"])
def test_one_pair_gives_a_zero_with_a_graph(hardest: bool) -> None:
    batch = unit_rows(1, 4), unit_rows(1, 4, seed=1)
    value, *gradients = outcome(ContrastiveLoss(None, 0.2, hardest), *batch)
    assert value == 0
    assert all(gradient.eq(0).all() for gradient in gradients)


TRIPLETS: dict[str, Any] = {
    "con": lambda p, n, tau: torch.ones_like(p),
    "nca": lambda p, n, tau: 1 / (1 + (tau * (p - n)).exp()),
    "cir": lambda p, n, tau: 1 / (1 + (tau * (p * (2 - p) - n * n - 0.5)).exp()),
}
PAIRS: dict[str, Any] = {
    "con": lambda p, n, a, b, lam: (torch.ones_like(p), torch.ones_like(n)),
    "lin": lambda p, n, a, b, lam: (1 - p, n),
    "sig": lambda p, n, a, b, lam: (
        1 / (1 + (a * (p - lam)).exp()),
        1 / (1 + (-b * (n - lam)).exp()),
    ),
}


def designed(im: Tensor, s: Tensor, gmode: tuple[str, str, str], **words: float) -> Tensor:
    """A value whose derivative is the designed gradient, of weights without gradient."""
    scores = im @ s.T
    p, total = scores.diagonal(), im.new_zeros(())
    for anchors in (scores, scores.T):
        n = anchors.masked_fill(torch.eye(len(im)).bool(), -torch.inf).max(dim=1).values
        known = p.detach(), n.detach()
        weight = TRIPLETS[gmode[0]](*known, words["tau"])
        attract, repel = PAIRS[gmode[1]](*known, words["ms_a"], words["ms_b"], words["ms_l"])
        slope = weight * (repel * n - attract * p)
        total = total + ((n - p).detach() + slope - slope.detach()).sum()
    return total


@pytest.mark.parametrize("triplet", TRIPLETS)
@pytest.mark.parametrize("pair", PAIRS)
def test_triplet_grad_is_the_formula(triplet: str, pair: str) -> None:
    batch, gmode = (unit_rows(8, 5), unit_rows(8, 5, seed=1)), (triplet, pair, "cos")
    words = {"tau": 3.0, "ms_a": 1.5, "ms_b": 7.0, "ms_l": 0.4}
    loss = TripletGrad(gmode, **words)
    got = outcome(lambda x, y: 2 * loss(x, y)[0], *batch)
    assert_same(got, outcome(lambda x, y: designed(x, y, gmode, **words), *batch), 2.0)


def test_triplet_grad_starts_from_the_published_defaults_and_logs() -> None:
    batch = unit_rows(5, 4), unit_rows(5, 4, seed=1)
    loss, log = TripletGrad(("nca", "sig_ms", "cos"))(*batch)
    wanted = goal_loss(*batch, "nca/sigmoid_ms", tau=1, alpha=2, beta=10, lam=0.5)
    assert torch.equal(loss, wanted)
    scores = (batch[0] @ batch[1].T).detach()
    negative = scores.masked_fill(torch.eye(5).bool(), -torch.inf)
    torch.testing.assert_close(log["positive"], scores.diagonal())
    torch.testing.assert_close(log["negative_txt"], negative.max(dim=1).values)
    torch.testing.assert_close(log["negative_img"], negative.max(dim=0).values)
    torch.testing.assert_close(log["loss_it"] + log["loss_ti"], loss.detach())


@pytest.mark.filterwarnings("ignore:goal_loss")
def test_triplet_grad_of_one_pair() -> None:
    batch = unit_rows(1, 4), unit_rows(1, 4, seed=1)
    loss, log = TripletGrad(("con", "con", "cos"))(*batch)
    assert loss.requires_grad
    assert loss == log["loss_it"] == log["loss_ti"] == 0


@pytest.mark.parametrize("gmode", [("nca", "sig"), ("nca", "sig", "euc")], ids=["two", "euc"])
def test_triplet_grad_refuses(gmode: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"gmode: expected \(triplet, pair, 'cos'\)"):
        TripletGrad(gmode)
