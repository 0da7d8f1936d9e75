"""Scores from words and regions against loops over pairs, in blocks, and their losses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from goal_kernels import goal_loss_from_similarity, notices
from goal_kernels.distributed import GatheredPairs
from goal_kernels.training.encoders.base import Rows
from goal_kernels.training.objectives import make_objective
from goal_kernels.training.options import ScoreOptions, without_effect
from goal_kernels.training.scoring import (
    BLOCK_PRODUCTS,
    GPU_BLOCK_PRODUCTS,
    Scorer,
    TokenHead,
    TokenSet,
)
from goal_kernels.training.warmup import WarmedLoss, WarmupSchedule

IMAGES, TEXTS, REGIONS, WORDS, WIDTH = 5, 7, 4, 6, 3
KINDS = [
    {"kind": "late"},
    {"kind": "late", "match": "max", "pooling": "mean", "normalize": True},
    {"kind": "late", "anchors": "both", "pooling": "learned", "temperature": 0.5},
    {"kind": "attention", "normalize": True, "pooling": "mean", "temperature": 1 / 9},
    {"kind": "attention", "normalize": True, "pooling": "lse", "anchors": "regions"},
    {"kind": "attention", "pooling": "lse", "anchors": "both"},
]
NAMES = [" ".join(map(str, kind.values())) for kind in KINDS]


def make_tokens(options: ScoreOptions) -> tuple[TokenSet, TokenSet, list[Tensor]]:
    """Tokens of samples of any size, with padding that must not matter; what they are made of."""
    sides, leaves = [], []
    for side, count, places in (("regions", IMAGES, REGIONS), ("words", TEXTS, WORDS)):
        torch.manual_seed(places)
        head = TokenHead(8, options, side).double()
        mask = torch.arange(places) <= torch.arange(count)[:, None] % places
        values = torch.randn(count, places, 8, dtype=torch.float64)
        values = values.masked_fill(~mask[:, :, None], 99.0).requires_grad_()
        sides.append(head(Rows(values, mask)))
        leaves += [values, *head.parameters()]
    return *sides, leaves


def literal_one_way(options: ScoreOptions, anchors: TokenSet, others: TokenSet) -> Tensor:
    """[A, C] scores, pair by pair and word by word."""
    scores = torch.zeros(len(anchors.values), len(others.values), dtype=torch.float64)
    root = 1 if options.normalize else math.sqrt(WIDTH)
    for a, c in torch.cartesian_prod(torch.arange(len(scores)), torch.arange(scores.shape[1])):
        mine = anchors.values[a][anchors.weights[a] > 0]
        weights = anchors.weights[a][anchors.weights[a] > 0]
        theirs = others.values[c][others.weights[c] > 0]
        matches = []
        for anchor in mine:
            x = torch.stack([anchor @ other / root for other in theirs])
            if options.kind == "late" and options.match == "max":
                matches.append(x.max())
            elif options.kind == "late":
                matches.append(options.temperature * (x / options.temperature).exp().sum().log())
            else:
                columns = [[max(m @ t / root, 0) ** 2 for m in mine] for t in theirs]
                lengths = torch.tensor([math.sqrt(sum(column)) for column in columns])
                y = x.clamp_min(0) / lengths.clamp_min(1e-12)
                attention = (y / options.temperature).softmax(0)
                mean = sum(w * other for w, other in zip(attention, theirs, strict=True))
                matches.append(F.cosine_similarity(anchor, mean, dim=0))
        found = torch.stack(matches)
        if options.pooling == "lse":
            t = options.pooling_temperature
            scores[a, c] = t * (found / t).exp().sum().log()
        else:
            scores[a, c] = weights @ found
    return scores


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_scores_are_those_of_loops(kind: dict) -> None:
    options = ScoreOptions(width=WIDTH, **kind)
    images, texts, _ = make_tokens(options)
    with torch.no_grad():
        by_words = literal_one_way(options, texts, images).T
        by_regions = literal_one_way(options, images, texts)
        both = (by_words + by_regions) / 2
        expected = {"words": by_words, "regions": by_regions, "both": both}[options.anchors]
        torch.testing.assert_close(Scorer(options).matrix(images, texts), expected)
        i, j = torch.randint(IMAGES, (9,)), torch.randint(TEXTS, (9,))
        got = Scorer(options).pairs(images.at(i), texts.at(j))
    torch.testing.assert_close(got, expected[i, j])


@pytest.mark.parametrize("block", [1, 2 * IMAGES, 3 * IMAGES + 1])
@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_blocks_have_the_gradient_of_the_whole_matrix(kind: dict, block: int) -> None:
    results = []
    for size in (None, block):
        options = ScoreOptions(width=WIDTH, block=size, **kind)
        images, texts, leaves = make_tokens(options)
        scores = Scorer(options).matrix(images, texts)
        goal_loss_from_similarity(
            scores, "nca/sigmoid_ms", text_to_image=torch.arange(TEXTS) % IMAGES
        ).backward()
        results.append([scores.detach(), *(leaf.grad for leaf in leaves)])
    assert all(gradient.count_nonzero() > 0 for gradient in results[0])
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-13)


def test_memory_holds_the_products_of_no_block_between_the_passes() -> None:
    products = IMAGES * REGIONS * TEXTS * WORDS

    def kept(block: int | None) -> int:
        options = ScoreOptions(kind="late", width=WIDTH, block=block)
        images, texts, _ = make_tokens(options)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            Scorer(options).matrix(images, texts)
        return max(sizes)

    assert kept(None) >= products
    assert kept(IMAGES) < products / 4


@pytest.mark.parametrize("captioned", [False, True])
@pytest.mark.parametrize("name", ["nca/sigmoid_ms", "hinge/constant"])
def test_goal_of_scores_is_that_of_their_similarity(
    name: str, captioned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    owner = torch.tensor([0, 0, 1, 2, 2, 3]) if captioned else None
    ids = torch.tensor([5, 6, 5, 7]) if captioned else torch.tensor([0, 1, 1, 2, 3, 3])
    images = 4 if captioned else 6
    start = torch.randn(images, 6, dtype=torch.float64)
    monkeypatch.setattr(notices, "_given", {"length"})  # scores are no cosines
    loss = WarmedLoss(
        make_objective(name, {"margin": 0.5}), WarmupSchedule(), "auto", precision="highest"
    )
    results = []
    for compute in (
        lambda s: loss.of_scores(s, GatheredPairs(s, s, ids, None, owner), step=0)[0],
        lambda s: goal_loss_from_similarity(
            s, name, margin=0.5, image_ids=ids, text_to_image=owner
        ),
    ):
        scores = start.clone().requires_grad_()
        value = compute(scores)
        value.backward()
        results.append((value.detach(), scores.grad))
    assert results[0][1].count_nonzero() > 3
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


def test_info_nce_of_scores_is_the_cross_entropy_without_captions_of_one_image() -> None:
    torch.manual_seed(0)
    ids = torch.tensor([0, 1, 1, 2])
    scores = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    same = (ids[:, None] == ids) & ~torch.eye(4, dtype=torch.bool)
    left = (2 * scores).masked_fill(same, -torch.inf)
    target = torch.arange(4)
    expected = F.cross_entropy(left, target, reduction="sum") + F.cross_entropy(
        left.T, target, reduction="sum"
    )
    loss = WarmedLoss(make_objective("info_nce", {"tau": 2.0}), WarmupSchedule(), "auto")
    got, _ = loss.of_scores(scores, GatheredPairs(scores, scores, ids, None, None), step=0)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(value, scores)[0] for value in (got, expected))
    )


@pytest.mark.parametrize(
    "given",
    [
        {"kind": "fusion"},
        {"anchors": "boxes"},
        {"pooling": "gpo"},
        {"temperature": 0.0},
        {"embedding_weight": 0.0},
        {"rerank": 0},
        {"block": 0},
    ],
)
def test_options_out_of_range_are_named(given: dict) -> None:
    [name] = given
    with pytest.raises(ValueError, match=rf"model\.scores\.{name}: expected"):
        ScoreOptions(**given)


def test_the_help_says_how_large_blocks_are() -> None:
    cpu, gpu = (products.bit_length() - 1 for products in (BLOCK_PRODUCTS, GPU_BLOCK_PRODUCTS))
    assert (1 << cpu, 1 << gpu) == (BLOCK_PRODUCTS, GPU_BLOCK_PRODUCTS)
    assert ScoreOptions.__doc__ is not None
    assert f"2^{cpu} products of tokens, on a GPU 2^{gpu}." in ScoreOptions.__doc__


def test_options_of_scores_that_are_off_are_named() -> None:
    assert without_effect("scores", ScoreOptions()) is None
    assert without_effect("scores", ScoreOptions(kind="late", width=4)) is None
    said = without_effect("scores", ScoreOptions(width=4))
    assert said is not None
    assert said.startswith("model.scores.width: no effect without model.scores.kind, which is null")
