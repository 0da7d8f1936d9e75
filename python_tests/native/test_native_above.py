"""Elements above a bound: every instruction set, screened and not, any threads."""

from __future__ import annotations

import pytest
import torch
from native_calls import ISAS
from test_native_screen import SCREENING_ISAS
from test_native_top_k import embeddings, threads
from torch import Tensor

from goal_kernels.backends.base import Pairing, accumulate_dtype
from goal_kernels.whole_batch.sparse import Listed, above, add_listed


def question(rows: int, columns: int, ids: bool) -> Pairing:
    generator = torch.Generator().manual_seed(3)
    target = torch.randint(-1, columns, (rows,), generator=generator)
    if not ids:
        return Pairing(target, None, None)
    return Pairing(target, torch.arange(rows) % 97, torch.arange(columns) % 89)


def bounds(rows: int, columns: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Some are reached by all, some by none."""
    generator = torch.Generator().manual_seed(4)
    made = [0.2 + 0.1 * torch.randn(n, generator=generator).to(like) for n in (rows, columns)]
    made[0][5], made[1][7], made[1][8] = -2.0, -2.0, float("inf")
    return made[0], made[1]


def truth(rows: Tensor, columns: Tensor, pairing: Pairing, limits: tuple[Tensor, Tensor]) -> Tensor:
    """bool [2, R, N], what surely reaches a bound and what may; float32 cannot tell them all."""
    score = rows.double() @ columns.double().T
    error = 1e-6 if rows.dtype == torch.float32 else 0.0
    allowed = torch.ones_like(score, dtype=torch.bool)
    own = pairing.target >= 0
    allowed[torch.arange(len(rows))[own], pairing.target[own]] = False
    if pairing.image_ids is not None:
        allowed &= pairing.image_ids[:, None] != pairing.text_ids
    gap = torch.maximum(score - limits[0].double()[:, None], score - limits[1].double())
    return torch.stack([allowed & (gap >= error), allowed & (gap >= -error)])


def dense(found: Listed, shape: tuple[int, int]) -> Tensor:
    result = torch.zeros(shape, dtype=torch.bool)
    result[found.row, found.column] = True
    assert result.sum() == len(found.row)
    place = found.row * shape[1] + found.column
    assert torch.equal(place, place.sort().values)
    return result


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("isa", ISAS)
def test_lists_what_reaches_a_bound(isa, ids, exact) -> None:
    for dtype in (torch.float32, torch.float64):
        rows, columns = (x.to(dtype) for x in embeddings())
        pairing = question(len(rows), len(columns), ids)
        limits = bounds(len(rows), len(columns), rows)
        found = above(rows, columns, pairing, limits, rows.numel(), exact=exact, isa=isa)
        assert found is not None
        surely, maybe = truth(rows, columns, pairing, limits)
        listed = dense(found, (len(rows), len(columns)))
        assert (listed | ~surely).all()
        assert (maybe | ~listed).all()
        score = (rows.double() @ columns.double().T)[found.row, found.column]
        rough = isa in SCREENING_ISAS and not exact and dtype == torch.float32
        error = (found.similarity.double() - score).abs().max()
        assert error < (0.02 if rough else 1e-6)
        if rough:
            near = (score - limits[0].double()[found.row]).abs() < 1e-4
            assert (found.similarity.double() - score)[near].abs().max() < 1e-6


def test_no_room_and_not_a_number() -> None:
    rows, columns = embeddings()
    pairing = question(len(rows), len(columns), ids=False)
    limits = bounds(len(rows), len(columns), rows)
    found = above(rows, columns, pairing, limits, rows.numel(), exact=True)
    assert above(rows, columns, pairing, limits, len(found.row) // 2, exact=True) is None
    again = above(rows, columns, pairing, limits, 2 * len(found.row), exact=True)
    assert torch.equal(again.similarity, found.similarity)
    rows[3, 2] = float("nan")
    found = above(rows, columns, pairing, limits, rows.numel(), exact=False)
    own = pairing.target[3]
    assert (found.row == 3).sum() == len(columns) - int(0 <= own < len(columns))
    assert found.similarity[found.row == 3].isnan().all()


def test_threads_change_nothing() -> None:
    rows, columns = embeddings()
    pairing = question(len(rows), len(columns), ids=True)
    limits = bounds(len(rows), len(columns), rows)
    answers = []
    for count in (1, 3):
        with threads(count):
            found = above(rows, columns, pairing, limits, rows.numel(), exact=False)
            weight = found.similarity.sin()
            gradients = torch.ones_like(rows), torch.ones_like(columns)
            add_listed(rows, columns, found, weight, gradients)
            answers.append((*found, *gradients))
    for left, right in zip(*answers, strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_gradients_of_listed_elements(isa, dtype) -> None:
    """Rows in two blocks, a width of two slices and a part of one, a row with many terms."""
    generator = torch.Generator().manual_seed(1)
    wide = accumulate_dtype(dtype)
    rows, columns = (torch.randn(n, 150, generator=generator).to(dtype) for n in (4200, 60))
    row = torch.randint(len(rows), (9000,), generator=generator)
    row[:700] = 4100
    column = torch.randint(len(columns), (9000,), generator=generator)
    weight = torch.randn(9000, generator=generator, dtype=wide)
    found = torch.ones_like(rows, dtype=wide), torch.ones_like(columns, dtype=wide)
    add_listed(rows, columns, Listed(row, column, weight), weight, found, isa)
    matrix = torch.zeros(len(rows), len(columns), dtype=torch.float64)
    matrix.index_put_((row, column), weight.double(), accumulate=True)
    expected = 1 + matrix @ columns.double(), 1 + matrix.T @ rows.double()
    rounding = 2000 * torch.finfo(wide).eps
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left.double(), right, rtol=0, atol=rounding)


@pytest.mark.parametrize("name", ["row", "column"])
@pytest.mark.parametrize("wrong", [-1, 10**6])
def test_an_index_out_of_range_is_refused(name, wrong) -> None:
    rows, columns = embeddings()
    at = {"row": torch.zeros(3, dtype=torch.int64), "column": torch.zeros(3, dtype=torch.int64)}
    at[name][1] = wrong
    weight = torch.ones(3)
    gradients = torch.zeros_like(rows), torch.zeros_like(columns)
    with pytest.raises(ValueError, match=f"{name}: expected indices in .*, got {wrong} at"):
        add_listed(rows, columns, Listed(*at.values(), weight), weight, gradients)
