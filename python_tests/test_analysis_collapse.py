"""Where collapsed batches drift and rest: what a landscape predicts against rows that are moved."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

import goal_kernels as gk
from goal_kernels.analysis import analyze
from tools import collapse

BATCH, WIDTH, STEP = 64, 64, 1e-4
AT_REST = {"constant": (-1.0, 1.0), "linear": (0.5,), "sigmoid": (0.5,)}


def clusters(cosine: float) -> tuple[Tensor, Tensor]:
    """Images about one point, texts about another, without a hint of which belong together."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    first, second = torch.linalg.qr(draw(WIDTH, 2)).Q.T
    text = cosine * first + (1 - cosine**2) ** 0.5 * second
    noise = 0.1 / WIDTH**0.5
    return (
        normalize(first + noise * draw(BATCH, WIDTH), dim=1),
        normalize(text + noise * draw(BATCH, WIDTH), dim=1),
    )


def rates(objective, cosine: float, **options) -> tuple[float, float, gk.MiningStatistics]:
    """Per unit of a step down the gradient: of the clusters' cosine, and of half their spread."""
    pair = [rows.requires_grad_() for rows in clusters(cosine)]
    loss, seen = gk.goal_loss(*pair, objective, normalize=True, return_stats=True, **options)
    slopes = torch.autograd.grad(loss, pair)
    before = [rows.detach() for rows in pair]
    after = [
        normalize(rows - STEP * slope, dim=1) for rows, slope in zip(before, slopes, strict=True)
    ]

    def cosine_of(x: Tensor, y: Tensor) -> Tensor:
        return normalize(x.mean(dim=0), dim=0) @ normalize(y.mean(dim=0), dim=0)

    def spread(x: Tensor, y: Tensor) -> Tensor:
        return sum((rows - rows.mean(dim=0)).square().sum() for rows in (x, y)) / 2

    turned, grown = ((f(*after) - f(*before)) / STEP for f in (cosine_of, spread))
    return turned.item(), grown.item(), seen


@pytest.mark.parametrize("name", ["constant/constant", "nca/sigmoid", "circle/linear"])
def test_the_drift_is_that_of_rows_that_move(name) -> None:
    """Each row is moved as an anchor and as a positive or negative, so twice in either cluster."""
    for cosine in (-0.6, 0.2, 0.5, 0.8):
        turned, _, seen = rates(name, cosine)
        drift = 4 * analyze(name).drift(seen.mean_positive, seen.mean_hardest_negative)
        assert turned == pytest.approx(drift.item(), rel=0.15, abs=0.01)


@pytest.mark.parametrize("name", ["constant/constant", "constant/linear", "nca/sigmoid"])
def test_hardest_negatives_draw_a_collapsed_batch_together(name) -> None:
    _, grown, seen = rates(name, 0.5)
    p, n = seen.mean_positive, seen.mean_hardest_negative
    push = analyze(name).push(p, n)
    assert grown == pytest.approx((2 * BATCH * push * (p - n)).item(), rel=0.1)
    assert grown < 0


def test_the_spread_grows_where_negatives_are_below_positives() -> None:
    _, grown, seen = rates("constant/constant", 0.5, negatives="semi_hard")
    assert seen.mean_hardest_negative < seen.mean_positive
    assert grown > 0


@pytest.mark.parametrize("objective", gk.builtin_objectives(), ids=lambda o: o.name)
def test_plateaus(objective) -> None:
    kind = objective.pair_element.relative
    relative = {"none": (0.0, 0.0), "linear": (0.0, 0.0), "exponential": (1.0, 1.0)}[kind]
    found = analyze(objective, relative=relative).plateaus()
    expected = AT_REST[objective.pair_element.name.removesuffix("_ms")]
    assert found == pytest.approx(expected, abs=1e-3)


def test_plateaus_of_other_losses() -> None:
    moved = gk.Objective("constant", "sigmoid", lam=0.3)
    assert analyze(moved).plateaus() == pytest.approx((0.3,), abs=1e-3)
    assert analyze("contrastive").plateaus() == pytest.approx((0.875,), abs=1e-3)
    assert analyze("epshn").plateaus() == ()  # no gradient where the negative is the harder one
    assert analyze("siglip").plateaus() == (1.0,)


def test_the_page_is_what_the_result_files_say() -> None:
    page = collapse.PAGE.read_text(encoding="utf-8")
    runs = collapse.cold_starts()
    assert len({run.cell.path for run in runs}) == len(runs) >= 20
    for name, part in collapse.generated(runs).items():
        assert f"<!-- {name}:begin -->\n{part}\n<!-- {name}:end -->" in page
