"""The generalized pooling operator against a slow reference that pools one feature at a time."""

from __future__ import annotations

import math

import pytest
import torch

from goal_kernels.training.pooling import (
    POOLINGS,
    SOFTMAX_TEMPERATURE,
    GeneralizedPooling,
    gru_states,
    make_pooling,
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


LITERAL = {
    "mean": lambda rows: rows.mean(dim=0),
    "max": lambda rows: rows.amax(dim=0),
    "first": lambda rows: rows[0],
    "last": lambda rows: rows[-1],
}


def some_sets() -> tuple[torch.Tensor, torch.Tensor]:
    """Features [5, 7, 3] with NaN where the mask has gaps: in front, inside and behind."""
    torch.manual_seed(0)
    mask = torch.rand(5, 7) < 0.6
    mask[:, 2] = True
    return torch.randn(5, 7, 3).masked_fill(~mask[:, :, None], math.nan), mask


@pytest.mark.parametrize("name", LITERAL)
def test_simple_poolings(name: str) -> None:
    features, mask = some_sets()
    features.requires_grad_()
    pooled = make_pooling("pooling", name, ordered=True)(features, mask)
    expected = [LITERAL[name](rows[valid]) for rows, valid in zip(features, mask, strict=True)]
    torch.testing.assert_close(pooled, torch.stack(expected))
    pooled.sum().backward()
    assert (features.grad[~mask] == 0).all()
    torch.testing.assert_close(features.grad.sum(dim=1), torch.ones(5, 3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", POOLINGS)
def test_sums_are_made_in_float32_at_least(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    features, mask = some_sets()
    features = features.to(dtype)
    pool = make_pooling("pooling", name, ordered=True)
    if dtype == torch.float64:
        pool.double()
    pooled = pool(features, mask)
    assert pooled.dtype == torch.promote_types(dtype, torch.float32)
    assert pooled.isfinite().all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(pool(features, mask), pooled)


def test_scores_that_overflow_half_precision_still_give_weights() -> None:
    torch.manual_seed(0)
    pool = GeneralizedPooling().half()
    scores: list[torch.Tensor] = []
    pool.score.register_forward_hook(lambda *given: scores.append(given[2]))
    with torch.no_grad():
        pool.score.weight.fill_(8000)
    weights = pool.weights(torch.tensor([1, 3, 6]), 6)
    assert scores[0].isfinite().all()
    assert (scores[0] / SOFTMAX_TEMPERATURE).isinf().any()
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))


def test_sets_have_no_first_and_no_last() -> None:
    for name in ("first", "last"):
        with pytest.raises(ValueError, match="pooling: expected 'gpo', 'mean' or 'max', got"):
            make_pooling("pooling", name, ordered=False)
