"""The whole forward of the Triton backend: what was found, weighed by a kernel."""

from __future__ import annotations

import pytest
import torch
from cases import caption_ids, paired_batch, unruly_batch
from test_triton_weigh import EPS, check_lists
from torch import Tensor

import goal_kernels as gk
from goal_kernels.backends.answers import Forward
from goal_kernels.backends.base import Pairing, SearchQuery, WeightStage
from goal_kernels.backends.gpu import configs
from goal_kernels.registry import unregister_element
from goal_kernels.weights import weigh

OBJECTIVES = ("hinge/constant", "circle/linear_ms", "nca/sigmoid_ms")


def forward(backend, embeddings, objective: gk.Objective, ids, normalize=False) -> Forward:
    kind, names = objective.pair_element.relative, objective.name.split("/")
    query = SearchQuery(kind, objective.epsilon, objective.beta, normalize, "highest")
    stage = WeightStage(*names, objective.scalars, "both", lambda p, m: weigh(objective, p, m))
    return backend.forward(*embeddings, Pairing(None, ids, ids), query, stage)


def composed(backend, embeddings, objective: gk.Objective, ids, normalize=False) -> Forward:
    """The same mining, then the weights in torch."""
    kind = objective.pair_element.relative
    query = SearchQuery(kind, objective.epsilon, objective.beta, normalize, "highest")
    found = backend.search(*embeddings, Pairing(None, ids, ids), query)
    return Forward.pack(found, weigh(objective, found.positive, found.mined))


def check(found: Forward, expected: Forward) -> None:
    """Mined numbers bit for bit, weights to the roundings of their formulas, lists in order."""
    torch.testing.assert_close(found.vectors[:3], expected.vectors[:3], rtol=0, atol=0)
    assert torch.equal(found.vectors[6:], expected.vectors[6:])
    assert torch.equal(found.hardest[:2], expected.hardest)
    # exp(z) turns an ulp of z into |z| ulp; |z| is below 32 for the similarities of these cases.
    torch.testing.assert_close(
        found.vectors[3:6], expected.vectors[3:6], rtol=64 * EPS, atol=32 * EPS
    )
    size = expected.vectors[:3].nan_to_num(0, 0, 0).abs().sum().item()
    torch.testing.assert_close(found.value, expected.value, rtol=0, atol=8 * EPS * size)
    check_lists(found.hardest.cpu())


@pytest.mark.parametrize(
    ("name", "dtype", "normalize"),
    [
        ("hinge/constant", torch.float32, False),
        ("hinge/constant", torch.bfloat16, True),
        ("circle/linear_ms", torch.float32, True),
        ("circle/linear_ms", torch.bfloat16, False),
        ("nca/sigmoid_ms", torch.float32, False),
        ("nca/sigmoid_ms", torch.bfloat16, True),
    ],
    ids=str,
)
def test_against_the_stage_in_torch(backend, device, name, dtype, normalize) -> None:
    embeddings = [x.to(device) for x in unruly_batch(26, 9, dtype)]
    for ids in (None, caption_ids(26).to(device), torch.zeros(26, device=device).long()):
        arguments = (embeddings, gk.Objective.parse(name), ids, normalize)
        check(forward(backend, *arguments), composed(backend, *arguments))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_sorted_batches(backend, device, name, monkeypatch) -> None:
    monkeypatch.setattr(configs, "DENSE_LIMIT", 25)
    embeddings = [x.to(device) for x in paired_batch(26, 9, torch.float32)]
    arguments = (embeddings, gk.Objective.parse(name), None)
    check(forward(backend, *arguments), composed(backend, *arguments))


def loss_and_gradients(objective, name: str, device, normalize: bool) -> list[Tensor]:
    image, text = (x.to(device).requires_grad_() for x in unruly_batch(12, 5, torch.float32))
    loss = gk.goal_loss(image, text, objective, backend=name, normalize=normalize)
    return [loss.detach(), *torch.autograd.grad(loss, (image, text))]


@pytest.mark.parametrize("normalize", [False, True])
def test_an_element_without_a_twin_is_weighed_in_torch(
    backend, device, normalize, monkeypatch
) -> None:
    """A built-in one that no kernel knows, and one of a user's: gradients as of the reference."""
    expected = loss_and_gradients("nca/linear", "reference", device, normalize)
    monkeypatch.delitem(configs.PAIR_CODES, "linear")
    unknown = loss_and_gradients("nca/linear", "triton", device, normalize)
    element = gk.register_triplet(
        "another_nca", lambda positive, negative: torch.sigmoid(10 * (negative - positive))
    )
    try:
        custom = gk.Objective(element.name, "linear")
        registered = loss_and_gradients(custom, "triton", device, normalize)
    finally:
        unregister_element("triplet", element.name)
    for truth, *others in zip(expected, unknown, registered, strict=True):
        for found in others:
            torch.testing.assert_close(found, truth, rtol=1e-5, atol=1e-5)


def test_statistics_see_the_indices_alone(backend, device) -> None:
    image, text = (x.to(device) for x in paired_batch(10, 4, torch.float32))
    _, stats = gk.goal_loss(image, text, "nca/linear", backend="triton", return_stats=True)
    _, expected = gk.goal_loss(image, text, "nca/linear", backend="reference", return_stats=True)
    assert torch.equal(stats.hardest_text, expected.hardest_text)
    assert torch.equal(stats.hardest_image, expected.hardest_image)
