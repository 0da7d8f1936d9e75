"""The direction of an objective: contributions w (y - kappa x), for every kind of batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import oracle
import pytest
import torch
from cases import DTYPES, OBJECTIVES, captioned_batch, paired_batch
from test_backend_parity import device_or_skip
from test_negative_kinds import KINDS, near_positives
from torch import Tensor
from torch.nn.functional import normalize

import goal_kernels as gk
from goal_kernels.backends.choice import BACKENDS
from goal_kernels.compat import metric_learning
from goal_kernels.registry import unregister_element

pytestmark = pytest.mark.filterwarnings("ignore:goal_loss. got a similarity")

DIRECTIONS = ("dot", "euclidean", "tangent")
ALL_KINDS = {"hardest": (oracle.Kind(), {}), **KINDS}
INTEGRABLE = [o for o in OBJECTIVES if o.potential is not None]


def gradients(image: Tensor, text: Tensor, objective, **options) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and both gradients."""
    x, y = image.detach().requires_grad_(), text.detach().requires_grad_()
    loss = gk.goal_loss(x, y, objective, **options)
    return loss.detach(), *torch.autograd.grad(loss, (x, y))


def of_any_length(rows: Tensor) -> Tensor:
    """Rows of lengths from 0.8 to 1.2, in no order."""
    return rows * (0.8 + 0.4 * (torch.arange(len(rows)) * 7 % 5) / 4)[:, None].to(rows.dtype)


def with_direction(objective: gk.Objective, name: str) -> gk.Objective:
    return gk.Objective(objective.triplet, objective.pair, direction_element=name)


def check_loop(image, text, objective, name, **given) -> None:
    """given: of the oracle; options of goal_loss are in `options`."""
    options = given.pop("options", {})
    found = gradients(image, text, with_direction(objective, name), backend="reference", **options)
    expected = oracle.run(
        image.numpy(), text.numpy(), objective.triplet, objective.pair, towards=name, **given
    )
    assert found[0].item() == pytest.approx(expected.value, abs=1e-11)
    np.testing.assert_allclose(found[1].numpy(), expected.grad_image, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found[2].numpy(), expected.grad_text, rtol=0, atol=1e-10)


@pytest.mark.parametrize("mining", ["both", "i2t", "t2i"])
@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
def test_square_batches_against_the_loop(objective, name, mining) -> None:
    image, text = (of_any_length(rows) for rows in paired_batch(7, 4))
    ids = torch.arange(7) % 5
    options = {"image_ids": ids, "direction": mining}
    given = {"image_ids": ids.tolist(), "text_ids": ids.tolist(), "direction": mining}
    check_loop(image, text, objective, name, options=options, **given)


@pytest.mark.parametrize("with_ids", [False, True], ids=["alone", "ids"])
@pytest.mark.parametrize("name", DIRECTIONS[1:])
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_captions_and_negatives_of_every_kind_against_the_loop(kind, name, with_ids) -> None:
    image, text, owner = near_positives(9, 4)
    literal, options = ALL_KINDS[kind]
    options = {**options, "text_to_image": owner}
    given = {"kind": literal, "text_to_image": owner.tolist()}
    if with_ids:
        ids = torch.arange(9) % 4, torch.arange(len(text)) % 5
        options |= {"image_ids": ids[0], "text_ids": ids[1]}
        given |= {"image_ids": ids[0].tolist(), "text_ids": ids[1].tolist()}
    for objective in (gk.Objective("circle", "linear"), gk.Objective("nca", "sigmoid_ms")):
        check_loop(of_any_length(image), text, objective, name, options=options, **given)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", [b.name for b in BACKENDS])
def test_backends_agree_and_round_a_gradient_once(backend, dtype) -> None:
    image, text = paired_batch(33, 24, dtype)
    device = device_or_skip(backend, dtype, 24)
    owner = torch.arange(33) // 2 * 2
    step = torch.finfo(dtype).eps / 2 if dtype.itemsize == 2 else 0.0
    near = 1e-12 if dtype == torch.float64 else 5e-6
    for options in ({}, {"text_to_image": owner}, {"negatives": gk.TopK(3)}):
        truth = gradients(
            image.double(), text.double(), "nca/linear_ms/tangent", backend="reference", **options
        )
        found = gradients(
            image.to(device), text.to(device), "nca/linear_ms/tangent", backend=backend, **options
        )
        assert found[0].item() == pytest.approx(truth[0].item(), rel=1e-5)
        for part, expected in zip(found[1:], truth[1:], strict=True):
            assert part.dtype == dtype
            miss = (part.cpu().double() - expected).abs()
            assert (miss <= near * expected.abs().max() + step * expected.abs()).all()


@pytest.mark.parametrize("options", [{}, {"text_to_image": "captions"}], ids=["square", "captions"])
def test_value_and_statistics_are_those_along_products(options) -> None:
    image, text, owner = captioned_batch(12, 6)
    if options:
        options = {"text_to_image": owner}
    else:
        image, text = paired_batch(12, 6)
    for name in DIRECTIONS[1:]:
        seen = [
            gk.goal_loss(image, text, of, return_stats=True, **options)
            for of in ("hinge/constant", f"hinge/constant/{name}")
        ]
        assert torch.equal(seen[0][0], seen[1][0])
        assert seen[0][1].summary() == seen[1][1].summary()


@pytest.mark.parametrize("objective", INTEGRABLE, ids=lambda o: o.name)
def test_each_direction_is_the_derivative_of_its_similarity(objective) -> None:
    """Products, minus half a squared distance, cosines: equal in value for rows of unit length."""
    image, text = paired_batch(12, 6)
    found = gk.mine(image, text)
    similarities = {
        "dot": lambda x, y: (x * y).sum(dim=1),
        "euclidean": lambda x, y: 1 - (x - y).square().sum(dim=1) / 2,
        "tangent": lambda x, y: (normalize(x) * normalize(y)).sum(dim=1),
    }
    for name, similarity in similarities.items():
        x, y = image.clone().requires_grad_(), text.clone().requires_grad_()
        p = similarity(x, y)
        of_images = similarity(x, y[found.hardest_text])
        of_texts = similarity(x[found.hardest_image], y)
        loss = objective.potential(p, of_images).sum() + objective.potential(p, of_texts).sum()
        expected = torch.autograd.grad(loss, (x, y))
        _, *parts = gradients(image, text, with_direction(objective, name))
        for part, other in zip(parts, expected, strict=True):
            torch.testing.assert_close(part, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("objective", ["nca/sigmoid_ms", "hinge/constant"])
def test_normalising_makes_all_directions_the_tangent(objective) -> None:
    """Of unit rows the gradient through the normalisation is that along the tangent."""
    image, text = paired_batch(12, 6)
    through = gradients(image, text, objective, normalize=True)
    tangent = gradients(image, text, f"{objective}/tangent")
    for part, other in zip(tangent, through, strict=True):
        torch.testing.assert_close(part, other, rtol=0, atol=1e-12)
    long = of_any_length(image)
    for name in DIRECTIONS[1:]:
        plain = gradients(long, text, objective, normalize=True)
        named = gradients(long, text, f"{objective}/{name}", normalize=True)
        assert all(torch.equal(a, b) for a, b in zip(plain, named, strict=True))
        x = long.clone().requires_grad_()
        gk.goal_loss(normalize(x), text, f"{objective}/{name}").backward()
        torch.testing.assert_close(x.grad, plain[1], rtol=0, atol=1e-12)


def test_a_tangent_is_at_right_angles_to_rows_of_any_length() -> None:
    image, text = (of_any_length(rows) for rows in paired_batch(12, 6))
    image[3] = 0
    _, *parts = gradients(image, text, "nca/sigmoid/tangent")
    for rows, part in zip((image, text), parts, strict=True):
        assert part.norm() > 0.1
        assert (rows * part).sum(dim=1).abs().max() < 1e-14


@pytest.fixture
def half() -> Iterator[None]:
    share = gk.Parameter("share", 0.5, 0.0, 1.0)
    gk.register_direction("part", lambda similarity, share: share * similarity, parameters=[share])
    yield
    unregister_element("direction", "part")


@pytest.mark.parametrize("backend", [b.name for b in BACKENDS])
def test_a_direction_of_ones_own_runs_on_every_backend(half, backend) -> None:
    image, text = paired_batch(12, 8, torch.float32)
    device = device_or_skip(backend, image.dtype, 8)
    image, text = image.to(device), text.to(device)
    ends = [gradients(image, text, f"nca/sigmoid{end}") for end in ("", "/tangent")]
    quarter = [a + 0.25 * (b - a) for a, b in zip(*ends, strict=True)]
    named = gk.Objective.parse("nca/sigmoid/part").with_parameters({"share": 0.25})
    assert named.name == "nca/sigmoid/part"
    assert dict(named.parameters) == {"share": 0.25}
    assert named.along_products == gk.Objective("nca", "sigmoid")
    callable_ = gk.Objective("nca", "sigmoid", direction_element=lambda s: s / 4)
    for objective in (named, callable_):
        found = gradients(image, text, objective, backend=backend)
        for part, expected in zip(found, quarter, strict=True):
            torch.testing.assert_close(part, expected, rtol=1e-5, atol=1e-5)


def always_one(positive: Tensor, negative: Tensor) -> Tensor:
    return torch.ones_like(positive)


def test_with_weights_of_ones_own() -> None:
    image, text = paired_batch(12, 8)
    own = gk.Objective(always_one, "sigmoid", direction_element="euclidean")
    assert own.name == "always_one/sigmoid/euclidean"
    found, expected = (
        gradients(image, text, objective) for objective in (own, "constant/sigmoid/euclidean")
    )
    for part, other in zip(found, expected, strict=True):
        torch.testing.assert_close(part, other, rtol=0, atol=1e-14)


def test_names() -> None:
    plain = gk.Objective("nca", "sigmoid")
    assert gk.Objective.parse("nca/sigmoid/dot") == plain
    assert plain.name == "nca/sigmoid"
    tangent = gk.Objective("nca", "sigmoid", direction_element="tangent")
    assert tangent == gk.Objective.parse("nca/sig/tangent")
    assert tangent.name == "nca/sigmoid/tangent"
    assert len({plain, tangent, gk.Objective.parse("nca/sigmoid/euclidean")}) == 3
    assert "nca/sigmoid/tangent" in repr(gk.GOALLoss("nca/sigmoid/tangent"))
    assert [e.name for e in gk.list_elements("direction")] == list(DIRECTIONS)
    similarity = torch.linspace(-1, 1, 5, dtype=torch.float64)
    for element, expected in zip(gk.list_elements("direction"), (0, 1, similarity), strict=True):
        kappa = element.formula(similarity=similarity)
        torch.testing.assert_close(kappa, expected + torch.zeros_like(similarity))
        assert element.weight_range == (kappa.min(), kappa.max())


X, Y = paired_batch(4, 3)
TANGENT = "nca/linear/tangent"
WRONG = (
    (lambda: gk.goal_loss(X, Y, "nca/linear/up"), ValueError, "direction: unknown .*'up'.*tangent"),
    (
        lambda: gk.goal_loss(X, Y, "nca/linear", direction_element="dot"),
        TypeError,
        "direction_element: .*; name it in the objective, 'triplet/pair/direction'",
    ),
    (lambda: gk.goal_loss(X, Y, "nca/linear/dot/dot"), ValueError, "or 'triplet/pair/direction'"),
    (lambda: gk.Objective("nca", "linear", direction_element=3), TypeError, "direction: expected"),
    (
        lambda: gk.Objective("nca", "linear", direction_element=lambda p, n: p),
        TypeError,
        r"direction: a callable must accept one argument \(similarity \[B\]\)",
    ),
    (
        lambda: gk.goal_loss_from_similarity(X @ Y.T, TANGENT),
        ValueError,
        "objective: expected the direction 'dot' .* give embeddings to goal_loss",
    ),
    (
        lambda: gk.goal_loss(X, Y, TANGENT, negatives="all"),
        ValueError,
        "negatives: expected another kind than 'all' .* normalize=True",
    ),
    (
        lambda: metric_learning.GOALLoss(TANGENT, normalize=False),
        ValueError,
        "objective: expected the direction 'dot' with normalize=False",
    ),
    (lambda: gk.register_direction("dot", lambda s: s), ValueError, "'dot' exists already"),
)


@pytest.mark.parametrize(("call", "error", "words"), WRONG, ids=range(len(WRONG)))
def test_messages(call, error, words) -> None:
    with pytest.raises(error, match=words):
        call()


def test_all_negatives_of_normalised_rows_have_every_direction() -> None:
    image, text = paired_batch(12, 6)
    options = {"negatives": "all", "normalize": True}
    found = gradients(image, text, "nca/linear/euclidean", **options)
    expected = gradients(image, text, "nca/linear", **options)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_only_the_gradient_that_is_needed_times_the_incoming_one() -> None:
    image, text = paired_batch(12, 6)
    _, *both = gradients(image, text, TANGENT)
    for side in (0, 1):
        pair = [image, text]
        pair[side] = pair[side].clone().requires_grad_()
        (-2.5 * gk.goal_loss(*pair, TANGENT, reduction="mean")).backward()
        torch.testing.assert_close(pair[side].grad, -2.5 / 12 * both[side])


def test_autocast_changes_nothing() -> None:
    image, text = paired_batch(33, 24, torch.float32)
    plain = gradients(image, text, TANGENT)
    with torch.autocast("cpu", torch.bfloat16):
        inside = gradients(image, text, TANGENT)
    assert all(torch.equal(a, b) for a, b in zip(inside, plain, strict=True))


def test_captions_compile_as_one_graph() -> None:
    image, text, owner = captioned_batch(12, 6, torch.bfloat16)
    image.requires_grad_()

    def function(x, y, owner):
        return gk.goal_loss(x, y, TANGENT, text_to_image=owner, negatives=gk.TopK(2))

    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    expected, found = function(image, text, owner), compiled(image, text, owner)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    (a,), (b,) = (torch.autograd.grad(loss, image) for loss in (expected, found))
    assert a.dtype == torch.bfloat16
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("options", [{}, {"negatives": gk.SkipHardest(2)}], ids=["ids", "skipped"])
def test_anchors_without_a_negative_get_nothing(options) -> None:
    """Their similarities are minus infinity, which no direction may look at."""
    image, text = paired_batch(3, 4)
    options = options or {"image_ids": [5, 5, 5]}
    loss, *parts = gradients(image, text, TANGENT, **options)
    assert loss == 0
    assert all(torch.equal(part, torch.zeros_like(part)) for part in parts)
    image, text, owner = captioned_batch(9, 4)
    ids = torch.zeros(9, dtype=torch.int64)
    ids[0] = 1
    found = gradients(image, text, TANGENT, text_to_image=owner, image_ids=ids)
    assert all(part.isfinite().all() for part in found)


@pytest.mark.parametrize("backend", ["chunked", "cpu"])
def test_bits_do_not_depend_on_the_number_of_threads(backend) -> None:
    image, text = paired_batch(600, 64, torch.float32)
    before = torch.get_num_threads()
    seen = []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            seen.append(gradients(image, text, "nca/sigmoid_ms/tangent", backend=backend))
    finally:
        torch.set_num_threads(before)
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other[1:], seen[0][1:], strict=True))
