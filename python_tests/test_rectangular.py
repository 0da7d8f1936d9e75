"""Several texts an image, texts of no image, images of no text: `text_to_image`."""

from __future__ import annotations

from functools import cache

import numpy as np
import oracle
import pytest
import torch
from cases import DTYPES, OBJECTIVES, captioned_batch, paired_batch
from test_backend_parity import device_or_skip
from torch.nn.functional import normalize

import goal_kernels as gk

BACKENDS = ("reference", "chunked", "cpu")

PLAIN = [o for o in OBJECTIVES if o.pair_element.relative == "none"]

TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
"""Of a gradient row, over the largest: what its dtype resolves."""


def run(image, text, objective, **options):
    """Loss, statistics and both gradients."""
    x, y = image.clone().requires_grad_(), text.clone().requires_grad_()
    loss, stats = gk.goal_loss(x, y, objective, return_stats=True, **options)
    loss.backward()
    return loss.item(), stats, x.grad, y.grad


def check_close(found, expected, tolerance) -> None:
    scale = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("with_ids", [False, True], ids=["alone", "ids"])
@pytest.mark.parametrize("direction", ["both", "i2t", "t2i"])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
def test_against_the_loop(objective, direction, with_ids) -> None:
    image, text, owner = captioned_batch(9, 6)
    ids = (torch.arange(9) % 4, torch.arange(len(text)) % 5) if with_ids else (None, None)
    loss, stats, *grads = run(
        image, text, objective, text_to_image=owner, direction=direction, backend="reference",
        image_ids=ids[0], text_ids=ids[1],
    )  # fmt: skip
    expected = oracle.run(
        image.numpy(),
        text.numpy(),
        *objective.name.split("/"),
        image_ids=ids[0].tolist() if with_ids else None,
        text_ids=ids[1].tolist() if with_ids else None,
        direction=direction,
        text_to_image=owner.tolist(),
    )
    hardest_text = [-1 if i < 0 else expected.hardest_text[i] for i in owner.tolist()]
    assert stats.hardest_text.tolist() == hardest_text
    assert stats.hardest_image.tolist() == expected.hardest_image
    assert loss == pytest.approx(expected.value, abs=1e-11)
    np.testing.assert_allclose(grads[0].numpy(), expected.grad_image, rtol=0, atol=1e-11)
    np.testing.assert_allclose(grads[1].numpy(), expected.grad_text, rtol=0, atol=1e-11)


def owned_batch(shape, dtype, scaled):
    """Both sides, and the options that name owners and ids."""
    image, text, owner = captioned_batch(*shape, dtype=dtype)
    ids = torch.arange(shape[0]) // 2
    return image, text, {"text_to_image": owner, "image_ids": ids, "normalize": scaled}


@cache
def truth_of(objective, shape, dtype, scaled):
    """Loss, statistics and gradients in float64 of the rows that `dtype` rounds to."""
    image, text, options = owned_batch(shape, dtype, scaled)
    return run(image.double(), text.double(), objective, backend="reference", **options)


@pytest.mark.parametrize("shape", [(3, 2), (37, 16), (150, 40)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_agree(backend, dtype, shape) -> None:
    """Values, indices and gradients of the float64 truth of the same rounded rows."""
    for objective in ("hinge/constant", "nca/linear_ms", "circle/sigmoid_ms"):
        for scaled in (False, True):
            image, text, options = owned_batch(shape, dtype, scaled)
            loss, stats, *grads = run(image, text, objective, backend=backend, **options)
            truth = truth_of(objective, shape, dtype, scaled)
            if dtype == torch.float64 or not scaled:
                assert torch.equal(stats.hardest_text, truth[1].hardest_text)
                assert torch.equal(stats.hardest_image, truth[1].hardest_image)
            assert loss == pytest.approx(truth[0], rel=1e-4, abs=1e-5)
            for found, expected in zip(grads, truth[2:], strict=True):
                check_close(found, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("objective", PLAIN, ids=lambda o: o.name)
def test_equals_the_square_batch_with_images_repeated(objective, backend) -> None:
    """Not so with relative sums: R- of a text counts each image once here, five times there."""
    images, captions = 21, 5
    owner = torch.arange(images).repeat_interleave(captions)[torch.randperm(images * captions)]
    image = normalize(torch.randn(images, 16, dtype=torch.float64), dim=1)
    text = normalize(image[owner] + 0.2 * torch.randn(len(owner), 16, dtype=torch.float64), dim=1)
    loss, stats, *grads = run(image, text, objective, text_to_image=owner, backend=backend)
    x = image.clone().requires_grad_()
    y = text.clone().requires_grad_()
    square, repeated = gk.goal_loss(
        x[owner], y, objective, image_ids=owner, backend=backend, return_stats=True
    )
    square.backward()
    assert loss == pytest.approx(square.item(), rel=1e-12)
    assert torch.equal(stats.hardest_text, repeated.hardest_text)
    assert torch.equal(stats.hardest_image, owner[repeated.hardest_image])
    assert stats.summary() == pytest.approx(repeated.summary(), rel=1e-12)
    check_close(grads[0], x.grad, 1e-12)
    check_close(grads[1], y.grad, 1e-12)


@pytest.mark.parametrize("objective", ["hinge/constant", "nca/linear_ms", "circle/sigmoid_ms"])
def test_the_gpu_pipeline_mines_it(objective) -> None:
    """In Triton's interpreter where there is no GPU; the gradient rows are summed by torch."""
    device = device_or_skip("triton", torch.float32, 16)
    image, text, owner = captioned_batch(37, 16, torch.float32)
    options = {"image_ids": torch.arange(37, device=device) // 2, "normalize": True}
    moved = (image.to(device), text.to(device), objective)
    loss, stats, *grads = run(*moved, text_to_image=owner.to(device), backend="triton", **options)
    options["image_ids"] = options["image_ids"].cpu()
    truth = run(image.double(), text.double(), objective, text_to_image=owner, **options)
    assert torch.equal(stats.hardest_text.cpu(), truth[1].hardest_text)
    assert torch.equal(stats.hardest_image.cpu(), truth[1].hardest_image)
    assert loss == pytest.approx(truth[0], rel=1e-5)
    for found, expected in zip(grads, truth[2:], strict=True):
        check_close(found.cpu(), expected, TOLERANCE[torch.float32])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
def test_one_text_an_image_is_the_square_batch(objective, backend) -> None:
    image, text = paired_batch(40, 16)
    order = torch.randperm(40)
    loss, stats, *grads = run(image, text[order], objective, text_to_image=order, backend=backend)
    square = run(image, text, objective, backend=backend)
    assert loss == pytest.approx(square[0], rel=1e-11)
    assert torch.equal(order[stats.hardest_text], square[1].hardest_text[order])
    check_close(grads[0], square[2], 1e-11)
    check_close(grads[1], square[3][order], 1e-11)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
def test_scores_give_what_embeddings_give(objective) -> None:
    image, text, owner = captioned_batch(23, 8)
    options = {"text_to_image": owner, "image_ids": torch.arange(23) // 2, "reduction": "mean"}
    loss, stats, *grads = run(image, text, objective, backend="reference", **options)
    scores = (image @ text.T).requires_grad_()
    of_scores, seen = gk.goal_loss_from_similarity(scores, objective, return_stats=True, **options)
    of_scores.backward()
    assert of_scores.item() == pytest.approx(loss, rel=1e-12)
    assert torch.equal(seen.hardest_text, stats.hardest_text)
    check_close(scores.grad @ text, grads[0], 1e-12)
    check_close(scores.grad.T @ image, grads[1], 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_mine(backend) -> None:
    image, text, owner = captioned_batch(37, 16)
    similarity = image @ text.T
    allowed = owner[None, :] != torch.arange(37)[:, None]
    found = gk.mine(image, text, text_to_image=owner, backend=backend)
    masked = similarity.masked_fill(~allowed, -torch.inf)
    assert torch.equal(found.hardest_text, masked.max(dim=1).indices)
    assert torch.equal(found.hardest_image, masked.max(dim=0).indices)
    torch.testing.assert_close(found.negative_image, masked.amax(dim=0))
    own = similarity.gather(0, owner.clamp(min=0)[None])[0]
    torch.testing.assert_close(found.positive, own.masked_fill(owner < 0, -torch.inf))


def test_ids_of_images_are_those_of_their_texts_and_of_no_other() -> None:
    image, text, owner = captioned_batch(17, 8)
    ids = torch.arange(17) // 3
    no_id = torch.full((), -100)
    text_ids = torch.where(owner >= 0, ids[owner.clamp(min=0)], no_id)
    alone = run(image, text, "nca/sigmoid_ms", text_to_image=owner, image_ids=ids)
    both = run(image, text, "nca/sigmoid_ms", text_to_image=owner, image_ids=ids, text_ids=text_ids)
    assert alone[0] == both[0]
    assert torch.equal(alone[2], both[2])
    assert torch.equal(alone[3], both[3])


@pytest.mark.parametrize("pair", ["constant", "linear_ms", "sigmoid_ms"])
def test_extra_texts_change_only_what_they_are_the_hardest_of(pair) -> None:
    """A text of no image that is opposite to all images is nobody's hardest: nothing changes."""
    image = normalize(torch.rand(12, 8, dtype=torch.float64), dim=1)
    text = normalize(image + 0.3 * torch.rand(12, 8, dtype=torch.float64), dim=1)
    far = -torch.ones(3, 8, dtype=torch.float64) / 8**0.5
    objective = gk.Objective("nca", pair)
    plain = run(image, text, objective, text_to_image=range(12))
    more = run(image, torch.cat([text, far]), objective, text_to_image=[*range(12), -1, -1, -1])
    assert more[0] == plain[0]
    assert torch.equal(more[2], plain[2])
    assert torch.equal(more[3][:12], plain[3])
    assert not more[3][12:].any()
    assert more[1].summary() == plain[1].summary()


def test_mean_divides_by_the_pairs() -> None:
    image, text, owner = captioned_batch(17, 8)
    total = run(image, text, "nca/linear", text_to_image=owner)
    mean = run(image, text, "nca/linear", text_to_image=owner, reduction="mean")
    pairs = int((owner >= 0).sum())
    assert mean[0] == pytest.approx(total[0] / pairs)
    check_close(mean[2] * pairs, total[2], 1e-12)


def test_statistics_count_pairs_alone() -> None:
    image, text, owner = captioned_batch(17, 8)
    _, stats, *_ = run(image, text, "hinge/constant", text_to_image=owner)
    positive = (image[owner.clamp(min=0)] * text).sum(dim=1)[owner >= 0]
    assert stats.mean_positive.item() == pytest.approx(positive.mean().item())
    assert stats.rows_without_negative == 0
    active = (stats.active_text | stats.active_image)[owner < 0]
    assert not active.any()
    assert 0 < stats.active_fraction <= 1


def test_an_image_alone_has_texts_but_no_negatives() -> None:
    image, text, owner = captioned_batch(4, 8)
    _, stats, grad_image, grad_text = run(
        image[:1], text, "nca/linear", text_to_image=torch.zeros_like(owner)
    )
    assert stats.rows_without_negative == 2 * len(text)
    assert not grad_image.any()
    assert not grad_text.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_as_one_graph(backend) -> None:
    """All are traced; one graph goes through autograd's compilation, others differ in a name."""
    compiler = "aot_eager" if backend == "cpu" else "eager"
    image, text, owner = captioned_batch(12, 6, torch.float32)
    image.requires_grad_()

    def function(x, y, owner):
        return gk.goal_loss(
            x, y, "nca/sigmoid_ms", text_to_image=owner, reduction="mean", backend=backend
        )

    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend=compiler)
    expected, found = function(image, text, owner), compiled(image, text, owner)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    (a,), (b,) = (torch.autograd.grad(loss, image) for loss in (expected, found))
    torch.testing.assert_close(a, b)


def test_the_module_takes_it_too() -> None:
    image, text, owner = captioned_batch(12, 6)
    loss = gk.GOALLoss("nca/linear")(image, text, text_to_image=owner)
    assert loss.item() == run(image, text, "nca/linear", text_to_image=owner)[0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_reruns_are_bit_equal_for_any_number_of_threads(backend) -> None:
    image, text, owner = captioned_batch(600, 64, torch.float32)
    before = torch.get_num_threads()
    seen = []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            seen.append(run(image, text, "nca/sigmoid_ms", text_to_image=owner, backend=backend))
    finally:
        torch.set_num_threads(before)
    for other in seen[1:]:
        assert torch.equal(other[2], seen[0][2])
        assert torch.equal(other[3], seen[0][3])
