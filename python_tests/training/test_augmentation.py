"""Region and word dropout: rates, and what they must never do."""

from __future__ import annotations

import pytest
import torch

from goal_kernels.training.augmentation import region_dropout, word_dropout
from goal_kernels.training.options import DataSizes

SIZES = DataSizes(region_dim=0, vocabulary_size=300)
END = 2


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def captions(rows: int, words: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`<start>`, then words 100, 101, ..., then `<end>`, one position of padding."""
    body = torch.arange(100, 100 + words).expand(rows, -1)
    start, end = torch.full((rows, 1), 1), torch.full((rows, 1), END)
    padding = torch.zeros(rows, 1, dtype=torch.int64)
    return torch.cat([start, body, end, padding], dim=1), torch.full((rows,), words + 2)


def test_regions_are_dropped_at_the_given_rate() -> None:
    mask = torch.ones(2000, 36, dtype=torch.bool)
    kept = region_dropout(mask, 0.2, generator())
    assert 1 - kept.float().mean().item() == pytest.approx(0.2, abs=0.01)


def test_padding_never_becomes_a_region() -> None:
    mask = torch.rand(500, 8, generator=generator(1)) < 0.5
    mask[:, 0] = True
    assert not (region_dropout(mask, 0.5, generator(2)) & ~mask).any()


def test_no_image_loses_every_region() -> None:
    mask = torch.zeros(1000, 6, dtype=torch.bool)
    mask[:, 3] = True
    assert torch.equal(region_dropout(mask, 0.9, generator()), mask)


def test_word_dropout_shares() -> None:
    tokens, lengths = captions(4000, 10)
    words = 4000 * 10
    changed, shorter = word_dropout(tokens, lengths, SIZES, 0.2, generator())
    removed = int((lengths - shorter).sum()) / words
    masked = int((changed == SIZES.mask_id).sum()) / words
    originals = ((changed >= 100) & (changed < 110)).sum()
    assert removed == pytest.approx(0.2 * 0.4, abs=0.006)
    assert masked == pytest.approx(0.2 * 0.5, abs=0.006)
    # A random word hits one of the ten originals now and then; the bound leaves room for it.
    assert int(originals) / words == pytest.approx(0.8, abs=0.008)


def test_word_dropout_keeps_order_and_the_ends() -> None:
    tokens, lengths = captions(500, 12)
    changed, shorter = word_dropout(tokens, lengths, SIZES, 0.5, generator())
    for row, length in zip(changed.tolist(), shorter.tolist(), strict=True):
        assert row[0] == 1
        assert row[length - 1] == END
        assert set(row[length:]) <= {0}
        assert 0 not in row[:length]
    untouched, same = word_dropout(tokens, lengths, DataSizes(0, 5), 0.5, generator())
    for row, length in zip(untouched.tolist(), same.tolist(), strict=True):
        survivors = [token for token in row[:length] if token >= 100]
        assert survivors == sorted(survivors)


def test_probability_zero_changes_nothing() -> None:
    tokens, lengths = captions(50, 6)
    changed, same = word_dropout(tokens, lengths, SIZES, 0.0, generator())
    assert torch.equal(changed, tokens)
    assert torch.equal(same, lengths)
    mask = torch.ones(5, 5, dtype=torch.bool)
    assert torch.equal(region_dropout(mask, 0.0, generator()), mask)


def test_same_generator_state_same_result() -> None:
    tokens, lengths = captions(50, 6)
    first = word_dropout(tokens, lengths, SIZES, 0.3, generator(7))
    second = word_dropout(tokens, lengths, SIZES, 0.3, generator(7))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


@pytest.mark.parametrize("probability", [-0.1, 1.0])
def test_bad_probability(probability: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        region_dropout(torch.ones(1, 1, dtype=torch.bool), probability, generator())
