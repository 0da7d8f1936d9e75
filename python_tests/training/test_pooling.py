"""The generalized pooling operator against a slow reference that pools one feature at a time."""

from __future__ import annotations

import math

import pytest
import torch

from goal_kernels.training.pooling import (
    SOFTMAX_TEMPERATURE,
    GeneralizedPooling,
    gru_states,
    position_code,
)


def slow_pooling(pool: GeneralizedPooling, features: torch.Tensor, mask: torch.Tensor):
    """[B, D]: every sample on its own, every feature on its own, no padding anywhere."""
    pooled = torch.zeros(features.shape[0], features.shape[2])
    for sample in range(len(features)):
        rows = features[sample][mask[sample]]  # [n, D]
        states, _ = pool.gru(position_code(len(rows), pool.width)[None])  # [1, n, 2 width]
        merged = (states[0, :, : pool.width] + states[0, :, pool.width :]) / 2
        theta = torch.softmax(pool.score(merged)[:, 0] / SOFTMAX_TEMPERATURE, dim=0)
        for feature in range(features.shape[2]):
            ranked = sorted(rows[:, feature].tolist(), reverse=True)
            pooled[sample, feature] = sum(w * v for w, v in zip(theta, ranked, strict=True))
    return pooled


@pytest.fixture
def pool() -> GeneralizedPooling:
    torch.manual_seed(0)
    return GeneralizedPooling()


def test_equals_the_slow_reference(pool: GeneralizedPooling) -> None:
    features = torch.randn(5, 7, 3)
    mask = torch.rand(5, 7) < 0.6
    mask[:, 2] = True
    with torch.no_grad():
        torch.testing.assert_close(pool(features, mask), slow_pooling(pool, features, mask))


def test_masked_rows_are_never_read(pool: GeneralizedPooling) -> None:
    features = torch.randn(4, 6, 5)
    mask = torch.tensor([[1, 1, 0, 1, 0, 0]] * 4, dtype=torch.bool)
    poisoned = features.masked_fill(~mask[:, :, None], math.nan)
    assert torch.equal(pool(features, mask), pool(poisoned, mask))


def test_no_gradient_reaches_masked_rows(pool: GeneralizedPooling) -> None:
    features = torch.randn(3, 6, 5, requires_grad=True)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0], [1] * 6], dtype=torch.bool)
    pool(features, mask).pow(2).sum().backward()
    assert torch.isfinite(features.grad).all()
    assert (features.grad[~mask] == 0).all()
    assert (features.grad[mask] != 0).any(dim=1).all()
    assert all(parameter.grad.isfinite().all() for parameter in pool.parameters())


def test_order_of_rows_does_not_matter(pool: GeneralizedPooling) -> None:
    features = torch.randn(2, 8, 4)
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[0, 5:] = False
    shuffled = torch.randperm(8)
    torch.testing.assert_close(pool(features, mask), pool(features[:, shuffled], mask[:, shuffled]))


def test_weights_sum_to_one_over_the_valid_ranks(pool: GeneralizedPooling) -> None:
    lengths = torch.tensor([1, 4, 4, 9])
    weights = pool.weights(lengths, 9)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(4))
    assert (weights[torch.arange(9) >= lengths[:, None]] == 0).all()
    assert torch.equal(weights[1], weights[2])


def test_each_distinct_length_is_computed_once(pool: GeneralizedPooling) -> None:
    seen: list[int] = []
    pool.gru.register_forward_hook(lambda _, inputs, __: seen.append(int(inputs[0].batch_sizes[0])))
    pool.weights(torch.tensor([5, 5, 5, 3, 5, 3]), 5)
    assert seen == [2]


def test_one_row_is_returned_as_it_is(pool: GeneralizedPooling) -> None:
    features = torch.randn(2, 1, 6)
    pooled = pool(features, torch.ones(2, 1, dtype=torch.bool))
    torch.testing.assert_close(pooled, features[:, 0])


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.ones(2, 5, dtype=torch.bool), "expected shape"),
        (torch.tensor([[True] * 4, [False] * 4]), "sample 1"),
    ],
)
def test_bad_masks_are_refused(pool: GeneralizedPooling, mask: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pool(torch.randn(2, 4, 3), mask)


def test_position_code_values() -> None:
    code = position_code(5, 4)
    assert code.shape == (5, 4)
    for position in range(5):
        for pair, rate in enumerate((1.0, 1 / 100)):
            assert code[position, 2 * pair] == pytest.approx(math.sin(position * rate), abs=1e-6)
            assert code[position, 2 * pair + 1] == pytest.approx(
                math.cos(position * rate), abs=1e-6
            )


def test_position_code_refuses_odd_widths() -> None:
    with pytest.raises(ValueError, match="use 6"):
        position_code(3, 5)


def test_gru_states_ignores_padding() -> None:
    torch.manual_seed(1)
    gru = torch.nn.GRU(3, 4, batch_first=True, bidirectional=True)
    sequences = torch.randn(3, 6, 3)
    lengths = torch.tensor([2, 6, 4])
    together = gru_states(gru, sequences, lengths)
    assert together.shape == (3, 6, 4)
    for row, length in enumerate(lengths.tolist()):
        alone = gru(sequences[row : row + 1, :length])[0][0]
        torch.testing.assert_close(together[row, :length], (alone[:, :4] + alone[:, 4:]) / 2)
        assert (together[row, length:] == 0).all()
