"""Batches taken apart, and the objective that comes closest to a loss."""

from __future__ import annotations

import math

import pytest
import torch
from cases import paired_batch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

import goal_kernels as gk
from goal_kernels.analysis import analyze, dissect, find_loss, list_losses, nearest_objective
from goal_kernels.registry import unregister_element

IDS = torch.arange(12) // 2
IMAGE, TEXT = paired_batch(12, 6)


def info_nce(image: Tensor, text: Tensor) -> Tensor:
    logits, labels = 10 * image @ text.T, torch.arange(len(image))
    return cross_entropy(logits, labels) + cross_entropy(logits.T, labels)


def test_an_objective_on_embeddings_and_by_name() -> None:
    """As a black box of embeddings the weights are those that the library says it gives."""
    named = dissect("nca/sigmoid_ms", IMAGE, TEXT, ids=IDS)
    box = dissect(
        lambda x, y: gk.goal_loss(x, y, "nca/sigmoid_ms", image_ids=IDS), IMAGE, TEXT, ids=IDS
    )
    torch.testing.assert_close(box.slope, named.slope, rtol=0, atol=1e-8)
    leaf = (IMAGE @ TEXT.T).requires_grad_()
    gk.goal_loss_from_similarity(leaf, "nca/sigmoid_ms", image_ids=IDS).backward()
    torch.testing.assert_close(named.slope, leaf.grad)
    torch.testing.assert_close(named.pull, -leaf.grad.diagonal())
    assert named.other_pull.abs().max() == 0
    assert not named.push[IDS[:, None] == IDS].any()
    assert named.outside == 0
    assert named.direction == "dot"
    assert named.kappa == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("block", [1, 5, 64])
def test_weights_of_a_black_box_are_exact(block) -> None:
    found = dissect(info_nce, IMAGE, TEXT, block=block)
    logits = (10 * IMAGE @ TEXT.T).requires_grad_()
    labels = torch.arange(12)
    (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)).backward()
    torch.testing.assert_close(found.slope, 10 * logits.grad, rtol=0, atol=1e-12)
    push = found.push
    hardest = (IMAGE @ TEXT.T).fill_diagonal_(-1).argmax(dim=1)
    share = push[torch.arange(12), hardest] / push.sum(dim=1)
    torch.testing.assert_close(found.image.hardest_share, share)
    spread = push.sum(dim=0).square() / push.square().sum(dim=0)
    torch.testing.assert_close(found.text.effective_negatives, spread)


@pytest.mark.parametrize("loss", list_losses(), ids=lambda loss: loss.name)
def test_the_catalogue_by_name_and_as_a_black_box(loss) -> None:
    named = dissect(loss.name, IMAGE, TEXT, ids=IDS)
    box = dissect(lambda x, y: loss(x, y, IDS), IMAGE, TEXT, ids=IDS)
    torch.testing.assert_close(box.slope, named.slope, rtol=1e-6, atol=1e-6)
    assert named.image.hardest_share.nan_to_num().max() <= 1
    several = {"circle", "multi_similarity", "contrastive", "lifted_structure", "sup_con", "siglip"}
    if loss.name != "epshn":  # one positive, which may be another one than the pair
        assert bool(named.other_pull.any()) == (loss.name in several)


def test_direction_of_products_distances_and_unit_rows() -> None:
    product = dissect(lambda x, y: -(x * y).sum(), IMAGE, TEXT)
    assert (product.direction, product.kappa) == ("dot", pytest.approx(0, abs=1e-9))

    def distances(x: Tensor, y: Tensor) -> Tensor:
        near, far = (x - y).square().sum(dim=1), (x - y.roll(1, 0)).square().sum(dim=1)
        return (near - far / 3).relu()

    distance = dissect(distances, IMAGE, TEXT)
    assert (distance.direction, distance.kappa) == ("euclidean", pytest.approx(1))
    assert distance.direction_error < 1e-9
    unit = dissect(lambda x, y: info_nce(normalize(x), normalize(y)), 2 * IMAGE, 3 * TEXT)
    assert unit.direction == "tangent"
    assert unit.direction_error < 1e-6
    assert unit.outside < 1e-6
    torch.testing.assert_close(
        6 * unit.slope, dissect(info_nce, IMAGE, TEXT).slope, rtol=0, atol=1e-7
    )
    balanced = dissect(lambda s: s.roll(1, 0).trace() - s.trace(), IMAGE, TEXT, on="similarities")
    assert math.isnan(balanced.kappa)  # pulls and pushes cancel in every row
    assert balanced.direction == "dot"


@pytest.mark.parametrize("direction", ["euclidean", "tangent", "half"])
def test_the_direction_of_an_objective(direction) -> None:
    image, text = 1.1 * IMAGE, 0.9 * TEXT
    gk.register_direction("half", lambda similarity: 0.5 + 0 * similarity)
    try:
        found = dissect(f"nca/sigmoid/{direction}", image, text, ids=IDS)
        plain = dissect("nca/sigmoid", image, text, ids=IDS)
        nearest = nearest_objective(found, among=["nca/sigmoid", "nca/linear/euclidean"])
        assert nearest.objective == gk.Objective("nca", "sigmoid", direction_element=direction)
    finally:
        unregister_element("direction", "half")
    torch.testing.assert_close(found.slope, plain.slope, rtol=0, atol=1e-7)
    assert found.direction == nearest.direction == direction
    assert max(found.direction_error, found.outside, nearest.error) < 1e-6
    if direction != "tangent":
        assert found.kappa == pytest.approx({"euclidean": 1, "half": 0.5}[direction])
    assert plain.direction == "dot"


def test_what_weights_cannot_express_is_measured() -> None:
    """A constant gradient is along no row; what is along the own row belongs to the direction."""
    odd = torch.zeros(6, dtype=torch.float64)
    odd[3] = 1.0
    found = dissect(lambda x, y: x[:, 3].sum() + 0 * y.sum(), IMAGE, TEXT)
    assert found.slope.abs().max() == 0
    assert found.outside > 0.5
    length = (odd - (IMAGE @ odd)[:, None] * IMAGE).norm(dim=1)
    torch.testing.assert_close(found.image.outside, length)
    assert found.text.outside.abs().max() == 0
    assert found.summary()["outside"] == found.outside


def test_no_loss_of_a_batch_is_refused() -> None:
    cases = (
        (lambda x, y: 1.0, TypeError, "expected a real tensor.*got float"),
        (lambda x, y: (x * y).sum().detach(), TypeError, "without a graph"),
        (lambda x, y: (x * y).sum().log(), ValueError, "expected finite values"),
        (torch.nn.Bilinear(6, 6, 1, dtype=torch.float64), ValueError, "rows of width 6, but no"),
        (5, TypeError, "expected an objective, a loss of the catalogue"),
    )
    for loss, error, message in cases:
        with pytest.raises(error, match=message):
            dissect(loss, IMAGE[:, :6], -TEXT)
    with pytest.raises(ValueError, match=r"text: expected a row for each .*\[3, 6\]"):
        dissect(info_nce, IMAGE, TEXT[:3])
    with pytest.raises(TypeError, match="image: expected floating-point"):
        dissect(info_nce, IMAGE.long(), TEXT)
    with pytest.raises(ValueError, match=r"ids: expected integers \[12\]"):
        dissect(info_nce, IMAGE, TEXT, ids=IDS[:5])
    with pytest.raises(ValueError, match="expected 'embeddings' or 'similarities'"):
        dissect(info_nce, IMAGE, TEXT, on="scores")


def test_the_nearest_objective_of_a_landscape() -> None:
    hidden = gk.Objective("nca", "sigmoid", tau=25.0, alpha=3.0, beta=14.0, lam=0.4)
    found = nearest_objective(analyze(lambda p, n: 0 * p + 0 * n + analyze_work(hidden, p, n)))
    assert found.objective.name == "nca/sigmoid"
    assert found.error < 0.01
    assert found.objective.tau == pytest.approx(25, rel=0.02)
    assert found.objective.beta == pytest.approx(14, rel=0.02)
    assert found.objective.lam == pytest.approx(0.4, abs=0.01)
    assert found.ranking[0][1] < found.ranking[1][1]
    siglip = nearest_objective(analyze("siglip"))
    assert siglip.objective.name == "constant/sigmoid"
    assert siglip.scale == pytest.approx(10, rel=0.01)
    assert siglip.objective.lam == pytest.approx(1, abs=0.01)


class _Designed(torch.autograd.Function):
    """A value whose gradient is what an objective designs."""

    @staticmethod
    def forward(ctx, p, n, pull, push):
        ctx.save_for_backward(pull, push)
        return n - p

    @staticmethod
    def backward(ctx, grad):
        pull, push = ctx.saved_tensors
        return -grad * pull, grad * push, None, None


def analyze_work(objective: gk.Objective, p: Tensor, n: Tensor) -> Tensor:
    return _Designed.apply(p, n, *analyze(objective).weights(p, n))


def test_the_nearest_objective_of_a_batch() -> None:
    hidden = gk.Objective("hinge", "linear_ms", margin=0.3, epsilon=0.2)
    batch = dissect(hidden, IMAGE, TEXT)
    found = nearest_objective(batch, among=["hinge/linear_ms", "hinge/linear"])
    assert found.objective.name == "hinge/linear_ms"
    assert found.error < 0.02
    assert found.ranking[1][1] > found.error
    whole = dissect("info_nce", IMAGE, TEXT)
    far = nearest_objective(whole, among=["nca/constant"])
    assert 0.1 < far.error < 1  # an objective pushes from the hardest negative alone
    with pytest.raises(TypeError, match="what analyze or dissect returned"):
        nearest_objective("info_nce")  # type: ignore[arg-type]
    nothing = dissect(lambda x, y: 0 * (x * y).sum(), IMAGE, TEXT)
    with pytest.raises(ValueError, match="not all zero"):
        nearest_objective(nothing)


def test_losses_of_open_clip() -> None:
    open_clip = pytest.importorskip("open_clip.loss")
    scale, bias = torch.tensor(10.0).double(), torch.tensor(-10.0).double()
    clip, siglip = open_clip.ClipLoss(), open_clip.SigLipLoss()
    ours = dissect("info_nce", IMAGE, TEXT).slope / 24
    theirs = dissect(lambda x, y: clip(x, y, scale), IMAGE, TEXT)
    torch.testing.assert_close(theirs.slope, ours, rtol=0, atol=1e-9)
    theirs = dissect(lambda x, y: siglip(x, y, scale, bias), IMAGE, TEXT)
    assert theirs.outside < 1e-9
    ours = dissect("siglip", IMAGE, TEXT).slope / 24  # both directions: each pair twice
    torch.testing.assert_close(theirs.slope, ours, rtol=0, atol=1e-9)


def test_losses_of_pytorch_metric_learning() -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    theirs = losses.ContrastiveLoss(pos_margin=0.0, neg_margin=1.0)

    def contrastive(x: Tensor, y: Tensor) -> Tensor:
        return theirs(x, IDS, ref_emb=y, ref_labels=IDS.clone())

    found = dissect(contrastive, IMAGE, TEXT, ids=IDS)
    assert found.outside < 1e-6
    assert found.direction == "tangent"  # it normalises its rows
    assert (found.pull > 0).all()
    assert (found.other_pull > 0).all()
    everything = losses.SupConLoss(temperature=0.1)
    both = dissect(
        lambda x, y: everything(torch.cat([x, y]), torch.cat([IDS, IDS])), IMAGE, TEXT, ids=IDS
    )
    assert both.outside > 0.1  # negatives of the own side are no rows of the other
    assert find_loss("sup_con").values == {"tau": 10.0}
