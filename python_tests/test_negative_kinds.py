"""Negatives other than the hardest: semi-hard, skipped, several, sampled; false ones left out."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

import numpy as np
import oracle
import pytest
import torch
from cases import DTYPES, OBJECTIVES, captioned_batch, paired_batch
from oracle import Kind
from torch import Tensor

import goal_kernels as gk
from goal_kernels import native
from goal_kernels.backends import candidates, selection
from goal_kernels.backends.gumbel import noise
from goal_kernels.backends.gumbel import words as gumbel_words
from goal_kernels.negatives import named_negatives

BACKENDS = ("reference", "chunked", "cpu")

KINDS = {
    "limit": (Kind(margin=0.05), {"false_negative_margin": 0.05}),
    "ratio": (Kind(ratio=0.9), {"false_negative_ratio": 0.9}),
    "semi_hard": (Kind("semi_hard"), {"negatives": "semi_hard"}),
    "skip": (Kind("skip_hardest", 2), {"negatives": gk.SkipHardest(2)}),
    "top": (Kind("top_k", 3), {"negatives": gk.TopK(3)}),
    "sampled": (Kind("sampled", 1, 0.1, -7), {"negatives": gk.Sampled(0.1, -7)}),
    "all at once": (
        Kind("top_k", 4, margin=0.2, ratio=1.2),
        {"negatives": gk.TopK(4), "false_negative_margin": 0.2, "false_negative_ratio": 1.2},
    ),
}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def run(image, text, objective, **options):
    """Loss, statistics and both gradients."""
    x, y = image.clone().requires_grad_(), text.clone().requires_grad_()
    loss, stats = gk.goal_loss(x, y, objective, return_stats=True, **options)
    loss.backward()
    return loss.item(), stats, x.grad, y.grad


def near_positives(images: int, width: int, **options) -> tuple[Tensor, Tensor, Tensor]:
    """A captioned batch in which some wrong texts score higher than the right ones."""
    image, text, owner = captioned_batch(images, width, **options)
    return image, (text + 0.6 * text.roll(1, 0)) / 1.4, owner


def check_oracle(name, objective, batch, direction="both", ids=None, exempt=None) -> None:
    image, text, owner = batch
    kind, options = KINDS[name]
    options = dict(options)
    if ids is not None:
        options |= {"image_ids": ids[0], "text_ids": ids[1]}
    if exempt is not None:
        kind, options["exempt_texts"] = kind._replace(exempt=tuple(exempt.tolist())), exempt
    loss, stats, *grads = run(
        image, text, objective, text_to_image=owner, direction=direction, backend="reference",
        **options,
    )  # fmt: skip
    expected = oracle.run(
        image.numpy(),
        text.numpy(),
        *objective.name.split("/"),
        image_ids=None if ids is None else ids[0].tolist(),
        text_ids=None if ids is None else ids[1].tolist(),
        direction=direction,
        text_to_image=owner.tolist(),
        kind=kind,
    )
    of_images = [-1 if i < 0 else expected.hardest_text[i] for i in owner.tolist()]
    assert stats.hardest_text.tolist() == of_images
    assert stats.hardest_image.tolist() == expected.hardest_image
    assert stats.skipped_text.tolist() == expected.skipped_text
    assert stats.skipped_image.tolist() == expected.skipped_image
    total = sum(expected.skipped_text) + sum(expected.skipped_image)
    assert stats.skipped_negatives == total
    assert loss == pytest.approx(expected.value, abs=1e-11)
    np.testing.assert_allclose(grads[0].numpy(), expected.grad_image, rtol=0, atol=1e-10)
    np.testing.assert_allclose(grads[1].numpy(), expected.grad_text, rtol=0, atol=1e-10)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
@pytest.mark.parametrize("name", KINDS)
def test_against_the_loop(name, objective) -> None:
    check_oracle(name, objective, near_positives(9, 4))


@pytest.mark.parametrize("direction", ["i2t", "t2i"])
@pytest.mark.parametrize("name", KINDS)
def test_ids_and_direction(name, direction) -> None:
    batch = near_positives(9, 4)
    ids = torch.arange(9) % 4, torch.arange(len(batch[1])) % 5
    check_oracle(name, gk.Objective("nca", "sigmoid_ms"), batch, direction, ids)


@pytest.mark.parametrize("name", ["limit", "ratio", "all at once"])
def test_exempt_texts_are_never_left_out(name) -> None:
    batch = near_positives(9, 4)
    exempt = torch.arange(len(batch[1])) % 3 == 0
    check_oracle(name, gk.Objective("nca", "linear_ms"), batch, exempt=exempt)


@pytest.mark.parametrize("name", KINDS)
def test_ties_of_copies(name) -> None:
    """Rows of quarters in several copies: sums are exact, the lowest index is the first."""
    generator = torch.Generator().manual_seed(4)
    image, text = torch.randint(-2, 3, (2, 6, 4), generator=generator).double() / 4
    batch = image.repeat(3, 1), text.repeat(3, 1), torch.arange(18)
    check_oracle(name, gk.Objective("nca", "sigmoid_ms"), batch)


def owned_batch(name, shape, dtype) -> tuple[Tensor, Tensor, dict]:
    """Both sides, and the options of a kind of negatives with owners and ids."""
    image, text, owner = near_positives(*shape, dtype=dtype)
    ids = torch.arange(shape[0]) // 2
    return image, text, {"text_to_image": owner, "image_ids": ids, **KINDS[name][1]}


@cache
def truth_of(name, objective, shape, dtype):
    """Loss, statistics and gradients in float64 of the rows that `dtype` rounds to."""
    image, text, options = owned_batch(name, shape, dtype)
    return run(image.double(), text.double(), objective, backend="reference", **options)


@pytest.mark.parametrize("shape", [(3, 2), (70, 24)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", KINDS)
def test_backends_agree(name, backend, dtype, shape, monkeypatch) -> None:
    """With blocks smaller than the batch: one and a rest of the images, more of the texts."""
    monkeypatch.setattr("goal_kernels.selection_ops.BLOCK", 64)
    image, text, options = owned_batch(name, shape, dtype)
    for objective in ("hinge/constant", "nca/linear_ms", "circle/sigmoid_ms"):
        loss, stats, *grads = run(image, text, objective, backend=backend, **options)
        truth = truth_of(name, objective, shape, dtype)
        assert torch.equal(stats.hardest_text, truth[1].hardest_text)
        assert torch.equal(stats.hardest_image, truth[1].hardest_image)
        assert loss == pytest.approx(truth[0], rel=1e-4, abs=1e-5)
        for found, expected in zip(grads, truth[2:], strict=True):
            scale = max(1.0, expected.abs().max().item())
            torch.testing.assert_close(
                found.double(), expected, rtol=0, atol=TOLERANCE[dtype] * scale
            )


@pytest.mark.parametrize("name", KINDS)
def test_square_batches_and_scores(name) -> None:
    """Without text_to_image text i belongs to image i; scores give what embeddings give."""
    image, text = paired_batch(23, 8)
    options = {**KINDS[name][1], "reduction": "mean"}
    loss, stats, *grads = run(image, text, "nca/sigmoid_ms", **options)
    owned = run(image, text, "nca/sigmoid_ms", text_to_image=range(23), **options)
    assert owned[0] == loss
    assert torch.equal(owned[2], grads[0])
    scores = (image @ text.T).requires_grad_()
    of_scores, seen = gk.goal_loss_from_similarity(
        scores, "nca/sigmoid_ms", return_stats=True, **options
    )
    of_scores.backward()
    assert of_scores.item() == pytest.approx(loss, rel=1e-12)
    assert torch.equal(seen.hardest_text, stats.hardest_text)
    torch.testing.assert_close(scores.grad @ text, grads[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(scores.grad.T @ image, grads[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_mine(backend) -> None:
    image, text, owner = near_positives(37, 16)
    similarity = image @ text.T
    allowed = owner[None, :] != torch.arange(37)[:, None]
    masked = similarity.masked_fill(~allowed, -torch.inf)
    found = gk.mine(image, text, text_to_image=owner, negatives=gk.TopK(5), backend=backend)
    assert torch.equal(found.hardest_text, masked.sort(dim=1, descending=True).indices[:, :5])
    assert torch.equal(found.hardest_image, masked.sort(dim=0, descending=True).indices[:5].T)
    second = gk.mine(image, text, text_to_image=owner, negatives=gk.SkipHardest(1), backend=backend)
    assert torch.equal(second.hardest_text, found.hardest_text[:, 1])
    torch.testing.assert_close(second.negative_image, found.negative_image[:, 1])


@pytest.mark.parametrize("name", ["skip", "top", "semi_hard"])
def test_fewer_candidates_than_asked_for(name) -> None:
    """Of three pairs each anchor has two candidates: none after two are skipped, two of three."""
    image, text = paired_batch(3, 4)
    check_oracle(name, gk.Objective("nca", "linear_ms"), (image, text, torch.arange(3)))
    _, stats, grad_image, _ = run(image, text, "nca/linear", negatives=gk.SkipHardest(2))
    assert stats.rows_without_negative == 6
    assert not grad_image.any()


def test_ids_of_one_side_stand_for_both_in_a_square_batch() -> None:
    image, text = paired_batch(12, 6)
    ids = torch.arange(12) // 3
    both = gk.mine(image, text, image_ids=ids, text_ids=ids, negatives=gk.TopK(2))
    for alone in ({"image_ids": ids}, {"text_ids": ids}):
        found = gk.mine(image, text, negatives=gk.TopK(2), **alone)
        assert torch.equal(found.hardest_text, both.hardest_text)


def test_a_collapse_shows_where_no_semi_hard_negative_is_left() -> None:
    rows = torch.eye(4, dtype=torch.float64)[:1].expand(6, 4)
    for negatives in ("hardest", "semi_hard"):
        _, stats, *_ = run(rows, rows, "hinge/constant", negatives=negatives)
        assert stats.collapsed
    image, text = paired_batch(1, 4)
    assert not run(image, text, "hinge/constant", negatives="semi_hard")[1].collapsed


def test_one_of_the_top_is_the_hardest() -> None:
    image, text, owner = near_positives(37, 16)
    for objective in OBJECTIVES:
        one = run(image, text, objective, text_to_image=owner, negatives=gk.TopK(1))
        hardest = run(image, text, objective, text_to_image=owner)
        assert one[0] == pytest.approx(hardest[0], rel=1e-11)
        torch.testing.assert_close(one[2], hardest[2], rtol=0, atol=1e-11)


@pytest.mark.parametrize("block", [1, 7, 64])
@pytest.mark.parametrize("name", KINDS)
def test_blocks_change_nothing(name, block, monkeypatch) -> None:
    image, text, owner = near_positives(37, 16)
    whole = run(
        image, text, "nca/sigmoid_ms", text_to_image=owner, backend="reference", **KINDS[name][1]
    )
    monkeypatch.setattr("goal_kernels.selection_ops.BLOCK", block)
    blocks = run(
        image, text, "nca/sigmoid_ms", text_to_image=owner, backend="chunked", **KINDS[name][1]
    )
    assert torch.equal(whole[1].hardest_text, blocks[1].hardest_text)
    assert whole[0] == pytest.approx(blocks[0], rel=1e-12)
    torch.testing.assert_close(whole[2], blocks[2], rtol=0, atol=1e-11)


def gumbel(image: torch.Tensor, text: torch.Tensor, direction: int, seed: int) -> torch.Tensor:
    of_image, of_text = gumbel_words(image, text, direction, seed)
    return noise(of_image + of_text)


def test_draws_follow_the_probabilities() -> None:
    """40,000 draws of one anchor among four candidates, within five standard deviations."""
    scores = torch.tensor([0.0, 0.1, 0.2, 0.3], dtype=torch.float64)
    temperature, draws = 0.1, 40_000
    drawn: Counter[int] = Counter()
    for direction in (0, 1):
        image, text = torch.arange(4)[None, :], torch.arange(draws // 2)[:, None]
        keys = scores / temperature + gumbel(image, text, direction, seed=3)
        drawn.update(keys.argmax(dim=1).tolist())
    share = torch.softmax(scores / temperature, dim=0)
    for candidate, p in enumerate(share.tolist()):
        assert abs(drawn[candidate] - draws * p) < 5 * math.sqrt(draws * p * (1 - p))


@pytest.mark.skipif(not native.status()[0], reason="compares the native module")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("temperature", [1e-3, 0.1, 10.0])
def test_native_draws_are_those_of_all_keys(temperature, dtype) -> None:
    """Few keys are computed: that no other is larger holds for every candidate, special or not."""
    generator = torch.Generator().manual_seed(8)
    scores = torch.randn(70, 2 * 64, generator=generator, dtype=dtype)
    scores[::3] = 0.25  # the noise alone decides
    lowest, infinity = torch.finfo(dtype).min, torch.inf
    scores[1, 5:] = scores[2, :] = -infinity  # few candidates, none
    scores[4, 3], scores[4, 90], scores[5, 70:80] = torch.nan, torch.nan, infinity
    scores[7] = lowest
    words = gumbel_words(torch.arange(70), torch.arange(128) + 9, 1, seed=3)
    keys = scores.double().div(temperature).add_(noise(words[0][:, None] + words[1]))
    expected = selection._take(keys, scores, 1)
    found = selection._draw(scores, words, temperature)
    assert torch.equal(found.place, expected.place)
    assert found.place[0, 2] == -1
    torch.testing.assert_close(found.value, expected.value, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(found.key, expected.key, rtol=1e-14, atol=0, equal_nan=True)


def test_seeds_and_sides_draw_apart() -> None:
    image, text = torch.arange(40)[None, :], torch.arange(50)[:, None]
    first = gumbel(image, text, 0, 5)
    assert torch.equal(first, gumbel(image, text, 0, 5))
    for other in (gumbel(image, text, 1, 5), gumbel(image, text, 0, 6), gumbel(text, image, 0, 5)):
        correlation = torch.corrcoef(torch.stack([first.flatten(), other.flatten()]))[0, 1]
        assert abs(correlation) < 0.1


def test_infinities_and_nan() -> None:
    """A candidate of -inf is one all the same, NaN is above all and reaches the loss."""
    similarity = torch.tensor([[0.5, -torch.inf, 0.1], [0.2, 0.6, 0.3], [0.0, 0.4, 0.7]])
    found = gk.goal_loss_from_similarity(
        similarity, "nca/linear", negatives=gk.TopK(2), return_stats=True
    )[1]
    assert found.hardest_text.tolist() == [2, 2, 1]
    third = gk.goal_loss_from_similarity(
        similarity, "nca/linear", negatives=gk.SkipHardest(1), return_stats=True
    )[1]
    assert third.hardest_text.tolist() == [1, 0, 0]
    assert third.negative_text[0] == -torch.inf
    similarity[2, 0], similarity[2, 1] = torch.nan, 0.9
    loss, found = gk.goal_loss_from_similarity(
        similarity, "nca/linear", negatives="semi_hard", return_stats=True
    )
    assert found.hardest_text[2] == 0
    assert found.skipped_text.tolist() == [0, 0, 1]
    assert loss.isnan()


@pytest.mark.parametrize("name", KINDS)
def test_compiles_as_one_graph(name) -> None:
    """Every kind is traced; that of several negatives goes through autograd's compilation too."""
    image, text, owner = near_positives(12, 6, dtype=torch.float32)
    image.requires_grad_()
    objective = "nca/sigmoid_ms" if name == "all at once" else "nca/linear"
    backend = "aot_eager" if name == "top" else "eager"

    def function(x, y, owner):
        return gk.goal_loss(x, y, objective, text_to_image=owner, **KINDS[name][1])

    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    expected, found = function(image, text, owner), compiled(image, text, owner)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    (a,), (b,) = (torch.autograd.grad(loss, image) for loss in (expected, found))
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("relative", ["none", "linear"])
@pytest.mark.parametrize("scaled", [False, True])
def test_opcheck(scaled, relative) -> None:
    image, text, owner = near_positives(12, 6, dtype=torch.float32)
    exempt = owner % 2 == 0
    plan = candidates.Selection(candidates.TOP_K, 3, margin=0.2)
    torch.library.opcheck(
        torch.ops.goal_kernels.select,
        (text, image, owner, None, None, exempt, relative, 0.1, 10.0, scaled, "high", *plan, "cpu"),
    )
    torch.library.opcheck(
        torch.ops.goal_kernels.select_similarity,
        (text @ image.T, owner, None, None, exempt, relative, 0.1, 10.0, *plan, "reference"),
    )


def test_the_module_keeps_its_options() -> None:
    image, text, owner = near_positives(12, 6)
    criterion = gk.GOALLoss("nca/linear", negatives=gk.TopK(2), false_negative_margin=0.1)
    assert "TopK(count=2)" in repr(criterion)
    loss = criterion(image, text, text_to_image=owner)
    options = {"negatives": gk.TopK(2), "false_negative_margin": 0.1}
    assert loss.item() == run(image, text, "nca/linear", text_to_image=owner, **options)[0]


X, Y = paired_batch(4, 4)
WRONG = (
    ({"negatives": "hard"}, ValueError, "negatives: expected 'hardest', .* got 'hard'"),
    ({"negatives": gk.TopK}, ValueError, "negatives: expected 'hardest'"),
    ({"false_negative_margin": -0.1}, ValueError, "false_negative_margin: .* got -0.1"),
    ({"false_negative_margin": "no"}, TypeError, "false_negative_margin: expected a number"),
    ({"false_negative_ratio": math.nan}, ValueError, "false_negative_ratio: .* got nan"),
    ({"exempt_texts": [True]}, ValueError, r"exempt_texts: .* \[4\], got \[1\]"),
    ({"exempt_texts": [0, 1, 0, 1]}, TypeError, "exempt_texts: expected booleans"),
)


@pytest.mark.parametrize(("options", "error", "words"), WRONG, ids=range(len(WRONG)))
def test_messages(options, error, words) -> None:
    for call in (gk.goal_loss, lambda x, y, _, **o: gk.mine(x, y, **o)):
        with pytest.raises(error, match=words):
            call(X, Y, "nca/linear", **options)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: gk.TopK(0), ValueError),
        (lambda: gk.TopK(-3), ValueError),
        (lambda: gk.TopK(True), TypeError),
        (lambda: gk.SkipHardest(1.5), TypeError),
        (lambda: gk.Sampled(0.0), ValueError),
        (lambda: gk.Sampled(math.inf), ValueError),
        (lambda: gk.Sampled(1.0, seed=0.5), TypeError),
    ],
    ids=range(7),
)
def test_kinds_check_themselves(make, error) -> None:
    with pytest.raises(error, match="expected"):
        make()


def test_names_of_configuration_files() -> None:
    given = {
        "hardest": "hardest",
        "semi_hard": "semi_hard",
        "skip:2": gk.SkipHardest(2),
        "top:4": gk.TopK(4),
        "sampled:0.05": gk.Sampled(0.05),
    }
    assert {name: named_negatives(name) for name in given} == given
    for wrong in ("", "top", "top:", "top:0", "skip:1.5", "sampled:-1", "semi_hard:1", "harder:2"):
        with pytest.raises(ValueError, match=rf"negatives: expected .*sampled:\w+, got '{wrong}'"):
            named_negatives(wrong)
