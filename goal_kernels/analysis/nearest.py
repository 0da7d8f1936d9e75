"""`nearest_objective`: the triplet and pair elements, and their parameters, that come closest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from goal_kernels.analysis.dissection import Dissection
from goal_kernels.analysis.landscape import Analysis, analyze
from goal_kernels.analysis.numerics import lattice
from goal_kernels.objective import Objective
from goal_kernels.registry import PARAMETERS, Parameter, list_elements
from goal_kernels.similarity_loss import goal_loss_from_similarity

STEPS = 24  # a side of the lattice on which landscapes are compared
FIRST_STEP, LAST_STEP = 1.0, 1 / 512
FACTOR, SHIFT = 4.0, 0.5  # of a parameter by a step of 1: of positive ones, and of others
SLACK = 0.01  # added to parameters that may be 0 before they are multiplied
MOST_TRIALS = 400  # of one combination

Misfit = Callable[[Objective], "tuple[float, float]"]


class Nearest(NamedTuple):
    """The objective that comes closest to a loss.

    objective: with fitted parameters, along `direction`. scale: what its weights are multiplied by.
    error: length of the difference of the weights over that of the loss's weights, 0 for the same
    up to scale, 1 for nothing in common. direction: of a batch's gradient, see `Dissection`, or of
    a landscape. direction_error: see `Dissection`; 0 for a landscape. ranking: the error of every
    combination, smallest first.
    """

    objective: Objective
    scale: float
    error: float
    direction: str
    direction_error: float
    ranking: tuple[tuple[str, float], ...]


def nearest_objective(
    target: Analysis | Dissection, *, among: Sequence[str] | None = None, mining: str = "both"
) -> Nearest:
    """Fit combinations of elements and return the closest.

    Args:
        target: a landscape, compared on a lattice over [-1, 1]^2 without the elements of relative
            similarity, which a single (p, n) does not have; or a dissected batch, whose dL/dS is
            compared with that of each objective, all pairs included.
        among: "triplet/pair" of those to try; None: all that are registered, which takes a second
            for a landscape and some for a batch. The direction is found apart from them.
        mining: of a batch, the anchors of the objective: "both", "i2t" or "t2i".
    Returns: the closest objective with its parameters, from a pattern search that starts at the
        defaults: a local optimum.
    Raises: TypeError for another target; ValueError when its weights are all zero or not finite.
    """
    if not isinstance(target, Analysis | Dissection):
        raise TypeError(
            f"target: expected what analyze or dissect returned, got {type(target).__name__}."
        )
    batch = isinstance(target, Dissection)
    wanted = _of_batch(target, mining) if isinstance(target, Dissection) else _of_function(target)
    if among is None:
        pairs = [e.name for e in list_elements("pair") if batch or e.relative == "none"]
        among = [f"{triplet.name}/{pair}" for triplet in list_elements("triplet") for pair in pairs]
    results = [_search(wanted, Objective.parse(name).along_products) for name in among]
    # Of equally good ones that with the fewest parameters.
    results.sort(key=lambda found: (round(found[1], 4), len(declared(found[0]))))
    objective, error, scale = results[0]
    ranking = tuple((found.name, miss) for found, miss, _ in results)
    direction = target.direction
    own_error = target.direction_error if isinstance(target, Dissection) else 0.0
    if direction in [element.name for element in list_elements("direction")]:
        objective = replace(objective, direction_element=direction)
    return Nearest(objective, scale, error, direction, own_error, ranking)


def _of_function(target: Analysis) -> Misfit:
    p, n = lattice(STEPS)
    wanted = torch.cat(target.weights(p, n))
    return _misfit(wanted, lambda objective: torch.cat(analyze(objective).weights(p, n)))


def _of_batch(target: Dissection, mining: str) -> Misfit:
    def slope(objective: Objective) -> Tensor:
        leaf = target.similarity.clone().requires_grad_()
        loss = goal_loss_from_similarity(leaf, objective, image_ids=target.ids, direction=mining)
        return torch.autograd.grad(loss, leaf)[0].reshape(-1)

    return _misfit(target.slope.reshape(-1), slope)


def _misfit(wanted: Tensor, weights: Callable[[Objective], Tensor]) -> Misfit:
    """(error, scale) of an objective, with the best scale that is not negative."""
    square = wanted.square().sum()
    if not square.isfinite() or not square:
        raise ValueError("target: expected finite weights that are not all zero.")

    def misfit(objective: Objective) -> tuple[float, float]:
        found = weights(objective)
        common, own = found @ wanted, found.square().sum()
        if not common > 0 or not own.isfinite():
            return 1.0, 0.0
        scale = common / own
        return ((wanted - scale * found).norm() / square.sqrt()).item(), scale.item()

    return misfit


def declared(objective: Objective) -> dict[str, Parameter]:
    """The hyper-parameters that shape the weights of an objective."""
    elements = (objective.triplet_element, objective.pair_element)
    own = {p.name: p for element in elements for p in element.own_parameters}
    return {
        name: own.get(name) or PARAMETERS[name]
        for element in elements
        for name in element.hyper_parameters
    }


def _search(misfit: Misfit, objective: Objective) -> tuple[Objective, float, float]:
    """The objective with better parameters, its error and scale."""
    parameters = declared(objective)
    best, scale = misfit(objective)
    step, trials = FIRST_STEP, 0
    while parameters and step >= LAST_STEP and best > 1e-9 and trials < MOST_TRIALS:
        improved = False
        for name, parameter in parameters.items():
            for sign in (1, -1):
                value = _moved(objective, parameter, sign * step)
                if not parameter.admits(value):
                    continue
                trial = objective.with_parameters({name: value})
                trials += 1
                error, factor = misfit(trial)
                if error < best:
                    objective, best, scale, improved = trial, error, factor, True
                    break
        if not improved:
            step /= 2
    return objective, best, scale


def _moved(objective: Objective, parameter: Parameter, step: float) -> float:
    value = {**dict(objective.parameters), **objective.scalars._asdict()}[parameter.name]
    if parameter.low != 0:
        return value + SHIFT * step
    slack = 0.0 if parameter.low_open else SLACK
    return max(math.exp(step * math.log(FACTOR)) * (value + slack) - slack, 0.0)
