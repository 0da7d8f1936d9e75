"""Region, cell and word dropout: rates, and what they must never do."""

from __future__ import annotations

import pytest
import torch

from goal_kernels.training.augmentation import region_dropout, size_augmentation, word_dropout
from goal_kernels.training.data import TextBatch
from goal_kernels.training.options import DataSizes
from goal_kernels.training.tokenizers import NO_WORD

SIZES = DataSizes(region_dim=0, vocabulary_size=300)
END = 2


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def captions(rows: int, words: int) -> TextBatch:
    """`<start>`, then words 100, 101, ..., then `<end>`, one position of padding."""
    body = torch.arange(100, 100 + words).expand(rows, -1)
    start, end = torch.full((rows, 1), 1), torch.full((rows, 1), END)
    padding = torch.zeros(rows, 1, dtype=torch.int64)
    special = torch.full((rows, 1), NO_WORD)
    return TextBatch(
        tokens=torch.cat([start, body, end, padding], dim=1),
        lengths=torch.full((rows,), words + 2),
        words=torch.cat([special, body - 100, special, special], dim=1),
        image_ids=torch.arange(rows),
    )


def pieces(rows: int) -> TextBatch:
    """`<start>`, words 0 to 4 of 1, 3, 1, 2 and 4 pieces with ids 100 to 110, `<end>`."""
    words = [NO_WORD, 0, 1, 1, 1, 2, 3, 3, 4, 4, 4, 4, NO_WORD]
    tokens = [1, *range(100, 111), END]
    return TextBatch(
        tokens=torch.tensor(tokens).expand(rows, -1),
        lengths=torch.full((rows,), len(tokens)),
        words=torch.tensor(words).expand(rows, -1),
        image_ids=torch.arange(rows),
    )


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
    batch = captions(4000, 10)
    words = 4000 * 10
    changed = word_dropout(batch, SIZES, 0.2, generator())
    removed = int((batch.lengths - changed.lengths).sum()) / words
    masked = int((changed.tokens == SIZES.mask_id).sum()) / words
    originals = ((changed.tokens >= 100) & (changed.tokens < 110)).sum()
    assert removed == pytest.approx(0.2 * 0.4, abs=0.006)
    assert masked == pytest.approx(0.2 * 0.5, abs=0.006)
    # A random word hits one of the ten originals now and then; the bound leaves room for it.
    assert int(originals) / words == pytest.approx(0.8, abs=0.008)


def test_word_dropout_keeps_order_and_the_ends() -> None:
    batch = captions(500, 12)
    changed = word_dropout(batch, SIZES, 0.5, generator())
    for row, length in zip(changed.tokens.tolist(), changed.lengths.tolist(), strict=True):
        assert row[0] == 1
        assert row[length - 1] == END
        assert set(row[length:]) <= {0}
        assert 0 not in row[:length]
    changed = word_dropout(batch, DataSizes(0, 5), 0.5, generator())
    for row, length in zip(changed.tokens.tolist(), changed.lengths.tolist(), strict=True):
        survivors = [token for token in row[:length] if token >= 100]
        assert survivors == sorted(survivors)


def test_words_are_touched_with_all_their_pieces() -> None:
    batch = pieces(3000)
    changed = word_dropout(batch, DataSizes(0, 1000, first_word_id=500), 0.4, generator())
    kinds = {"kept": 0, "masked": 0, "random": 0, "removed": 0}
    original = batch.words[0].tolist()
    for tokens, words in zip(changed.tokens.tolist(), changed.words.tolist(), strict=True):
        for word in range(5):
            ids = [token for token, of in zip(tokens, words, strict=True) if of == word]
            expected = [100 + at - 1 for at, of in enumerate(original) if of == word]
            assert len(ids) in (0, len(expected))
            if not ids:
                kinds["removed"] += 1
            elif ids == expected:
                kinds["kept"] += 1
            elif set(ids) == {SIZES.mask_id}:
                kinds["masked"] += 1
            else:
                assert min(ids) >= 500
                kinds["random"] += 1
    shares = {kind: count / (3000 * 5) for kind, count in kinds.items()}
    for kind, share in (("kept", 0.6), ("masked", 0.2), ("random", 0.04), ("removed", 0.16)):
        assert shares[kind] == pytest.approx(share, abs=0.012), kind


def test_every_piece_of_a_random_word_is_drawn_for_itself() -> None:
    changed = word_dropout(pieces(3000), DataSizes(0, 10**6, first_word_id=500), 0.4, generator())
    replaced = changed.tokens >= 500
    drawn = changed.tokens[replaced]
    assert len(drawn.unique()) > 0.99 * len(drawn)


def test_words_follow_their_tokens() -> None:
    batch = captions(300, 9)
    changed = word_dropout(batch, SIZES, 0.6, generator(3))
    position = torch.arange(changed.tokens.shape[1])
    inside = position < changed.lengths[:, None]
    special = (position == 0) | (position == changed.lengths[:, None] - 1)
    assert torch.equal(changed.words == NO_WORD, ~inside | special)
    untouched = (changed.tokens >= 100) & (changed.tokens < 109)
    # A random word may hit one of the ids of the caption; it still stands where its word stood.
    agree = changed.tokens[untouched] - 100 == changed.words[untouched]
    assert agree.float().mean() > 0.99
    assert torch.equal(changed.image_ids, batch.image_ids)


def test_the_random_stream_is_what_published_figures_were_made_with() -> None:
    lengths = torch.tensor([9, 4, 6, 2])
    batch = captions(4, 7)
    for row, length in enumerate(lengths.tolist()):
        batch.tokens[row, length - 1] = END
        batch.tokens[row, length:] = 0
        batch.words[row, length - 1 :] = NO_WORD
    batch = TextBatch(batch.tokens[:, :9], lengths, batch.words[:, :9], batch.image_ids)
    changed = word_dropout(batch, SIZES, 0.6, generator(5))
    assert changed.tokens.tolist() == [
        [1, 3, 101, 102, 103, 3, 3, 106, 2],
        [1, 100, 2, 0, 0, 0, 0, 0, 0],
        [1, 100, 101, 3, 3, 2, 0, 0, 0],
        [1, 2, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert changed.lengths.tolist() == [9, 3, 6, 2]
    mask = torch.arange(6) < torch.tensor([6, 3, 1])[:, None]
    assert region_dropout(mask, 0.5, generator(5)).int().tolist() == [
        [1, 0, 1, 1, 1, 0],
        [0, 1, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0],
    ]


def test_probability_zero_changes_nothing() -> None:
    batch = captions(50, 6)
    changed = word_dropout(batch, SIZES, 0.0, generator())
    assert all(torch.equal(*fields) for fields in zip(changed[:4], batch[:4], strict=True))
    mask = torch.ones(5, 5, dtype=torch.bool)
    assert torch.equal(region_dropout(mask, 0.0, generator()), mask)
    assert torch.equal(size_augmentation(mask, 0.0, generator()), mask)


def test_same_generator_state_same_result() -> None:
    first = word_dropout(captions(50, 6), SIZES, 0.3, generator(7))
    second = word_dropout(captions(50, 6), SIZES, 0.3, generator(7))
    assert all(torch.equal(*fields) for fields in zip(first[:4], second[:4], strict=True))


def test_size_augmentation_drops_other_shares_of_other_images() -> None:
    kept = size_augmentation(torch.ones(4000, 400, dtype=torch.bool), 0.2, generator())
    dropped = 1 - kept.float().mean(dim=1)
    whole = dropped == 0
    assert whole.float().mean().item() == pytest.approx(0.2, abs=0.02)
    # Shares are 0.2 u with u uniform in (0.2, 1): from 0.04 to 0.2, 0.12 in the mean.
    assert dropped[~whole].mean().item() == pytest.approx(0.12, abs=0.004)
    assert dropped[~whole].std().item() == pytest.approx(0.16 / 12**0.5, abs=0.006)
    assert dropped.max() < 0.3


def test_size_augmentation_leaves_padding_out_and_something_in() -> None:
    mask = torch.zeros(2000, 6, dtype=torch.bool)
    mask[:, 3] = True
    assert torch.equal(size_augmentation(mask, 0.9, generator()), mask)
