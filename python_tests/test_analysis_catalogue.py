"""The catalogue: closed forms against autograd, values against objectives and published code."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from cases import paired_batch
from torch import Tensor

import goal_kernels as gk
from goal_kernels import Parameter
from goal_kernels.analysis import (
    analyze,
    find_loss,
    list_losses,
    register_loss,
    unregister_loss,
)

WANTED = {
    *("max_violation", "sum_of_hinges", "soft_margin", "info_nce", "triplet_nca", "circle"),
    *("multi_similarity", "contrastive", "lifted_structure", "n_pair", "sup_con", "proxy_nca"),
    *("siglip", "epshn", "llave", "ega"),
}
IDS = torch.tensor([0, 1, 2, 3, 1, 5, 1, 3, 8])


def anchors(seed: int) -> tuple[Tensor, Tensor]:
    """6 anchors: 3 positives and 7 negatives, some of either not there."""
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(6, 3, generator=generator, dtype=torch.float64) * 1.6 - 0.7
    n = torch.rand(6, 7, generator=generator, dtype=torch.float64) * 1.6 - 0.8
    p[1:, 2], p[4, 1] = torch.inf, torch.inf
    n[2:, 5], n[4, 1:] = -torch.inf, -torch.inf
    return p, n


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("loss", list_losses(), ids=lambda loss: loss.name)
def test_the_closed_form_is_autograd_of_the_value(loss, seed) -> None:
    p, n = (side.requires_grad_() for side in anchors(seed))
    by_p, by_n = torch.autograd.grad(loss.value(p, n, **loss.values).sum(), (p, n))
    pull, push = loss.weights(p.detach(), n.detach(), **loss.values)
    torch.testing.assert_close(pull, -by_p, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(push, by_n, rtol=1e-10, atol=1e-12)
    gone = ~p.isfinite(), ~n.isfinite()
    assert not pull[gone[0]].any()
    assert not push[gone[1]].any()
    assert pull.any() or loss.name == "epshn"


@pytest.mark.parametrize("loss", list_losses(), ids=lambda loss: loss.name)
def test_every_row_is_complete_and_analysed(loss) -> None:
    assert loss.equation
    assert loss.source
    found = analyze(loss)
    p, n = torch.tensor([0.3, 0.6], dtype=torch.float64), torch.tensor([0.2, 0.55]).double()
    p, n = p.requires_grad_(), n.requires_grad_()
    by_p, by_n = torch.autograd.grad(loss.of_pair(p, n).sum(), (p, n))
    torch.testing.assert_close(found.pull(p, n), -by_p)
    torch.testing.assert_close(found.push(p, n), by_n)


def test_the_catalogue_has_what_it_should() -> None:
    assert {loss.name for loss in list_losses()} >= WANTED


def test_what_the_integrals_say() -> None:
    """Which losses' weights are no derivatives: stopped gradients and mining that depends on both.

    Without a margin the weights of circle are those of log(1 + exp(gamma ((1 - p)^2 + n^2))) / 2.
    """
    lacking = {loss.name for loss in list_losses() if not analyze(loss).integrable}
    assert lacking == {"circle", "multi_similarity", "llave"}
    assert analyze(find_loss("circle").with_parameters({"margin": 0.0, "gamma": 8.0})).integrable
    plain = find_loss("multi_similarity").with_parameters({"epsilon": 4.0})  # all pairs are kept
    assert analyze(plain).integrable
    torch.testing.assert_close(
        analyze(plain.with_parameters({"beta": 10.0})).push(0.2, 0.3),
        analyze("constant/sigmoid").push(0.2, 0.3),
    )


def batch() -> tuple[Tensor, Tensor]:
    image, text = paired_batch(9, 6)
    return image.requires_grad_(), text.requires_grad_()


@pytest.mark.parametrize(
    ("name", "objective"), [("max_violation", "hinge/constant"), ("triplet_nca", "nca/constant")]
)
def test_two_are_objectives(name, objective) -> None:
    image, text = batch()
    grads = [
        torch.autograd.grad(loss, (image, text))
        for loss in (
            find_loss(name)(image, text, IDS),
            gk.goal_loss(image, text, objective, image_ids=IDS),
        )
    ]
    for found, expected in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected)


def published() -> dict[str, tuple[object, float]]:
    """Losses of pytorch-metric-learning at the parameters of the catalogue."""
    pytest.importorskip("pytorch_metric_learning")
    from pytorch_metric_learning import distances, losses, reducers

    cosine = {"distance": distances.CosineSimilarity()}
    sums: dict = {"reducer": reducers.SumReducer()}
    return {
        "circle": losses.CircleLoss(m=0.4, gamma=80, **sums),
        "multi_similarity": losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5, **sums),
        "sup_con": losses.SupConLoss(temperature=0.1, **sums, **cosine),
        "info_nce": losses.NTXentLoss(temperature=0.1, **sums, **cosine),
    }


@pytest.mark.parametrize("name", ["circle", "multi_similarity", "sup_con", "info_nce"])
def test_values_and_gradients_are_the_published_ones(name) -> None:
    """Both directions of a batch: rows of one side against labelled rows of the other."""
    theirs = published()[name]
    image, text = batch()
    labels = torch.arange(9) if name == "info_nce" else IDS
    # Labels that are the same object would mean one set of rows, without pairs on the diagonal.
    expected = theirs(image, labels, ref_emb=text, ref_labels=labels.clone())
    expected = expected + theirs(text, labels, ref_emb=image, ref_labels=labels.clone())
    ours = find_loss(name)
    if name == "multi_similarity":
        ours = ours.with_parameters({"epsilon": 4.0})  # theirs mines with an object of its own
    found = ours(*map(torch.nn.functional.normalize, (image, text)), labels)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    grads = [torch.autograd.grad(loss, (image, text)) for loss in (found, expected)]
    for mine, other in zip(*grads, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7)


@pytest.fixture
def own_loss() -> Iterator[None]:
    def quadratic(p: Tensor, n: Tensor, slope: float) -> Tensor:
        return slope * ((1 - p[:, 0]).square() + n.clamp(min=-1).square().mean(dim=1))

    register_loss("quadratic", quadratic, parameters=[Parameter("slope", 0.5, 0.0)])
    yield
    unregister_loss("quadratic")


def test_a_loss_of_ones_own_takes_one_call(own_loss) -> None:
    found = analyze("quadratic")
    assert found.pull(0.2, 0.5).item() == pytest.approx(0.8)
    assert analyze(find_loss("quadratic").with_parameters({"slope": 1.0})).push(0.2, 0.5) == 1.0
    assert found.integrable
    image, text = batch()
    assert find_loss("quadratic")(image, text).isfinite()
    with pytest.raises(ValueError, match="which the catalogue has"):
        register_loss("quadratic", lambda p, n: p)
    with pytest.raises(ValueError, match="word without a slash"):
        register_loss("a/b", lambda p, n: p)
    with pytest.raises(ValueError, match=r"slop: quadratic has no such parameter.*mean slope"):
        find_loss("quadratic").with_parameters({"slop": 1.0})
    with pytest.raises(ValueError, match=r"slope: expected a number in \[0, inf\), got -1"):
        find_loss("quadratic").with_parameters({"slope": -1.0})


def test_a_wrong_closed_form_is_refused() -> None:
    def value(p: Tensor, n: Tensor) -> Tensor:
        return (n - p).sum(dim=1)

    loss = register_loss("wrong", value, weights=lambda p, n: (p, n))
    try:
        with pytest.raises(ValueError, match="closed form of the pull differs from autograd"):
            analyze(loss)
    finally:
        unregister_loss("wrong")
