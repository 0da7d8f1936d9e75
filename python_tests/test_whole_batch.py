"""Losses over all negatives against loops, and what their engine promises."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import oracle
import pytest
import torch
import torch.nn.functional as F
import whole_batch_literal as literal
from cases import caption_ids, captioned_batch, paired_batch
from torch import Tensor
from whole_batch_literal import Truth

import goal_kernels as gk
from bench.memory import peak_cpu
from goal_kernels import native
from goal_kernels.backends.choice import BackendUnavailableError
from goal_kernels.whole_batch import blocks, exponential, fused, kinds, sparse

SCALE, BIAS = 9.0, -3.0

Made = tuple[Callable[..., Any], Callable[[Tensor, Tensor], Callable[..., Tensor]]]

LOSSES: dict[str, Made] = {
    "sum_of_hinges": (
        lambda *x, scale, bias, **o: gk.sum_of_hinges_loss(*x, margin=0.3, **o),
        lambda scale, bias: literal.hinges(0.3),
    ),
    "soft_margin": (
        lambda *x, scale, bias, **o: gk.soft_margin_loss(*x, tau=5.0, **o),
        lambda scale, bias: literal.soft_margin(5.0),
    ),
    "info_nce": (
        lambda *x, scale, bias, **o: gk.info_nce_loss(*x, scale=scale, **o),
        lambda scale, bias: literal.info_nce(scale),
    ),
    "smooth_and_hard": (
        lambda *x, scale, bias, **o: gk.info_nce_loss(
            *x, scale=scale, label_smoothing=0.2, hardness=2.0, **o
        ),
        lambda scale, bias: literal.info_nce(scale, 0.2, 2.0),
    ),
    "siglip": (
        lambda *x, scale, bias, **o: gk.siglip_loss(*x, scale=scale, bias=bias, **o),
        literal.siglip,
    ),
    "multi_similarity": (
        lambda *x, scale, bias, **o: gk.multi_similarity_loss(*x, beta=20.0, **o),
        lambda scale, bias: literal.multi_similarity(2.0, 20.0, 0.5),
    ),
    "circle": (
        lambda *x, scale, bias, **o: gk.circle_loss(*x, gamma=20.0, **o),
        lambda scale, bias: literal.circle(20.0, 0.25),
    ),
}

DIRECTED = [name for name in LOSSES if name != "siglip"]
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 5e-3}

OWNER = [0, 0, 1, 2, -1, 4, 4, 4, 1, -1, 0, 2]
"""Of twelve texts among six images: two belong to none, two images have none."""

BATCHES = {
    "pairs": (12, None, None),
    "ids": (12, None, ([i % 8 for i in range(12)], [i % 8 for i in range(12)])),
    "captions": (6, OWNER, None),
    "captions and ids": (6, OWNER, ([0, 1, 2, 3, 1, 7], [0, 0, 1, 2, 3, 1, 1, 1, 1, 9, 0, 2])),
}


def rows(count: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, width, generator=generator, dtype=torch.float64), dim=1)


def check(
    name, batch, dtype=torch.float64, margin=math.inf, exempt=None, device="cpu", **options
) -> None:
    """Value and gradients, those of scale and bias too, against the loops in float64."""
    images, owner, ids = BATCHES[batch]
    given = [rows(images, 7, 1), rows(12, 7, 2), torch.tensor(SCALE).double()]
    given.append(torch.tensor(BIAS).double())
    inputs = [x.to(device, dtype).requires_grad_() for x in given]
    exact = [x.detach().double().cpu().requires_grad_() for x in inputs]
    truth = Truth(owner or list(range(12)), *(ids or (None, None)), margin, exempt)
    function, make = LOSSES[name]
    score = exact[0] @ exact[1].T
    direction = {k: v for k, v in options.items() if k == "direction"}
    expected = make(*exact[2:])(score, truth, **direction)
    if owner is not None:
        options["text_to_image"] = owner
    if ids is not None:
        options["image_ids"], options["text_ids"] = ids
    if margin < math.inf:
        options["false_negative_margin"] = margin
    if exempt is not None:
        options["exempt_texts"] = exempt
    found = function(*inputs[:2], scale=inputs[2], bias=inputs[3], **options)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = TOLERANCE[dtype]
    assert found.item() == pytest.approx(expected.item(), rel=tolerance)
    grads = torch.autograd.grad(expected, exact, allow_unused=True)
    answers = torch.autograd.grad(found, inputs, allow_unused=True)
    for left, right, like in zip(answers, grads, inputs, strict=True):
        if right is None:
            assert left is None
            continue
        assert left.dtype == like.dtype
        bound = tolerance * right.abs().max().item()
        torch.testing.assert_close(left.double().cpu(), right, rtol=0, atol=bound)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", LOSSES)
def test_equals_the_loops(name, batch) -> None:
    check(name, batch)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", LOSSES)
def test_equals_the_loops_on_a_gpu(name, batch, dtype) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    check(name, batch, dtype, device="cuda")


@pytest.mark.skipif(
    not (native.status()[0] and native.multiplies_bfloat16()),
    reason="products of bfloat16 rows come from native code and such a processor",
)
@pytest.mark.parametrize("name", ["info_nce", "siglip"])
def test_sums_of_bfloat16_rows_are_float32(name, monkeypatch) -> None:
    """The value to its digits; gradients lose what rounding weights, and them, once loses."""
    monkeypatch.setattr(blocks, "BLOCK", 32)
    inputs = [rows(300, 40, seed).bfloat16().requires_grad_() for seed in (1, 2)]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    function, _ = LOSSES[name]

    def step(given: list[Tensor]) -> tuple[Tensor, ...]:
        loss = function(*given, scale=SCALE, bias=BIAS)
        return loss.detach(), *torch.autograd.grad(loss, given)

    expected, found = step(exact), step(inputs)
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-6)
    for left, right in zip(found[1:], expected[1:], strict=True):
        assert (left.double() - right).norm() < 2.1e-3 * right.norm()
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert all(map(torch.equal, found, step(inputs)))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("direction", ["i2t", "t2i"])
@pytest.mark.parametrize("name", DIRECTED)
def test_one_direction(name, direction) -> None:
    check(name, "captions and ids", direction=direction)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_other_dtypes(name, dtype) -> None:
    check(name, "ids", dtype)


@pytest.mark.parametrize("name", DIRECTED)
def test_false_negatives_are_left_out(name) -> None:
    for batch in ("ids", "captions and ids"):
        check(name, batch, margin=0.1)
    check(name, "captions", margin=0.1, exempt=[k % 3 == 0 for k in range(12)])


def test_a_text_and_an_image_that_either_leaves_out_are_left_out_of_siglip() -> None:
    image, text = rows(12, 7, 1), rows(12, 7, 2)
    score = image @ text.T
    limit = score.diagonal() + 0.1
    over = (score > limit[:, None]) | (score > limit)
    logit = 10 * score - 10
    expected = F.softplus(logit.where(~torch.eye(12, dtype=torch.bool), -logit))[~over].sum()
    found, stats = gk.siglip_loss(image, text, false_negative_margin=0.1, return_stats=True)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    assert torch.equal(stats.skipped_texts, (score > limit[:, None]).sum(dim=1))
    assert torch.equal(stats.skipped_images, (score > limit).sum(dim=0))


@pytest.mark.parametrize("objective", ["hinge/constant", "nca/sigmoid", "circle/linear"])
@pytest.mark.parametrize("batch", BATCHES)
def test_goal_objectives_averaged_over_all_negatives(objective, batch) -> None:
    """Against loops of the equations; hinge/constant against the derivative of its value."""
    images, owner, ids = BATCHES[batch]
    truth = Truth(owner or list(range(12)), *(ids or (None, None)))
    image, text = rows(images, 7, 1).requires_grad_(), rows(12, 7, 2).requires_grad_()
    score = (image @ text.T).detach().requires_grad_()
    triplet, pair = objective.split("/")
    total = score.new_zeros(())
    value = 0.0
    for same in literal.anchors(score, truth, "both"):
        for a in same:
            if a.positive is None or not len(a.negatives):
                continue
            p = a.positive.item()
            for n in a.negatives:
                weight = oracle.triplet_weight(triplet, p, n.item(), oracle.Hyper())
                pull, push = oracle.pair_weight(pair, p, n.item(), 0, 0, oracle.Hyper())
                share = weight / len(a.negatives)
                total = total + share * (push * n - pull * a.positive)
                gap = n.item() - p
                value += (
                    max(0.0, 0.2 + gap) / len(a.negatives)
                    if triplet == "hinge"
                    else (gap / len(a.negatives))
                )
    (of_score,) = torch.autograd.grad(total, score)
    options: dict[str, Any] = {} if owner is None else {"text_to_image": owner}
    if ids is not None:
        options |= {"image_ids": ids[0], "text_ids": ids[1]}
    loss = gk.goal_loss(image, text, objective, negatives="all", **options)
    assert loss.item() == pytest.approx(value, rel=1e-12)
    found = torch.autograd.grad(loss, [image, text])
    expected = of_score @ text.detach(), of_score.T @ image.detach()
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pair", ["linear_ms", "sigmoid_ms"])
@pytest.mark.parametrize("batch", BATCHES)
def test_relative_similarities_of_all_negatives(batch, pair, monkeypatch) -> None:
    """As with the k hardest of them, when k is all there are; also in blocks and in float32."""
    images, owner, ids = BATCHES[batch]
    options: dict[str, Any] = {} if owner is None else {"text_to_image": owner}
    if ids is not None:
        options |= {"image_ids": ids[0], "text_ids": ids[1]}

    def step(negatives: Any, dtype: torch.dtype, **more: Any) -> tuple[Tensor, ...]:
        inputs = [rows(n, 7, seed).to(dtype).requires_grad_() for n, seed in ((images, 1), (12, 2))]
        loss = gk.goal_loss(*inputs, f"nca/{pair}", negatives=negatives, **options, **more)
        return loss.detach().double(), *(x.double() for x in torch.autograd.grad(loss, inputs))

    for more in ({}, {"false_negative_margin": 0.2}, {"direction": "i2t", "epsilon": 0.6}):
        expected = step(gk.TopK(12), torch.float64, **more)
        for block in (blocks.BLOCK, 5):
            monkeypatch.setattr(blocks, "BLOCK", block)
            for dtype in (torch.float64, torch.float32):
                found = step("all", dtype, **more)
                for left, right in zip(found, expected, strict=True):
                    bound = TOLERANCE[dtype] * right.abs().max().item()
                    torch.testing.assert_close(left, right, rtol=0, atol=bound)


def test_a_custom_element_averaged_over_all_negatives() -> None:
    half = gk.Objective(lambda positive, negative: 0.5 + 0 * positive, "constant")
    image, text = rows(12, 7, 1).requires_grad_(), rows(12, 7, 2)
    loss = gk.GOALLoss(half, negatives="all", false_negative_margin=0.2)(image, text)
    whole = gk.GOALLoss("constant/constant", negatives="all", false_negative_margin=0.2)
    (found,) = torch.autograd.grad(loss, image)
    (expected,) = torch.autograd.grad(whole(image, text), image)
    torch.testing.assert_close(found, 0.5 * expected, rtol=1e-12, atol=0)


def test_hardness_of_single_negatives_as_an_element() -> None:
    """docs/whole_batch.md: weights that count as constants are a triplet element."""
    image, text = rows(12, 7, 1).requires_grad_(), rows(12, 7, 2)
    hard = gk.Objective(
        lambda positive, negative: (12 * negative - 10 * positive).sigmoid(), "constant"
    )
    (found,) = torch.autograd.grad(gk.goal_loss(image, text, hard, negatives="all"), image)
    score = image @ text.T
    gaps = score - score.diagonal()[:, None], score - score.diagonal()
    weight = 2 * score.detach()
    terms = sum(F.softplus(weight + 10 * gap, threshold=40) / 10 for gap in gaps)
    (expected,) = torch.autograd.grad((terms - terms.diag().diag()).sum() / 11, image)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("limits", [{}, {"false_negative_margin": 0.3}])
def test_averages_over_several_blocks(limits, monkeypatch) -> None:
    """Of how many negatives is counted block by block, with ids and captions."""
    image, text, owner = captioned_batch(30, 6, dtype=torch.float64)
    ids = torch.arange(30) % 7

    def step() -> tuple[Tensor, ...]:
        x, y = image.clone().requires_grad_(), text.clone().requires_grad_()
        options = {"negatives": "all", "text_to_image": owner, "image_ids": ids, **limits}
        loss = gk.goal_loss(x, y, "constant/linear", **options)
        return loss.detach(), *torch.autograd.grad(loss, [x, y])

    whole = step()
    monkeypatch.setattr(blocks, "BLOCK", 16)
    for left, right in zip(step(), whole, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-12)


def test_one_image_of_many_texts_costs_little_more(monkeypatch) -> None:
    """Weights of the texts beyond the first are those of few columns."""
    seen = []
    terms = kinds.SoftMargin.terms

    def watch(self, positive, negative, *rest):
        seen.append(negative.numel())
        return terms(self, positive, negative, *rest)

    monkeypatch.setattr(kinds.SoftMargin, "terms", watch)
    image, text = rows(20, 7, 1), rows(60, 7, 2)
    owner = [0] * 41 + list(range(1, 20))
    loss = gk.soft_margin_loss(image, text, text_to_image=owner)
    expected = literal.soft_margin(10.0)(image @ text.T, Truth(owner))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert sum(seen) == 2 * 20 * 60 + 40 * 60


@pytest.mark.parametrize("name", LOSSES)
def test_blocks_change_nothing_but_rounding(name, monkeypatch) -> None:
    image, text, owner = captioned_batch(20, 16, dtype=torch.float32)
    ids = torch.arange(20) % 17
    function, _ = LOSSES[name]

    def step() -> tuple[Tensor, ...]:
        x, y = image.clone().requires_grad_(), text.clone().requires_grad_()
        scale = torch.tensor(SCALE, requires_grad=True)
        options = {"scale": scale, "bias": BIAS, "text_to_image": owner, "image_ids": ids}
        loss = function(x, y, normalize=True, **options)
        grads = torch.autograd.grad(loss, [x, y, scale], allow_unused=True)
        return loss.detach(), *(g for g in grads if g is not None)

    whole, again = step(), step()
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    monkeypatch.setattr(blocks, "BLOCK", 16)
    monkeypatch.setattr(blocks, "CACHED_ELEMENTS", 60)
    for left, right in zip(step(), whole, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4 * right.abs().max().item())


@pytest.fixture
def epilogues(monkeypatch) -> list[str]:
    """Triton's kernels weigh blocks of CPU tensors, interpreted; the names of those that ran."""
    ran: list[str] = []
    run = fused.Epilogues._run

    def watch(self, kernel, *arguments) -> None:
        ran.append(kernel)
        run(self, kernel, *arguments)

    monkeypatch.setattr(fused.Epilogues, "_run", watch)
    monkeypatch.setattr(fused, "_has_triton", lambda batch: True)
    monkeypatch.setattr(exponential, "NARROW", 0.0)
    monkeypatch.setattr(sparse, "LEAST", math.inf)
    return ran


FUSED = {
    "sum_of_hinges": ("pairs", "ids"),
    "soft_margin": ("pairs", "ids"),
    "info_nce": ("pairs", "ids", "captions", "captions and ids"),
    "siglip": ("pairs", "ids", "captions", "captions and ids"),
    "multi_similarity": ("pairs", "captions"),
    "circle": ("pairs", "captions"),
}
"""The batches whose blocks Triton weighs."""


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", LOSSES)
def test_blocks_that_triton_weighs(name, batch, epilogues) -> None:
    check(name, batch, torch.float32)
    assert bool(epilogues) == (batch in FUSED.get(name, ()))
    for options in ({"direction": "i2t"}, {"direction": "t2i"}):
        if name != "siglip":
            check(name, batch, torch.float32, **options)


@pytest.mark.parametrize("name", FUSED)
def test_triton_weighs_several_tiles_as_torch_does(name, epilogues, monkeypatch) -> None:
    """Tiles at both edges, blocks that end in the middle; statistics too."""
    function, _ = LOSSES[name]
    image, text = paired_batch(150, 8, torch.float32)
    monkeypatch.setattr(blocks, "BLOCK", 100)
    ids = torch.arange(150) % 140

    def step() -> tuple[Tensor, ...]:
        x, y = image.clone().requires_grad_(), text.clone().requires_grad_()
        options = {"scale": SCALE, "bias": BIAS, "return_stats": True}
        if "ids" in FUSED[name]:
            options |= {"image_ids": ids, "text_ids": ids}
        loss, stats = function(x, y, **options)
        return loss.detach(), stats.active_fraction, *torch.autograd.grad(loss, [x, y])

    found, again = step(), step()
    assert epilogues
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    monkeypatch.setattr(fused, "_has_triton", lambda batch: False)
    for left, right in zip(found, step(), strict=True):
        torch.testing.assert_close(left, right, rtol=2e-5, atol=2e-5 * right.abs().max().item())


def test_triton_keeps_the_digits_of_small_terms(epilogues) -> None:
    """log(1 + exp z) where exp z is below the spacing of numbers around 1."""
    image, text = rows(12, 7, 1).float(), rows(12, 7, 2).float()
    alone = torch.full((12,), -1)
    question = blocks.Question(alone, *(None,) * 3, *(math.inf,) * 2, "both", False, False)
    batch = blocks.Batch(text, image, question)
    ((part, block),) = batch.blocks()
    kind = kinds.Siglip(torch.tensor(1.0), torch.tensor(-25.0))
    values, by_bias = fused.Epilogues(kind, batch).weigh_siglip(part, block)
    expected = torch.exp(text.double() @ image.double().T - 25).sum()
    for found in (values, by_bias):
        assert found.sum().item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("name", FUSED)
def test_triton_passes_nan_on(name, epilogues) -> None:
    image, text = rows(12, 7, 1).float(), rows(12, 7, 2).float()
    text[3, 2] = math.nan
    loss = LOSSES[name][0](image, text, scale=SCALE, bias=BIAS)
    assert loss.isnan()
    assert epilogues


@pytest.mark.parametrize("name", ["info_nce", "smooth_and_hard", "multi_similarity", "circle"])
def test_wide_exponents_give_what_narrow_ones_do(name, monkeypatch) -> None:
    for batch in BATCHES:
        monkeypatch.setattr(exponential, "NARROW", 0.0)
        check(name, batch)
        monkeypatch.undo()


def test_exponents_far_beyond_the_range_of_float32() -> None:
    image, text = rows(12, 7, 1).float().requires_grad_(), rows(12, 7, 2).float()
    logits = 4000 * (image.double() @ text.double().T)
    places = torch.arange(12)
    expected = F.cross_entropy(logits, places, reduction="sum")
    expected = expected + F.cross_entropy(logits.T, places, reduction="sum")
    loss = gk.info_nce_loss(image, text, scale=4000.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    found, right = (torch.autograd.grad(x, image)[0] for x in (loss, expected))
    torch.testing.assert_close(found, right, rtol=1e-3, atol=1.0)


@pytest.mark.parametrize("name", LOSSES)
def test_normalize_and_reduction(name) -> None:
    image, text, owner = captioned_batch(8, 6, dtype=torch.float64)
    owner = owner.clone()
    owner[3] = -1
    function, _ = LOSSES[name]
    image, text = (3 * image).requires_grad_(), (0.2 * text).requires_grad_()
    options = {"scale": SCALE, "bias": BIAS, "text_to_image": owner}
    total = function(F.normalize(image, dim=1), F.normalize(text, dim=1), **options)
    mean = function(image, text, normalize=True, reduction="mean", **options)
    count = int((owner >= 0).sum())
    assert mean.item() == pytest.approx(total.item() / count, rel=1e-12)
    expected, found = (torch.autograd.grad(x, [image, text]) for x in (total / count, mean))
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-12)


def test_clip_and_siglip_as_they_are_known() -> None:
    image, text = paired_batch(24, 16, torch.float32)
    logits, places = 20 * image @ text.T, torch.arange(24)
    clip = (F.cross_entropy(logits, places) + F.cross_entropy(logits.T, places)) / 2
    found = gk.info_nce_loss(image, text, scale=20.0, reduction="mean") / 2
    torch.testing.assert_close(found, clip)
    smooth = F.cross_entropy(logits, places, label_smoothing=0.1)
    found = gk.info_nce_loss(
        image, text, scale=20.0, label_smoothing=0.1, reduction="mean", direction="i2t"
    )
    torch.testing.assert_close(found, smooth)
    labels = 2 * torch.eye(24) - 1
    siglip = -F.logsigmoid(labels * (10 * image @ text.T - 10)).sum() / 24
    torch.testing.assert_close(gk.siglip_loss(image, text, reduction="mean"), siglip)


def test_statistics() -> None:
    image, text = paired_batch(24, 16, torch.float32)
    score, off = image @ text.T, ~torch.eye(24, dtype=torch.bool)
    gap = score - score.diagonal()[:, None] + 0.2, score - score.diagonal() + 0.2
    loss, stats = gk.sum_of_hinges_loss(
        image.requires_grad_(), text, reduction="mean", return_stats=True
    )
    torch.testing.assert_close(stats.value, 24 * loss.detach())
    torch.testing.assert_close(stats.positive, score.diagonal())
    active = (((gap[0] > 0) | (gap[1] > 0)) & off).sum() / 24**2
    torch.testing.assert_close(stats.active_fraction, active)
    assert not torch.cat([stats.skipped_texts, stats.skipped_images]).any()
    with torch.no_grad():
        _, stats = gk.sum_of_hinges_loss(image, text, return_stats=True)
    assert stats.active_fraction.isnan()


@pytest.mark.parametrize("name", LOSSES)
def test_not_a_number_stays_one(name) -> None:
    image, text = paired_batch(12, 6, torch.float32)
    image[3, 2] = math.nan
    function, _ = LOSSES[name]
    inputs = image.requires_grad_(), text.requires_grad_()
    loss = function(*inputs, scale=SCALE, bias=BIAS)
    assert loss.isnan()
    assert torch.cat(torch.autograd.grad(loss, inputs)).isnan().any()


@pytest.mark.parametrize("name", LOSSES)
def test_all_of_one_image(name) -> None:
    """Without a negative nothing repels; where equal ids are positives they still attract."""
    image, text = rows(5, 4, 1).requires_grad_(), rows(5, 4, 2)
    function, _ = LOSSES[name]
    loss = function(image, text, scale=SCALE, bias=BIAS, image_ids=[3] * 5)
    (gradient,) = torch.autograd.grad(loss, image)
    assert torch.isfinite(gradient).all()
    if name in ("sum_of_hinges", "soft_margin", "info_nce", "smooth_and_hard"):
        assert loss.item() == 0
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


@pytest.mark.skipif(not native.status()[0], reason="lists come from the native module")
@pytest.mark.parametrize("batch", BATCHES)
def test_few_active_hinges_are_listed(batch, monkeypatch) -> None:
    """What products make, from lists, in several parts; beyond a share products take over."""
    images, owner, ids = BATCHES[batch]
    seen: list[bool] = []
    find = sparse.Lister.find

    def watch(self, part):
        found = find(self, part)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(sparse.Lister, "find", watch)
    monkeypatch.setattr(sparse, "ELEMENTS", 5 * images)
    monkeypatch.setattr(sparse, "BLOCK", 1)
    monkeypatch.setattr(sparse, "SHARE", 1.0)
    monkeypatch.setattr(sparse, "LEAST", 1)
    check("sum_of_hinges", batch)
    check("sum_of_hinges", batch, torch.float32)
    check("sum_of_hinges", batch, margin=0.1)
    check("sum_of_hinges", batch, direction="t2i")
    assert all(seen)
    assert len(seen) == 4 * 2 + 4
    monkeypatch.setattr(sparse, "SHARE", 0.0)
    check("sum_of_hinges", batch)
    assert not any(seen[4 * 2 + 4 :])


@pytest.mark.skipif(not native.status()[0], reason="lists come from the native module")
def test_listed_hinges_of_wide_rows(monkeypatch) -> None:
    """At a size where rounded products choose: value with and without a gradient, and averaged."""
    generator = torch.Generator().manual_seed(0)
    image = F.normalize(torch.randn(640, 160, generator=generator), dim=1)
    text = F.normalize(image + 0.14 * torch.randn(640, 160, generator=generator), dim=1)

    def step() -> tuple[Tensor, ...]:
        answers = []
        for loss in (
            lambda x: gk.sum_of_hinges_loss(x, text, false_negative_margin=0.5, return_stats=True),
            lambda x: gk.goal_loss(
                x, text, "hinge/constant", negatives="all", margin=0.3, return_stats=True
            ),
        ):
            x = image.clone().requires_grad_()
            value, stats = loss(x)
            (gradient,) = torch.autograd.grad(value, x)
            with torch.no_grad():
                plain = loss(image)[0]
            torch.testing.assert_close(plain, value.detach())
            assert 0 < stats.active_fraction < 0.1
            answers += [value.detach(), gradient]
        return tuple(answers)

    listed = step()
    monkeypatch.setattr(sparse, "SHARE", 0.0)
    for left, right in zip(listed, step(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5 * right.abs().max().item())


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc"
)
def test_a_graph_that_is_kept_gives_the_same_gradients_again() -> None:
    image, text = (x.requires_grad_() for x in paired_batch(40, 8, torch.float64))
    loss = gk.sum_of_hinges_loss(image, text, margin=0.3)
    once = [x.clone() for x in torch.autograd.grad(loss, (image, text), retain_graph=True)]
    for times in (1, 2, 3):
        loss.backward(retain_graph=True)
        for own, first in zip((image, text), once, strict=True):
            assert torch.equal(own.grad, times * first)
    found = torch.autograd.grad(loss, (image, text), retain_graph=True)
    found[0].zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_memory_is_that_of_a_few_blocks() -> None:
    """The matrix would be 400 MiB, and autograd would keep several."""
    image, text = torch.randn(2, 10240, 8).unbind()
    image.requires_grad_()

    def step(rows: int = 10240) -> None:
        gk.sum_of_hinges_loss(image[:rows], text[:rows], normalize=True).backward()

    step(600)  # libraries are loaded
    extra = peak_cpu(SimpleNamespace(run=step)) / 2**20
    assert extra < 200, f"{extra:.0f} MiB"


def test_opcheck() -> None:
    image, text, owner = captioned_batch(12, 6, dtype=torch.float32)
    ids = owner % 5
    scale, bias = torch.tensor(9.0), torch.tensor(-3.0)
    operators = torch.ops.goal_kernels
    last = (0.2, 1.5, "both", True, True, "highest", True)
    words = (
        (None, None, "sum_of_hinges", [0.2]),
        (scale, None, "info_nce", [0.1, 0.0]),
        (scale, bias, "siglip", []),
        (None, None, "nca/sigmoid", [10.0, 2.0, 10.0, 0.5, 0.1, 0.2]),
    )
    for own in words:
        arguments = (text, image, owner, ids, torch.arange(12) % 5, owner > 4, *own, *last)
        torch.library.opcheck(
            operators.whole_batch, arguments, test_utils=["test_schema", "test_faketensor"]
        )
    found = operators.whole_batch(*arguments[:-1], False)
    assert [x.numel() for x in found[1:5]] == [0] * 4
    inputs = text.requires_grad_(), image.requires_grad_(), scale.requires_grad_(), bias
    grads = torch.rand_like(text), torch.rand_like(image), torch.rand(()), torch.rand(())
    torch.library.opcheck(operators.attach_whole_batch, (*inputs, torch.tensor(1.0), *grads))


def test_compiles_as_one_graph_whatever_the_batch() -> None:
    torch._dynamo.reset()

    def function(x, y, scale):
        return gk.info_nce_loss(x, y, scale=scale, image_ids=torch.arange(len(x)) // 2)

    compiled = torch.compile(function, backend="aot_eager", fullgraph=True, dynamic=True)
    for batch in (12, 17):
        image, text = paired_batch(batch, 6, torch.float32)
        image.requires_grad_()
        scale = torch.tensor(9.0, requires_grad=True)
        found, expected = compiled(image, text, scale), function(image, text, scale)
        torch.testing.assert_close(found, expected)
        left, right = (torch.autograd.grad(x, [image, scale]) for x in (found, expected))
        torch.testing.assert_close(left, right)


def test_modules_learn_their_factors() -> None:
    image, text = paired_batch(12, 6, torch.float32)
    criterion = gk.SigLIPLoss()
    criterion(image, text).backward()
    assert criterion.bias.grad.abs() > 0
    assert criterion.log_scale.grad.abs() > 0
    assert set(criterion.state_dict()) == {"log_scale", "bias"}
    torch.testing.assert_close(criterion(image, text), gk.siglip_loss(image, text))
    clip = gk.InfoNCELoss(14.0, learned=True, reduction="mean")
    torch.testing.assert_close(
        clip(image, text), gk.info_nce_loss(image, text, scale=14.0, reduction="mean")
    )
    fixed = gk.InfoNCELoss(14.0, label_smoothing=0.1)
    assert not list(fixed.parameters())
    assert "label_smoothing=0.1" in repr(fixed)
    for name in ("sum_of_hinges", "soft_margin", "multi_similarity", "circle"):
        module = getattr(gk, name.title().replace("_", "").replace("Of", "Of") + "Loss")
        expected = getattr(gk, f"{name}_loss")(image, text, image_ids=caption_ids(12))
        torch.testing.assert_close(module()(image, text, caption_ids(12)), expected)


def test_a_learned_scale_comes_back_from_its_limit() -> None:
    image, text = rows(20, 8, 1).float(), rows(20, 8, 2).float()
    criterion = gk.InfoNCELoss(100.0, learned=True)
    with torch.no_grad():
        criterion.log_scale.add_(1.0)
    criterion(image, text).backward()
    assert criterion.log_scale.item() == pytest.approx(math.log(100))
    assert criterion.log_scale.grad > 0
    assert "log_scale=4.605, learned" in repr(criterion)


X, Y = paired_batch(4, 4)
WRONG = {
    "margin": (lambda: gk.sum_of_hinges_loss(X, Y, margin=-1), ValueError, "margin: .* >= 0, got"),
    "word": (lambda: gk.SumOfHingesLoss(margin="0.2"), TypeError, "margin: expected a number"),
    "tau": (lambda: gk.soft_margin_loss(X, Y, tau=0), ValueError, "tau: .* > 0, got 0"),
    "smooth": (
        lambda: gk.info_nce_loss(X, Y, label_smoothing=1.0),
        ValueError,
        r"label_smoothing: .* \[0, 1\)",
    ),
    "scale": (
        lambda: gk.info_nce_loss(X, Y, scale=torch.ones(2)),
        ValueError,
        r"scale: expected one floating-point number, got torch.float32 of shape \[2\]",
    ),
    "no scale": (lambda: gk.info_nce_loss(X, Y, scale=None), TypeError, "scale: expected a number"),
    "no bias": (lambda: gk.siglip_loss(X, Y, bias=None), TypeError, "bias: .* got None"),
    "finite": (
        lambda: gk.multi_similarity_loss(X, Y, lam=math.nan),
        ValueError,
        "lam: expected a finite number, got nan",
    ),
    "beyond": (lambda: gk.InfoNCELoss(500.0, learned=True), ValueError, "scale: .* at most 100"),
    "late": (lambda: gk.CircleLoss(image_ids=[1, 2]), TypeError, "image_ids: give them with each"),
    "learned": (lambda: gk.InfoNCELoss(0.0, learned=True), ValueError, "scale: .* > 0"),
    "direction": (lambda: gk.siglip_loss(X, Y, direction="i2t"), TypeError, "direction: siglip"),
    "reduction": (
        lambda: gk.circle_loss(X, Y, reduction="none"),
        ValueError,
        "reduction: expected one of sum, mean",
    ),
    "unknown": (lambda: gk.circle_loss(X, Y, backend="cpu"), TypeError, "backend: expected option"),
    "rows": (lambda: gk.circle_loss(X, Y[:2]), ValueError, "text_embeddings: expected 4 rows"),
    "backend": (
        lambda: gk.goal_loss(X, Y, "nca/linear", negatives="all", backend="cpu"),
        BackendUnavailableError,
        "backend: expected 'auto' or 'chunked'",
    ),
    "mine": (lambda: gk.mine(X, Y, negatives="all"), ValueError, "negatives: expected 'hardest'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input(name) -> None:
    call, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        call()
