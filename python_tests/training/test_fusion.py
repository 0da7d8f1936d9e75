"""Fusion of words and regions, and the pairs that its matching head learns from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import goal_kernels as gk
from goal_kernels.distributed import GatheredPairs
from goal_kernels.training.encoders.base import Rows
from goal_kernels.training.fusion import Fusion
from goal_kernels.training.matching_loss import MatchingLoss, choose_pairs
from goal_kernels.training.options import FusionOptions, ScoreOptions
from goal_kernels.training.parallel_steps import BatchShare
from goal_kernels.training.scoring import Scorer, TokenHead, TokenSet

WIDTH = 8


def make_rows(count: int, longest: int, seed: int) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, longest, WIDTH, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, longest + 1, (count, 1), generator=generator)
    lengths[0] = longest
    return Rows(values, torch.arange(longest) < lengths)


def make_fusion(kind: str | None = "late", **options) -> tuple[Fusion, TokenSet, TokenSet]:
    """A fusion whose head is not zero, with what it reads of 5 images and 5 captions."""
    torch.manual_seed(0)
    scores = ScoreOptions(kind=kind, width=3)
    scorer = Scorer(scores) if kind else None
    fusion = Fusion(WIDTH, FusionOptions(layers=2, width=4, heads=2, **options), scorer).double()
    torch.nn.init.normal_(fusion.head.weight)
    sides = []
    for side, rows in (("regions", make_rows(5, 4, 1)), ("words", make_rows(5, 6, 2))):
        scored = TokenHead(WIDTH, scores, side).double()(rows) if kind else ()
        sides.append(fusion.tokens(side, rows, scored))
    return fusion, *sides


def pairs_of_five() -> tuple[GatheredPairs, gk.MiningStatistics]:
    generator = torch.Generator().manual_seed(0)
    images, texts = F.normalize(torch.randn(2, 5, 3, generator=generator), dim=2)
    _, mined = gk.goal_loss(images, texts, "hinge/constant", return_stats=True)
    return GatheredPairs(images, texts, None, None), mined


def flat(*sides: TokenSet) -> list[Tensor]:
    return [part.detach().clone() for side in sides for part in side]


@pytest.mark.parametrize("pooling", ["sum", "mean", "first"])
@pytest.mark.parametrize(("kind", "aligned"), [(None, False), ("late", False), ("late", True)])
def test_padding_is_never_looked_at(pooling: str, kind: str | None, aligned: bool) -> None:
    fusion, images, texts = make_fusion(kind, aligned=aligned, pooling=pooling)
    expected = fusion.pairs(images, texts)
    for number in range(5):
        alone = (side.at(torch.tensor([number])) for side in (images, texts))
        torch.testing.assert_close(fusion.pairs(*alone)[0], expected[number])
    assert expected.unique().numel() == 5


def test_a_new_head_ranks_as_the_scores_do() -> None:
    fusion, images, texts = make_fusion(aligned=True)
    torch.nn.init.zeros_(fusion.head.weight)
    torch.nn.init.zeros_(fusion.head.bias)
    assert fusion.scorer is not None
    scored = (TokenSet(s.values[:, :, 4:-1], s.values[:, :, -1]) for s in (images, texts))
    matrix = fusion.scorer.matrix(*scored)
    numbers = torch.arange(25)
    logits = fusion.pairs(images.at(numbers // 5), texts.at(numbers % 5))
    torch.testing.assert_close(logits, 10 * matrix.flatten())


def test_alignment_is_the_softmax_that_late_interaction_takes() -> None:
    generator = torch.Generator().manual_seed(4)
    values = torch.randn(9, 3, generator=generator)
    image = TokenSet(values[None, :5], torch.ones(1, 5))
    text = TokenSet(values[None, 5:], torch.ones(1, 4))
    attention, match = Scorer(
        ScoreOptions(kind="late", temperature=0.3, pooling="sum", normalize=False)
    ).alignment(image, text)
    for word in range(4):
        products = torch.stack([values[5 + word] @ values[j] / 3**0.5 / 0.3 for j in range(5)])
        torch.testing.assert_close(attention[0, word], products.exp() / products.exp().sum())
        torch.testing.assert_close(match[0, word], 0.3 * products.exp().sum().log())


def test_fusion_without_scores_cannot_be_aligned() -> None:
    with pytest.raises(ValueError, match=r"model\.fusion\.aligned: expected false without scores"):
        make_fusion(None, aligned=True)


@pytest.mark.parametrize(
    ("option", "value"),
    [("pooling", "last"), ("heads", 3), ("random_share", 1.5), ("pairs", 0), ("weight", 0.0)],
)
def test_options_out_of_range_are_named(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"model\.fusion\.{option}: expected"):
        FusionOptions(**{option: value})


def mined_pairs(seed: int = 0) -> tuple[GatheredPairs, gk.MiningStatistics, Tensor]:
    """4 images with 9 captions, one of which is a negative that was chosen, and ids."""
    owner = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3, -1])
    ids = torch.tensor([7, 8, 7, 9])  # images 0 and 2 are one and the same
    of_texts = torch.tensor([7, 7, 7, 8, 8, 7, 9, 9, 5])
    generator = torch.Generator().manual_seed(seed)
    images, texts = F.normalize(torch.randn(13, 3, generator=generator), dim=1).split([4, 9])
    pairs = GatheredPairs(images, texts, ids, of_texts, owner)
    _, mined = gk.goal_loss(
        images,
        texts,
        "hinge/constant",
        image_ids=ids,
        text_ids=of_texts,
        text_to_image=owner,
        exempt_texts=owner < 0,
        return_stats=True,
    )
    return pairs, mined, images @ texts.T


def test_negatives_are_those_that_mining_found() -> None:
    pairs, mined, scores = mined_pairs()
    image, text, other_text, other_image = choose_pairs(pairs, mined, 0.0, None, 0)
    assert image.tolist() == pairs.text_to_image.tolist()
    assert text.tolist() == list(range(9))
    allowed = pairs.image_ids[:, None] != pairs.text_ids
    masked = scores.masked_fill(~allowed, -torch.inf)
    for row, own in enumerate(image.tolist()[:-1]):
        assert other_text[row] == masked[own].argmax()
        assert other_image[row] == masked[:, row].argmax()


def test_random_negatives_are_of_other_ids_and_all_of_them() -> None:
    pairs, mined, _ = mined_pairs()
    seen: set[tuple[str, int, int]] = set()
    for seed in range(60):
        image, text, other_text, other_image = choose_pairs(pairs, mined, 1.0, None, seed)
        for row in range(8):
            seen |= {("text", int(image[row]), int(other_text[row]))}
            seen |= {("image", int(text[row]), int(other_image[row]))}
    allowed = (pairs.image_ids[:, None] != pairs.text_ids).nonzero().tolist()
    expected = {("text", i, t) for i, t in allowed}
    expected |= {("image", t, i) for i, t in allowed if t < 8}
    assert seen == expected


def test_shares_of_random_negatives_and_fewer_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = F.normalize(torch.randn(2, 400, 3, generator=generator), dim=2)
    pairs = GatheredPairs(images, texts, None, None)
    _, mined = gk.goal_loss(images, texts, "hinge/constant", return_stats=True)
    *_, other_text, other_image = choose_pairs(pairs, mined, 0.3, None, 5)
    hard = torch.stack([other_text == mined.hardest_text, other_image == mined.hardest_image])
    assert 0.65 < hard.float().mean() < 0.75  # 800 draws
    fewer = choose_pairs(pairs, mined, 0.3, 50, 5)
    assert fewer.shape == (4, 50)
    assert fewer[0].unique().numel() == 50
    assert (fewer[2] != fewer[0]).all()


def test_the_loss_is_that_of_a_loop() -> None:
    fusion, images, texts = make_fusion(
        aligned=True, random_share=0.0, ranking_weight=0.5, weight=2.0
    )
    loss = MatchingLoss(fusion)
    (pairs, mined), share = pairs_of_five(), BatchShare([5], [5], 6, 0)
    value, below = loss(flat(images, texts), share, pairs, mined, 0, 0)

    def logit(image: int, text: int) -> Tensor:
        sides = (s.at(torch.tensor([n])) for s, n in ((images, image), (texts, text)))
        return fusion.pairs(*sides)[0]

    expected, right = 0.0, 0
    for own in range(5):
        positive = logit(own, own)
        expected += (1 + (-positive).exp()).log()
        for pair in ((own, int(mined.hardest_text[own])), (int(mined.hardest_image[own]), own)):
            negative = logit(*pair)
            right += int(negative < positive)
            expected += (1 + negative.exp()).log() + 0.5 * (1 + (negative - positive).exp()).log()
    torch.testing.assert_close(value, 2 * expected)
    assert below == right / 10


def test_the_head_learns_to_tell_pairs_from_their_negatives() -> None:
    fusion, images, texts = make_fusion(None, random_share=1.0)
    optimizer = torch.optim.Adam(fusion.parameters(), 0.01)
    loss, share = MatchingLoss(fusion), BatchShare([5], [5], 6, 0)
    values = []
    for step in range(60):
        value, below = loss(flat(images, texts), share, *pairs_of_five(), step, step)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert sum(values[-5:]) < 0.5 * sum(values[:5])
    assert below == 1


def test_matching_begins_late_and_with_random_negatives() -> None:
    fusion, images, texts = make_fusion(aligned=True, blend_steps=3)
    loss = MatchingLoss(fusion)
    loss.schedule = replace(loss.schedule, warmup_steps=2)
    share = BatchShare([5], [5], 6, 0)
    values = [
        float(loss(flat(images, texts), share, *pairs_of_five(), step, 0)[0].detach())
        for step in range(8)
    ]
    assert values[:2] == [0, 0]
    assert values[2] > 0
    assert values[5] == values[7] > 2 * values[2]
