"""Screened mining: float32 decides, whatever bfloat16 rounds away, or all is mined in float32."""

from __future__ import annotations

import math

import pytest
import torch
from launches import recording
from mining_literal import CASES, Case, full_pairing, mined_literally, whole_numbers
from test_triton_capture import check_step, embeddings
from test_triton_mine import check, mine
from torch import Tensor

import goal_kernels as gk
from goal_kernels.backends.answers import Mined
from goal_kernels.backends.base import Pairing, SearchQuery
from goal_kernels.backends.gpu import use_programs, use_strategy
from goal_kernels.backends.gpu.kernels import screen
from goal_kernels.backends.gpu.plan import SCREEN, TILE
from goal_kernels.backends.gpu.records import MiningResult
from goal_kernels.constants import SHORTEST_LENGTH

pytestmark = [
    pytest.mark.filterwarnings("error::RuntimeWarning"),
    pytest.mark.usefixtures("strips_of_two_tiles"),
]


def screened(backend, image: Tensor, text: Tensor, pairing=(None, None, None)) -> Mined:
    with use_strategy(SCREEN):
        return mine(backend, image, text, pairing)


@pytest.fixture
def without_fallback(monkeypatch) -> list[tuple[int, int]]:
    """Takes the kernel away that mines everything; gets (pairs listed, room for them) of calls."""
    seen = []

    def skip(prepared, pairing, query, waiting, most):
        seen.append((int(waiting), most))
        return prepared, MiningResult.fixed(prepared)

    monkeypatch.setattr(screen, "mine_tiles", skip)
    return seen


def spread(rows: int, columns: int, width: int, device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(50)
    image = torch.randn(rows, width, generator=generator)
    text = torch.randn(columns, width, generator=generator)
    return image.to(device), text.to(device)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("paired", [False, True], ids=["implicit", "target+ids"])
def test_exact_data(backend, device, case: Case, paired: bool) -> None:
    image = whole_numbers(case.rows, case.width, torch.float32, 1).to(device)
    text = whole_numbers(case.columns, case.width, torch.float32, 2).to(device)
    pairing = full_pairing(case) if paired else (None, None, None)
    mined = screened(backend, image, text, pairing)
    check(mined, mined_literally(image, text, pairing, ("none", 0.0, 0.0)), "none")


@pytest.mark.parametrize("scales", [(1.0, 1.0), (1e-10, 1e9), (1e15, 1e15)], ids=str)
def test_candidates_hold_the_hardest(backend, device, without_fallback, scales) -> None:
    """Where bfloat16 names other pairs, float32 names those of float64, from a few pairs each."""
    image, text = spread(300, 200, 70, device)
    text[100:] = text[:100] + 2e-3 * text[100:]  # nearly twins
    image[150:] = image[:150] + 2e-3 * image[150:]
    image, text = image * scales[0], text * scales[1]
    ids = torch.arange(300) % 90, torch.arange(200) % 80
    pairing = (torch.arange(300) % 200, *ids)
    mined = screened(backend, image, text, pairing)
    scores = image.cpu().double() @ text.cpu().double().T
    rough = image.cpu().bfloat16().double() @ text.cpu().bfloat16().double().T
    for score in (scores, rough):
        score[ids[0][:, None] == ids[1][None, :]] = -math.inf
        score[torch.arange(300), pairing[0]] = -math.inf
    assert (rough.argmax(1) != scores.argmax(1)).any()
    assert (rough.argmax(0) != scores.argmax(0)).any()
    assert mined.row_index.tolist() == scores.argmax(1).tolist()
    assert mined.column_index.tolist() == scores.argmax(0).tolist()
    torch.testing.assert_close(
        mined.row_value.cpu().double(), scores.amax(1), rtol=1e-5, atol=1e-44
    )
    ((listed, room),) = without_fallback
    assert 500 < listed < 3 * 500
    assert room == 16 * 500


def test_the_most_that_rounding_can_take_away(backend, device, without_fallback) -> None:
    """The hardest negative loses half a step in every element, and others gain it."""
    width, step = 64, 2.0**-7
    image = torch.ones(12, width)
    image[0] = 2.0  # the hardest of every text, so that a pair is listed for its row alone
    text = torch.full((12, width), 0.5)
    text[7] = 1 + 0.499 * step
    text[[3, 9], ::2] = 1 + 0.501 * step
    text[[3, 9], 1::2] = 1 - 0.1 * step
    rough = image.bfloat16().double() @ text.bfloat16().double().T
    assert (rough[:, 3] > rough[:, 7]).all()
    mined = screened(backend, image.to(device), text.to(device))
    assert mined.row_index.tolist() == [7] * 7 + [3] + [7] * 4
    ((listed, room),) = without_fallback
    assert listed <= room


@pytest.mark.parametrize("which", ["alike", "zero", "nan", "infinite", "huge"])
def test_what_is_not_screened_is_mined_in_float32(backend, device, which: str) -> None:
    image, text = spread(90, 70, 20, device)
    if which == "alike":
        image, text = 1 + 1e-4 * image, 1 + 1e-4 * text
    elif which == "zero":
        image *= 0
    else:
        value = {"nan": math.nan, "infinite": math.inf, "huge": 2e38}[which]
        image[5], text[8, 3] = value, value
    with use_strategy(TILE):
        expected = mine(backend, image, text)
    found = screened(backend, image, text)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_rows_of_uneven_length(backend, device, without_fallback) -> None:
    """Each has a window of its own, against the longest of the other side."""
    image, text = spread(300, 290, 64, device)
    image *= torch.logspace(-3, 3, 300, base=2, device=device)[:, None]
    scores = image.cpu().double() @ text.cpu().double().T
    scores[range(290), range(290)] = -math.inf
    mined = screened(backend, image, text)
    assert mined.row_index.tolist() == scores.argmax(1).tolist()
    ((listed, room),) = without_fallback
    assert listed <= 2 * 590


def test_normalised_rows_whose_squares_are_no_number(backend, device) -> None:
    """Squares of the raw rows are 0, which says nothing of the normalised ones."""
    image, text = spread(60, 60, 64, device)
    scale = torch.tensor(1.0) / SHORTEST_LENGTH
    tiny = (2.0**-36 / scale).view(torch.int32) + torch.arange(-3, 4, dtype=torch.int32)
    (tiny,) = (x for x in tiny.view(torch.float32) if x * scale == 2.0**-36)  # rounding loses none
    image = tiny * image.sign()
    text[30:] = text[:30] * (1 + 1e-4 * text[30:])
    query = SearchQuery("none", 0.0, 0.0, True, "highest")
    with use_strategy(SCREEN):
        mined = backend.search(image, text, Pairing(None, None, None), query).mined
    units = torch.nn.functional.normalize(text.cpu().double(), dim=1)
    scores = 2.0**-36 * image.cpu().double().sign() @ units.T
    scores.fill_diagonal_(-math.inf)
    for matrix, index in ((scores, mined.row_index), (scores.T, mined.column_index)):
        chosen = matrix.gather(1, index.cpu()[:, None])[:, 0]
        assert (matrix.amax(1) - chosen).max() <= 1e-6 * 8 * 2.0**-36


def test_a_full_list_ends_the_search(backend, device, without_fallback, monkeypatch) -> None:
    """A program that finds it full leaves out the strips that are left."""
    monkeypatch.setattr(screen, "CANDIDATES", 1)
    image = text = torch.ones(1200, 8, device=device)
    with use_programs(1):
        screened(backend, image, text)
    ((listed, room),) = without_fallback
    assert room < listed < 2 * room


def test_nothing_varies(backend, device, nan_filled_memory) -> None:
    """Not with the number of programs, nor with what memory held."""
    image, text = spread(300, 290, 16, device)
    results = []
    for programs in (1, 7, 64):
        with use_programs(programs):
            results.append(screened(backend, image, text))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("objective", ["hinge/constant", "nca/sigmoid"])
def test_losses_agree(backend, device, objective: str, normalize: bool) -> None:
    image, text = ((x / 5).requires_grad_() for x in spread(60, 60, 20, device))
    results = []
    for strategy in (TILE, SCREEN):
        with use_strategy(strategy):
            loss = gk.goal_loss(image, text, objective, normalize=normalize, backend="triton")
            results.append([loss.detach(), *torch.autograd.grad(loss, (image, text))])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "precision", "objective"),
    [
        (torch.float32, "high", "hinge/constant"),
        (torch.bfloat16, "highest", "hinge/constant"),
        (torch.float32, "highest", "nca/sigmoid_ms"),
    ],
    ids=str,
)
def test_what_it_cannot_serve_it_refuses(backend, device, dtype, precision, objective) -> None:
    image = torch.ones(4, 3, device=device, dtype=dtype)
    with use_strategy(SCREEN), pytest.raises(NotImplementedError, match="'screen'"):
        gk.goal_loss(image, image, objective, backend="triton", precision=precision)


@pytest.mark.parametrize("normalize", [False, True])
def test_a_step_can_be_captured(monkeypatch, normalize: bool) -> None:
    with recording(monkeypatch) as recorder:
        pair = embeddings(5000, torch.float32)
        check_step(recorder, *pair, objective="hinge/constant", normalize=normalize)
    kernels = [launch.kernel for launch in recorder.kernels]
    mining = ["round", "strip", "screen", "decide", "tile"]
    assert kernels[:7] == [f"{name}_kernel" for name in ("prepare", *mining, "weigh")]


def test_memory_of_a_million_pairs(monkeypatch) -> None:
    """Besides the copies: keys, the list, and what every step takes."""
    batch, width = 10**6, 64
    pair = embeddings(batch, torch.float32)
    with recording(monkeypatch) as recorder:
        gk.goal_loss(*pair, "hinge/constant", backend="triton")
    copies = 2 * 2 * batch * width
    assert recorder.peak <= copies + (128 + 8 * 18) * 2 * batch + 2**20
