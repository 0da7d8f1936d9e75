"""Every element: formula against the oracle, declared range, potentials; registering one's own."""

from __future__ import annotations

from collections.abc import Iterator

import oracle
import pytest
import torch
from cases import OBJECTIVES, paired_batch
from test_backend_parity import device_or_skip

import goal_kernels as gk
from goal_kernels.backends.choice import BACKENDS
from goal_kernels.registry import PARAMETERS, find_element, unregister_element

TRIPLETS = gk.list_elements("triplet")
PAIRS = gk.list_elements("pair")
INTEGRABLE = {
    "constant/constant",
    "constant/linear",
    "constant/sigmoid",
    "nca/constant",
    "circle/linear",
    "hinge/constant",
}


def grid(steps: int = 21) -> tuple[torch.Tensor, torch.Tensor]:
    axis = torch.linspace(-1, 1, steps, dtype=torch.float64)
    positive, negative = torch.meshgrid(axis, axis, indexing="ij")
    return positive.reshape(-1), negative.reshape(-1)


def relative_vectors(count: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(2, count, generator=generator, dtype=torch.float64)
    return {"relative_positive": 2 * values[0], "relative_negative": 2 * values[1]}


def evaluate(element: gk.Element, objective: gk.Objective, positive, negative, relative):
    extra = relative if element.relative != "none" else {}
    return element.formula(
        positive=positive, negative=negative, **extra, **objective.values_for(element)
    )


@pytest.mark.parametrize("element", TRIPLETS, ids=lambda e: e.name)
def test_triplet_formula_and_range(element) -> None:
    positive, negative = grid()
    found = evaluate(element, gk.Objective(element.name, "constant"), positive, negative, {})
    h = oracle.Hyper()
    for p, n, t in zip(positive.tolist(), negative.tolist(), found.tolist(), strict=True):
        assert t == pytest.approx(oracle.triplet_weight(element.name, p, n, h), abs=1e-14)
    assert element.weight_range[0] <= found.min()
    assert found.max() <= element.weight_range[1]


@pytest.mark.parametrize("element", PAIRS, ids=lambda e: e.name)
def test_pair_formula_and_range(element) -> None:
    positive, negative = grid()
    relative = relative_vectors(len(positive))
    objective = gk.Objective("constant", element.name)
    found = torch.stack(evaluate(element, objective, positive, negative, relative))
    h = oracle.Hyper()
    for k, (p, n) in enumerate(zip(positive.tolist(), negative.tolist(), strict=True)):
        r = (relative["relative_positive"][k].item(), relative["relative_negative"][k].item())
        expected = oracle.pair_weight(element.name, p, n, *r, h)
        assert found[:, k].tolist() == pytest.approx(expected, rel=1e-13, abs=1e-14)
    assert element.weight_range[0] <= found.min()
    assert found.max() <= element.weight_range[1]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
def test_a_potential_exists_exactly_where_the_theory_says(objective) -> None:
    assert (objective.potential is not None) == (objective.name in INTEGRABLE)


@pytest.mark.parametrize("name", sorted(INTEGRABLE))
def test_the_potential_has_the_weights_as_derivatives(name) -> None:
    objective = gk.Objective.parse(name)
    positive, negative = grid(20)  # an even number keeps the hinge's kink off the grid
    positive, negative = positive.requires_grad_(), negative.requires_grad_()
    objective.potential(positive, negative).sum().backward()
    weight = evaluate(objective.triplet_element, objective, positive, negative, {})
    plus, minus = evaluate(objective.pair_element, objective, positive, negative, {})
    torch.testing.assert_close(positive.grad, -(weight * plus), rtol=0, atol=1e-13)
    torch.testing.assert_close(negative.grad, weight * minus, rtol=0, atol=1e-13)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
def test_no_potential_means_curl(objective) -> None:
    """The cross derivatives of the weights agree exactly for the integrable combinations."""
    if objective.pair_element.relative != "none":
        pytest.skip("relative similarity couples anchors: not a function of (p, n) alone")
    point = torch.tensor([0.6, 0.3], dtype=torch.float64)

    def force(at: torch.Tensor) -> torch.Tensor:
        p, n = at[:1], at[1:]
        weight = evaluate(objective.triplet_element, objective, p, n, {})
        plus, minus = evaluate(objective.pair_element, objective, p, n, {})
        return torch.cat([-weight * plus, weight * minus])

    jacobian = torch.autograd.functional.jacobian(force, point)
    curl = (jacobian[0, 1] - jacobian[1, 0]).abs().item()
    # The hinge is flat almost everywhere, so hinge x linear and x sigmoid have no curl at a point.
    if objective.name in INTEGRABLE or objective.triplet_element.name == "hinge":
        assert curl < 1e-13
    else:
        assert curl > 1e-2


def test_every_alias_of_the_paper_resolves() -> None:
    aliases = {"con": "constant", "cir": "circle", "nca": "nca"}
    for short, full in aliases.items():
        assert gk.Objective(short, "con") == gk.Objective(full, "constant")
    for short in ("lin", "sig", "lin_ms", "sig_ms"):
        assert gk.Objective("con", short).pair_element.alias == short
    assert gk.Objective.parse("nca/sig_ms").name == "nca/sigmoid_ms"


def test_every_row_is_complete() -> None:
    for element in (*TRIPLETS, *PAIRS):
        assert element.equation
        assert set(element.parameters) <= set(PARAMETERS)
        assert element.built_in
    assert find_element("pair", "linear_ms").hyper_parameters == ("epsilon",)
    assert set(find_element("pair", "sig_ms").hyper_parameters) == {
        "alpha",
        "beta",
        "lam",
        "epsilon",
    }


@pytest.fixture
def own_elements() -> Iterator[None]:
    def focal(positive, negative, gamma, tau):
        return torch.sigmoid(tau * (negative - positive)) ** gamma

    gamma = gk.Parameter("gamma", 2.0, 0.0, meaning="focus")
    gk.register_triplet("focal", focal, parameters=[gamma, "tau"], alias="foc")

    def gap_pair(positive, negative, relative_positive, relative_negative):
        return 1 - positive + relative_positive, 0.5 + relative_negative

    gk.register_pair("gap", gap_pair, relative="linear")
    yield
    unregister_element("triplet", "focal")
    unregister_element("pair", "gap")


@pytest.mark.parametrize("name", [b.name for b in BACKENDS])
def test_an_element_of_ones_own_runs_on_every_backend(own_elements, name) -> None:
    image, text = paired_batch(12, 8, torch.float32)
    device = device_or_skip(name, image.dtype, 8)
    objective = gk.Objective("focal", "gap", parameters={"gamma": 3.0})
    results = []
    for backend, where, cast in (("reference", "cpu", torch.float64), (name, device, image.dtype)):
        x = image.to(where, cast).requires_grad_()
        y = text.to(where, cast).requires_grad_()
        loss = gk.goal_loss(x, y, objective, backend=backend)
        loss.backward()
        results.append([t.double().cpu() for t in (loss.detach(), x.grad, y.grad)])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert gk.Objective("foc", "gap").values_for(objective.triplet_element)["gamma"] == 2.0


def test_callables_are_elements_too() -> None:
    image, text = paired_batch(9, 5)
    named = gk.goal_loss(image.requires_grad_(), text, gk.Objective("nca", "linear"))
    grad = torch.autograd.grad(named, image)[0]
    objective = gk.Objective(
        triplet=lambda positive, negative: torch.sigmoid(10 * (negative - positive)),
        pair=lambda positive, negative: (1 - positive, negative),
    )
    found = torch.autograd.grad(gk.goal_loss(image, text, objective), image)[0]
    torch.testing.assert_close(found, grad, rtol=0, atol=1e-13)


def test_registration_refuses_what_it_cannot_serve(own_elements) -> None:
    def formula(positive, negative):
        return positive

    with pytest.raises(ValueError, match="exists already"):
        gk.register_triplet("nca", formula)
    with pytest.raises(ValueError, match="declare it with Parameter"):
        gk.register_triplet("other", formula, parameters=["unheard_of"])
    with pytest.raises(ValueError, match="without '/'"):
        gk.register_pair("a/b", formula)
    with pytest.raises(ValueError, match="relative: expected one of"):
        gk.register_pair("other", formula, relative="quadratic")
    with pytest.raises(ValueError, match="built-in"):
        unregister_element("triplet", "nca")
    with pytest.raises(ValueError, match="not declared by"):
        gk.Objective("nca", "gap", parameters={"gamma": 1.0})
    assert find_element("triplet", "foc").name == "focal"
