"""`Objective`: which elements, with which hyper-parameters. Immutable, hashable, comparable."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from numbers import Real
from types import MappingProxyType

from torch import Tensor

from goal_kernels import constants
from goal_kernels.backends.base import Scalars
from goal_kernels.elements import BUILTIN_ELEMENTS
from goal_kernels.registry import KINDS, PARAMETERS, Element, Parameter, find_element

OPTIONS = (
    *("image_ids", "text_ids", "normalize", "reduction", "direction"),
    *("precision", "backend", "return_stats"),
)
"""What `goal_loss` takes by keyword beside hyper-parameters; for messages."""


def _require_number(name: str, value: object, declared: Parameter) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{name}: expected a number in {declared.range_text()}, got "
            f"{type(value).__name__} {value!r}."
        )
    number = float(value)
    if not declared.admits(number):
        raise ValueError(
            f"{name}: expected a finite number in {declared.range_text()}, got {number}."
        )
    return number


def _callable_element(kind: str, formula: Callable[..., object]) -> Element:
    """An anonymous element around a callable on [B] vectors, without parameters of its own."""
    vectors = KINDS[kind]
    try:
        inspect.signature(formula).bind(*vectors)
    except (TypeError, ValueError) as error:
        count = "two arguments" if len(vectors) == 2 else "one argument"
        raise TypeError(
            f"{kind}: a callable must accept {count} ({', '.join(f'{v} [B]' for v in vectors)}): "
            f"{error}. Register it with goal_kernels.register_{kind} to give it hyper-parameters."
        ) from None
    name = getattr(formula, "__name__", type(formula).__name__)
    return Element(name, kind, lambda **given: formula(*(given[vector] for vector in vectors)))


def _resolve(kind: str, spec: object) -> Element:
    if isinstance(spec, str):
        return find_element(kind, spec)
    if callable(spec):
        return _callable_element(kind, spec)
    raise TypeError(
        f"{kind}: expected the name of a registered element or a callable on [B] vectors, got "
        f"{type(spec).__name__}."
    )


@dataclass(frozen=True)
class Objective:
    """A gradient-space objective: triplet weight x pair weight x direction (paper, section 3).

    Args:
        triplet: name or alias of a registered triplet element, or f(positive, negative) -> T.
        pair: name or alias of a registered pair element, or f(positive, negative) -> (P+, P-).
        tau, alpha, beta: sharpness of the weights, > 0, 1 / similarity.
        lam: midpoint of the sigmoid weights, a similarity.
        epsilon: slack of relative similarity (`_ms` elements), >= 0, a similarity.
        margin: margin of the hinge, >= 0, a similarity.
        parameters: values of hyper-parameters that registered elements declare beyond these six.
        direction_element: name of a registered direction, or f(similarity) -> kappa: what a row y
            adds to the gradient of a row x is along y - kappa x. "dot" (0), "euclidean" (1) or
            "tangent" (the similarity). It makes no difference where rows are normalised, by
            `normalize=True` or before: what is along a row does not turn it.

    Raises: ValueError for unknown names and values out of range, TypeError for wrong types.
    """

    triplet: str | Callable[..., Tensor]
    pair: str | Callable[..., tuple[Tensor, Tensor]]
    tau: float = constants.TAU
    alpha: float = constants.ALPHA
    beta: float = constants.BETA
    lam: float = constants.LAM
    epsilon: float = constants.EPSILON
    margin: float = constants.MARGIN
    parameters: Mapping[str, float] | tuple[tuple[str, float], ...] = ()
    direction_element: str | Callable[[Tensor], Tensor] = "dot"
    triplet_element: Element = field(init=False, repr=False, compare=False)
    pair_element: Element = field(init=False, repr=False, compare=False)
    kappa_element: Element = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        for kind, given, found in (
            ("triplet", "triplet", "triplet_element"),
            ("pair", "pair", "pair_element"),
            ("direction", "direction_element", "kappa_element"),
        ):
            element = _resolve(kind, getattr(self, given))
            put(self, found, element)
            if isinstance(getattr(self, given), str):
                put(self, given, element.name)  # aliases compare equal to the full name
        for name, declared in PARAMETERS.items():
            put(self, name, _require_number(name, getattr(self, name), declared))
        put(self, "parameters", self._own_values(dict(self.parameters)))

    def _own_values(self, given: dict[str, float]) -> tuple[tuple[str, float], ...]:
        elements = self.triplet_element, self.pair_element, self.kappa_element
        declared = {p.name: p for e in elements for p in e.own_parameters}
        unknown = sorted(set(given) - set(declared))
        if unknown:
            raise ValueError(
                f"parameters: {', '.join(unknown)} not declared by {self.name}; it declares "
                f"{', '.join(sorted(declared)) or 'none beyond ' + ', '.join(PARAMETERS)}."
            )
        return tuple(
            (name, _require_number(name, given.get(name, p.default), p))
            for name, p in sorted(declared.items())
        )

    @property
    def name(self) -> str:
        """`"triplet/pair"`, or `"triplet/pair/direction"` with another direction than "dot"."""
        weights = f"{self.triplet_element.name}/{self.pair_element.name}"
        if self.direction_element == "dot":
            return weights
        return f"{weights}/{self.kappa_element.name}"

    @property
    def along_products(self) -> Objective:
        """The same weights along "dot"."""
        own = {p.name for e in (self.triplet_element, self.pair_element) for p in e.own_parameters}
        kept = {name: value for name, value in dict(self.parameters).items() if name in own}
        return replace(self, direction_element="dot", parameters=kept)

    @property
    def built_in(self) -> bool:
        """Whether both weights ship with the library: then a backend may weigh natively."""
        return self.triplet_element.built_in and self.pair_element.built_in

    @property
    def scalars(self) -> Scalars:
        """The six hyper-parameters that every objective has."""
        return Scalars(self.tau, self.alpha, self.beta, self.lam, self.epsilon, self.margin)

    @property
    def potential(self) -> Callable[..., Tensor] | None:
        """F(positive, negative) [B] whose derivatives are the weights, or None if there is none."""
        triplet, pair = self.triplet_element, self.pair_element
        formula = triplet.potentials.get(pair.name)
        element = triplet
        if formula is None and triplet.name == "constant":
            formula, element = pair.potentials.get(triplet.name), pair
        if formula is None:
            return None
        values, function = self.values_for(element), formula
        return lambda positive, negative: function(positive, negative, **values)

    @property
    def reports_potential(self) -> bool:
        """Whether the reported value is the true loss (hinge x constant), not the violation."""
        triplet = self.triplet_element
        return triplet.reports_potential and self.pair_element.name in triplet.potentials

    def with_parameters(self, values: Mapping[str, float]) -> Objective:
        """The same elements with some hyper-parameters changed, the six or an element's own.

        Raises: TypeError for an unknown one, naming the nearest; others as `Objective`.
        """
        own = dict(self.parameters)
        known = [*PARAMETERS, *own]
        for name, value in values.items():
            if name not in known:
                raise TypeError(
                    f"{name}: expected an option of goal_loss or a hyper-parameter of {self.name} "
                    f"({', '.join(known)}), got {name}={value!r}{_nearest(name, known)}"
                )
        fields = {name: value for name, value in values.items() if name in PARAMETERS}
        own.update((name, value) for name, value in values.items() if name in own)
        return replace(self, **fields, parameters=own)  # type: ignore[arg-type]

    def values_for(self, element: Element) -> dict[str, float]:
        """The hyper-parameters that `element` takes, by name."""
        own = dict(self.parameters)
        return {n: own[n] if n in own else getattr(self, n) for n in element.parameters}

    @classmethod
    def parse(cls, text: str) -> Objective:
        """An objective with default hyper-parameters from its name, e.g. "nca/sigmoid_ms".

        Args: text: "triplet/pair" or "triplet/pair/direction".
        Raises: ValueError when the text is not of that form or names something unknown.
        """
        triplet, *parts = text.split("/")
        if len(parts) not in (1, 2):
            raise ValueError(
                "objective: expected 'triplet/pair' such as 'nca/sigmoid_ms', or "
                f"'triplet/pair/direction', got {text!r}."
            )
        return cls(triplet, parts[0], direction_element=parts[1] if len(parts) == 2 else "dot")


def _nearest(name: str, known: list[str]) -> str:
    if name == "direction_element":
        return "; name it in the objective, 'triplet/pair/direction', or give an Objective."
    found = get_close_matches(name, [n for n in (*known, *OPTIONS) if n != name], 1)
    return f"; did you mean {found[0]!r}?" if found else "."


def as_objective(
    objective: Objective | str, parameters: Mapping[str, float] = MappingProxyType({})
) -> Objective:
    """`objective` itself, or the parsed string, with some hyper-parameters changed.

    Raises: TypeError for anything else, and as `Objective.with_parameters`.
    """
    if isinstance(objective, str):
        objective = Objective.parse(objective)
    if not isinstance(objective, Objective):
        raise TypeError(
            "objective: expected an Objective or a string such as 'nca/sigmoid_ms', got "
            f"{type(objective).__name__}."
        )
    return objective.with_parameters(parameters) if parameters else objective


def builtin_objectives() -> tuple[Objective, ...]:
    """Every built-in triplet element with every built-in pair element, along "dot"."""
    names: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for element in BUILTIN_ELEMENTS:
        names[element.kind].append(element.name)
    return tuple(Objective(t, p) for t in names["triplet"] for p in names["pair"])
