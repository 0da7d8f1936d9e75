"""Landscapes over (p, n) against autograd, oracle and theory; what is no loss is refused."""

from __future__ import annotations

import math

import oracle
import pytest
import torch
from test_elements import INTEGRABLE, evaluate, grid

import goal_kernels as gk
from goal_kernels.analysis import analyze, find_loss, nearest_objective
from goal_kernels.analysis.numerics import axis, derivative, lattice, work, zero_lines

PLAIN = [o for o in gk.builtin_objectives() if o.pair_element.relative == "none"]
SMOOTH = [o for o in PLAIN if o.triplet_element.name != "hinge"]
P, N = lattice(8)


def named(objective: gk.Objective) -> str:
    return objective.name


@pytest.mark.parametrize("objective", gk.builtin_objectives(), ids=named)
def test_weights_of_an_objective_are_those_of_the_oracle(objective) -> None:
    relative = (0.3, 0.7) if objective.pair_element.relative != "none" else (0.0, 0.0)
    found = analyze(objective, relative=relative)
    h = oracle.Hyper()
    for p, n in ((-0.4, 0.9), (0.2, 0.1), (0.8, 0.7)):
        weight = oracle.triplet_weight(objective.triplet_element.name, p, n, h)
        sides = oracle.pair_weight(objective.pair_element.name, p, n, *relative, h)
        assert found.triplet(p, n).item() == pytest.approx(weight, rel=1e-13)
        assert found.positive(p, n).item() == pytest.approx(sides[0], rel=1e-13)
        assert found.negative(p, n).item() == pytest.approx(sides[1], rel=1e-13)
        assert found.pull(p, n).item() == pytest.approx(weight * sides[0], rel=1e-13)
        assert found.push(p, n).item() == pytest.approx(weight * sides[1], rel=1e-13)
    assert found.factored


@pytest.mark.parametrize("objective", PLAIN, ids=named)
def test_integrable_exactly_where_the_theory_says(objective) -> None:
    """Jumps count: hinge/linear has no defect anywhere but on its kink."""
    found = analyze(objective)
    assert found.integrable == (objective.name in INTEGRABLE)
    assert (found.potential is not None) == found.integrable


@pytest.mark.parametrize("objective", SMOOTH, ids=named)
def test_the_defect_is_that_of_autograd(objective) -> None:
    p, n = (side.clone().requires_grad_() for side in grid(6))
    weight = evaluate(objective.triplet_element, objective, p, n, {})
    plus, minus = evaluate(objective.pair_element, objective, p, n, {})
    pull = torch.autograd.grad((weight * plus).sum() + 0 * n.sum(), n, retain_graph=True)[0]
    push = torch.autograd.grad((weight * minus).sum() + 0 * p.sum(), p)[0]
    found = analyze(objective).defect(p.detach(), n.detach())
    torch.testing.assert_close(found, pull + push, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", sorted(INTEGRABLE))
def test_the_work_along_a_path_is_the_closed_form(name) -> None:
    objective = gk.Objective.parse(name)
    found = analyze(objective)
    expected = objective.potential(P, N)
    torch.testing.assert_close(found.potential(P, N), expected)
    zero = torch.zeros_like(P)
    straight = work(found._field, (zero, zero), (P, N))
    start = objective.potential(zero, zero)
    torch.testing.assert_close(straight, expected - start, rtol=0, atol=1e-9)


def test_a_callable_is_analysed_like_the_objective_that_it_is() -> None:
    def nca(p, n):
        return torch.nn.functional.softplus(10 * (n - p), threshold=100) / 10

    found, objective = analyze(nca), analyze("nca/constant")
    torch.testing.assert_close(found.pull(P, N), objective.pull(P, N))
    torch.testing.assert_close(found.push(P, N), objective.push(P, N))
    assert found.balanced
    assert found.integrable
    assert found.notes == ()
    assert not found.factored
    torch.testing.assert_close(found.triplet(P, N), objective.triplet(P, N))  # mean of both
    torch.testing.assert_close(found.potential(P, N), nca(P, N))


def test_a_loss_of_the_positive_alone() -> None:
    found = analyze(lambda p, n: (1 - p).square())
    assert found.pull(0.5, 0.3) == 1
    assert found.push(0.5, 0.3) == 0
    assert found.integrable


def test_a_stopped_gradient_is_seen() -> None:
    """Autograd's own second derivative would call this integrable."""

    def stopped(p, n):
        return torch.nn.functional.softplus(5 * n + 9 * n.detach() - 5 * p)

    found = analyze(stopped)
    assert not found.integrable
    assert found.potential is None
    assert "stopped" in found.notes[0]
    weight = torch.sigmoid(14 * N - 5 * P)
    torch.testing.assert_close(found.defect(P, N), 45 * weight * (1 - weight))


def test_a_potential_without_a_closed_form_is_the_work() -> None:
    """The value of EPSHN jumps where its weights end; the potential of the weights does not."""
    found = analyze("epshn")
    assert found.integrable
    just_below, just_above = found.potential([0.5, 0.5], [0.5 - 1e-7, 0.5 + 1e-7])
    assert just_above.item() == pytest.approx(just_below.item(), abs=1e-5)
    p = torch.tensor(0.5, dtype=torch.float64)
    n = torch.tensor(0.1, dtype=torch.float64)
    slope = derivative(lambda at: found.potential(at, n), p)
    assert slope.item() == pytest.approx(-found.pull(p, n).item(), abs=1e-6)


def test_equilibrium_is_where_pull_equals_push() -> None:
    lines = analyze("constant/linear").equilibrium()
    assert len(lines) > 50
    assert (lines.sum(dim=2) - 1).abs().max() < 1e-12  # 1 - p = n
    assert len(analyze("nca/constant").equilibrium()) == 0
    assert analyze("nca/constant").balanced
    assert not analyze("nca/sigmoid").balanced
    p, n = analyze("nca/sigmoid").equilibrium(128).unbind(dim=2)
    gap = torch.sigmoid(-2 * (p - 0.5)) - torch.sigmoid(10 * (n - 0.5))
    assert gap.abs().max() < 2e-3


def test_stationary_points_and_limits() -> None:
    hinge = analyze("hinge/constant")
    assert hinge.stationary([0.9, 0.9], [0.6, 0.8]).tolist() == [True, False]
    assert [tuple(c) for c in analyze("constant/linear").limits()] == [
        (-1, -1, pytest.approx(2), pytest.approx(-1)),
        (-1, 1, pytest.approx(2), pytest.approx(1)),
        (1, -1, pytest.approx(0, abs=1e-8), pytest.approx(-1)),
        (1, 1, pytest.approx(0, abs=1e-8), pytest.approx(1)),
    ]
    corner = analyze("contrastive").limits()[3]
    assert corner == (1, 1, 1, math.inf)  # the distance has an infinite slope at 0


def test_shapes_and_dtypes() -> None:
    found = analyze("nca/sigmoid")
    assert found.pull(0.3, 0.2).shape == ()
    assert found.push(torch.zeros(3, 1, dtype=torch.float32), torch.zeros(4)).shape == (3, 4)
    assert found.defect([0.1, 0.2], 0.3).dtype == torch.float64
    assert found.pull(1 / 3, 0.1) == found.pull(torch.tensor(1 / 3, dtype=torch.float64), 0.1)
    with pytest.raises(TypeError, match="p: expected real"):
        found.pull(1j, 0.0)


def test_relative_similarity_is_held_fixed() -> None:
    empty = analyze("nca/sigmoid_ms")
    assert "R+ = 0 and R- = 0" in empty.notes[0]
    one_pair = torch.tensor([[0.4]], dtype=torch.float64)
    other = torch.tensor([[0.6]], dtype=torch.float64)
    images = torch.tensor([[1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    texts = torch.cat([torch.cat([one_pair, one_pair], 1), torch.cat([other, one_pair], 1)])
    loss = gk.goal_loss(
        images, texts, "nca/sigmoid_ms", text_to_image=torch.tensor([0, -1]), direction="i2t"
    )
    grad = torch.autograd.grad(loss, images)[0][0]
    expected = empty.push(0.4, 0.6) * texts[1] - empty.pull(0.4, 0.6) * texts[0]
    torch.testing.assert_close(grad, expected)
    with pytest.raises(ValueError, match="has no relative similarity"):
        analyze("nca/sigmoid", relative=(0.1, 0.1))


BAD = {
    "one number": (lambda p, n: (n - p).mean(), ValueError, r"got \[\]; return one value for each"),
    "wrong shape": (
        lambda p, n: (n - p)[None],
        ValueError,
        r"like p, torch.float64 \[5\], got \[1, 5\]",
    ),
    "complex": (lambda p, n: (n - p).to(torch.complex128), TypeError, "got torch.complex128"),
    "whole numbers": (lambda p, n: (n > p).long(), TypeError, "got torch.int64"),
    "not a number": (lambda p, n: (n - p).sqrt(), ValueError, "got NaN, for instance at p = "),
    "half the digits": (lambda p, n: (n - p).float(), TypeError, "got torch.float32"),
    "no gradient at p = n": (
        lambda p, n: (n - p).square().sqrt(),
        ValueError,
        "gradient of <lambda>: expected numbers, got NaN, for instance at p = ",
    ),
    "no tensor": (lambda p, n: 0.0, TypeError, "got float"),
    "no graph": (lambda p, n: (n - p).detach(), ValueError, "leave out detach"),
    "of the batch": (lambda p, n: n - p.mean(), ValueError, "among other anchors and"),
    "random": (lambda p, n: n - p + torch.rand_like(p), ValueError, "draws at random"),
    "one argument": (lambda p: p, TypeError, "expected a callable of two arguments"),
    "no loss": (3, TypeError, "loss: expected an Objective"),
    "unknown name": ("info_nec", ValueError, "did you mean info_nce"),
    "unknown element": ("nca/linaer", ValueError, "unknown element 'linaer'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_function_of_p_and_n_is_refused(case) -> None:
    loss, error, message = BAD[case]
    with pytest.raises(error, match=message):
        analyze(loss)


def test_a_direction_is_named_and_changes_no_weight() -> None:
    plain, tangent = analyze("nca/sigmoid"), analyze("nca/sigmoid/tangent")
    assert (plain.direction, tangent.direction) == ("dot", "tangent")
    assert tangent.name == "nca/sigmoid/tangent"
    assert "kappa" in tangent.equation
    assert "kappa" not in plain.equation
    assert torch.equal(plain.pull(0.6, 0.3), tangent.pull(0.6, 0.3))
    assert nearest_objective(tangent, among=["nca/sigmoid"]).objective.name == tangent.name


def test_relative_is_for_objectives() -> None:
    with pytest.raises(ValueError, match="only an objective has"):
        analyze(find_loss("circle"), relative=(1.0, 1.0))


def test_numerics() -> None:
    values = axis(40)
    p, n = torch.meshgrid(values, values, indexing="ij")
    lines = zero_lines(p**2 + n**2 - 0.49, values)
    assert (lines.square().sum(dim=2).sqrt() - 0.7).abs().max() < 2e-3
    length = (lines[:, 0] - lines[:, 1]).square().sum(dim=1).sqrt().sum().item()
    assert length == pytest.approx(2 * math.pi * 0.7, rel=2e-3)
    jump = derivative(lambda x: (x > 0).double(), torch.tensor([0.0, 0.5], dtype=torch.float64))
    assert jump.isnan().tolist() == [True, False]

    def step(p, n):  # work over a jump at 1/3, which no node of a fixed rule would place
        return torch.zeros_like(p), (n > 1 / 3).double()

    zero = torch.zeros(1, dtype=torch.float64)
    assert work(step, (zero, zero), (zero, zero + 1)).item() == pytest.approx(2 / 3, abs=1e-9)
