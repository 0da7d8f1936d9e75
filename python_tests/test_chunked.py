"""The chunked backend: blocks and segments that divide nothing, memory, no wait for a device."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import goal_kernels as gk
from bench.memory import peak_cpu
from goal_kernels.backends import chunked
from goal_kernels.backends.base import Pairing, SearchQuery, WeightStage
from goal_kernels.backends.chunked import ChunkedBackend
from goal_kernels.backends.reference import ReferenceBackend
from goal_kernels.weights import weigh

KINDS = ("none", "linear", "exponential")
SHAPES = ((1, 1, 1), (1, 33, 7), (40, 130, 3), (130, 40, 3), (70, 70, 5))


def integers(*shape: int, seed: int) -> torch.Tensor:
    """Small integers in float64: every similarity is exact, and ties abound."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-2, 3, shape, generator=generator).double()


def some_pairing(rows: int, columns: int, target: bool, ids: bool) -> Pairing:
    generator = torch.Generator().manual_seed(rows)

    def draw(low: int, high: int, length: int) -> torch.Tensor:
        return torch.randint(low, high, (length,), generator=generator)

    return Pairing(
        draw(-1, columns + 1, rows) if target else None,
        *((draw(0, 4, rows), draw(0, 4, columns)) if ids else (None, None)),
    )


@pytest.mark.parametrize("special", [0.0, float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_small_blocks_find_what_the_whole_matrix_has(shape, kind, special, monkeypatch) -> None:
    monkeypatch.setattr(chunked, "BLOCK", 32)
    rows, columns, width = shape
    image, text = integers(rows, width, seed=1), integers(columns, width, seed=2)
    image[min(3, rows - 1), 0] = special
    if special == float("-inf"):  # for some anchors every similarity is -inf
        image[:, 0], text[:, 0] = special, text[:, 0].clamp(min=0) + 1
    for epsilon in (0.5, -3.0):
        query = SearchQuery(kind, epsilon, 0.7, False, "highest")
        for target, ids in ((False, False), (True, False), (False, True), (True, True)):
            pairing = some_pairing(rows, columns, target, ids)
            found = ChunkedBackend().search(image, text, pairing, query)
            truth = ReferenceBackend().search(image, text, pairing, query)
            assert torch.equal(found.indices, truth.indices)
            assert torch.equal(found.counts, truth.counts)
            for name in ("values", "sums"):
                left, right = getattr(found, name), getattr(truth, name)
                torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("pair", ["constant", "linear_ms", "sigmoid_ms"])
def test_nothing_waits_for_the_device(pair, ids, normalize) -> None:
    """On tensors without data a value that is asked for raises: a CUDA graph can hold the step."""
    backend, objective = ChunkedBackend(), gk.Objective("nca", pair)
    image = torch.empty(1100, 24, device="meta")
    one = torch.empty(1100, dtype=torch.int64, device="meta")
    pairing = Pairing(None, one, one) if ids else Pairing()
    query = SearchQuery(objective.pair_element.relative, 0.1, 10.0, normalize, "highest")
    stage = WeightStage("", "", objective.scalars, "both", partial(weigh, objective))
    _, vectors, hardest = backend.forward(image, image, pairing, query, stage)
    loss = torch.empty((), device="meta")
    grads = backend.backward(loss, image, image, vectors, hardest, (True, True))
    assert [g.shape for g in grads if g is not None] == [image.shape] * 2


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc"
)
def test_memory_is_that_of_a_few_blocks() -> None:
    """Rows of a block for scores, exponents and counts; the whole matrix would be 256 MiB."""
    image, text = torch.randn(2, 8192, 16).unbind()
    image.requires_grad_()

    def step() -> None:
        gk.goal_loss(image, text, "nca/sigmoid_ms", backend="chunked").backward()

    extra = peak_cpu(SimpleNamespace(run=step)) / 2**20
    assert extra < 4 * 4 * chunked.BLOCK * 8192 / 2**20, f"{extra:.0f} MiB"
