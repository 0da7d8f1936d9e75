"""The registry of objective elements and hyper-parameters.

An element is one factor of the gradient (docs/derivation.md, section 2). A *triplet* element maps
(positive, negative) to the triplet weight T; a *pair* element maps them to the pair weights P+ and
P-. `positive` and `negative` are the similarities of each anchor to its positive and to its hardest
negative, [B]. A *direction* element maps the similarity of two rows to kappa: what the row y adds
to the gradient of the row x is along y - kappa x. The built-in elements are in `elements.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from goal_kernels import constants
from goal_kernels.constants import RELATIVE_KINDS

if TYPE_CHECKING:  # the registry can be listed without torch
    from torch import Tensor

INFINITY = math.inf

KINDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "triplet": ("positive", "negative"),
        "pair": ("positive", "negative"),
        "direction": ("similarity",),
    }
)
"""The kinds of elements, and the vectors that their formulas take."""


@dataclass(frozen=True)
class Parameter:
    """A hyper-parameter: its name, default, allowed range and meaning.

    The range is [low, high], without `low` itself when `low_open`. Always finite.
    """

    name: str
    default: float
    low: float = -INFINITY
    high: float = INFINITY
    low_open: bool = False
    meaning: str = ""

    def range_text(self) -> str:
        """The range in mathematical notation, for messages and tables."""
        left = "(" if self.low_open or self.low == -INFINITY else "["
        right = ")" if self.high == INFINITY else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"

    def admits(self, value: float) -> bool:
        """Whether `value` is finite and inside the range."""
        above = value > self.low if self.low_open else value >= self.low
        return math.isfinite(value) and above and value <= self.high


PARAMETERS: Mapping[str, Parameter] = MappingProxyType(
    {
        p.name: p
        for p in (
            Parameter("tau", constants.TAU, 0.0, low_open=True, meaning="sharpness of nca, circle"),
            Parameter("alpha", constants.ALPHA, 0.0, low_open=True, meaning="slope of P+, sigmoid"),
            Parameter("beta", constants.BETA, 0.0, low_open=True, meaning="slope of P-, sigmoid"),
            Parameter("lam", constants.LAM, meaning="midpoint of the sigmoid pair weights"),
            Parameter("epsilon", constants.EPSILON, 0.0, meaning="slack of relative similarity"),
            Parameter("margin", constants.MARGIN, 0.0, meaning="margin of the hinge"),
        )
    }
)
"""The hyper-parameters every objective carries. Elements may declare more of their own."""


RELATIVE_PARAMETERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"none": (), "linear": ("epsilon",), "exponential": ("epsilon", "alpha", "beta")}
)
"""The hyper-parameters that shape the relative similarities of each kind."""


@dataclass(frozen=True)
class Element:
    """One row of the registry.

    kind: one of KINDS.
    formula: called with `positive` and `negative` [B] (a pair element with relative similarity also
        gets `relative_positive` and `relative_negative` [B]) and the element's parameters by name.
        Returns T [B], or (P+, P-) each [B]. That of a direction is called with `similarity` [K] and
        returns kappa [K]. The vectors are float64 (float32 on Apple devices).
    parameters: names of the hyper-parameters the formula takes.
    relative: one of RELATIVE_KINDS; which relative similarity the formula needs.
    equation: the formula as text, for tables and help.
    weight_range: closed range of every weight (kappa) returned, for similarities in [-1, 1].
    potentials: partner element -> scalar function F(positive, negative, **parameters) [B] with
        dF/d positive = -T P+ and dF/d negative = T P-, where such a function exists.
    reports_potential: the value of the objective is that potential, not the violation.
    own_parameters: declarations of parameters that are not in PARAMETERS.
    built_in: ships with the library and cannot be removed.
    """

    name: str
    kind: str
    formula: Callable[..., Any]
    parameters: tuple[str, ...] = ()
    alias: str | None = None
    relative: str = "none"
    equation: str = ""
    weight_range: tuple[float, float] = (-INFINITY, INFINITY)
    potentials: Mapping[str, Callable[..., Tensor]] = field(default_factory=dict)
    reports_potential: bool = False
    own_parameters: tuple[Parameter, ...] = ()
    built_in: bool = False

    @property
    def hyper_parameters(self) -> tuple[str, ...]:
        """All hyper-parameters that change the weights: the formula's and those of R+ and R-."""
        shaping = RELATIVE_PARAMETERS[self.relative]
        return (*self.parameters, *(name for name in shaping if name not in self.parameters))


_REGISTRY: dict[tuple[str, str], Element] = {}


def register_element(element: Element) -> Element:
    """Add an element under its name and alias; returns it.

    Raises: ValueError when the kind, the relative kind, a parameter or the name is unusable; a
    registered element is never replaced.
    """
    if element.kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {element.kind!r}.")
    if element.relative not in RELATIVE_KINDS:
        raise ValueError(f"relative: expected one of {RELATIVE_KINDS}, got {element.relative!r}.")
    if element.kind != "pair" and element.relative != "none":
        raise ValueError("relative: only a pair element can use relative similarity.")
    declared = {p.name for p in element.own_parameters}
    for name in element.parameters:
        if name not in PARAMETERS and name not in declared:
            raise ValueError(
                f"parameters: {name!r} is neither one of {', '.join(PARAMETERS)} nor declared in "
                "own_parameters; declare it with Parameter(name, default, low, high)."
            )
    names = [element.name, *([element.alias] if element.alias else [])]
    for name in names:
        if not name or "/" in name:
            raise ValueError(f"name: expected a non-empty word without '/', got {name!r}.")
        if (element.kind, name) in _REGISTRY:
            raise ValueError(
                f"name: the {element.kind} element {name!r} exists already; choose another name."
            )
    for name in names:
        _REGISTRY[element.kind, name] = element
    return element


def _register(
    kind: str,
    name: str,
    formula: Callable[..., Any],
    parameters: Iterable[str | Parameter],
    fields: Mapping[str, Any],
) -> Element:
    rows = tuple(parameters)
    names = tuple(p if isinstance(p, str) else p.name for p in rows)
    own = tuple(p for p in rows if isinstance(p, Parameter))
    return register_element(
        Element(name, kind, formula, parameters=names, own_parameters=own, **fields)
    )


def register_triplet(
    name: str,
    formula: Callable[..., Tensor],
    *,
    parameters: Iterable[str | Parameter] = (),
    **fields: Any,
) -> Element:
    """Register a triplet weight; it works with every backend at once.

    Args:
        formula: f(positive [B], negative [B], **parameters) -> T [B].
        parameters: built-in names (`"tau"`) or `Parameter` declarations of new ones.
        fields: any of `alias`, `equation`, `weight_range`, `potentials`, `reports_potential`; see
            `Element`.
    Returns: the `Element`. Raises: ValueError on a name that is taken, see `register_element`.
    """
    return _register("triplet", name, formula, parameters, fields)


def register_pair(
    name: str,
    formula: Callable[..., tuple[Tensor, Tensor]],
    *,
    parameters: Iterable[str | Parameter] = (),
    **fields: Any,
) -> Element:
    """Register a pair weight; it works with every backend at once.

    Args:
        formula: f(positive [B], negative [B], **parameters) -> (P+ [B], P- [B]). With
            `relative="linear"` or `relative="exponential"` it is also given `relative_positive` and
            `relative_negative` [B], shaped by the objective's epsilon (and alpha, beta).
        parameters: built-in names (`"alpha"`) or `Parameter` declarations of new ones.
        fields: any of `alias`, `relative`, `equation`, `weight_range`, `potentials`; see `Element`.
    Returns: the `Element`. Raises: ValueError, see `register_element`.
    """
    return _register("pair", name, formula, parameters, fields)


def register_direction(
    name: str,
    formula: Callable[..., Tensor],
    *,
    parameters: Iterable[str | Parameter] = (),
    **fields: Any,
) -> Element:
    """Register a direction; it works with every backend at once.

    Args:
        formula: f(similarity [K], **parameters) -> kappa [K]. A contribution w y to the gradient of
            a row x becomes w (y - kappa x). similarity: of x and y where x has unit length, else
            <x, y> / <x, x>.
        parameters: built-in names (`"lam"`) or `Parameter` declarations of new ones.
        fields: any of `alias`, `equation`, `weight_range`; see `Element`.
    Returns: the `Element`. Raises: ValueError, see `register_element`.
    """
    return _register("direction", name, formula, parameters, fields)


def unregister_element(kind: str, name: str) -> None:
    """Remove a registered element and its alias; the built-in ones stay.

    Raises: ValueError if there is no such element or it is built in.
    """
    element = find_element(kind, name)
    if element.built_in:
        raise ValueError(f"name: the built-in {kind} element {name!r} cannot be removed.")
    for key in [key for key, row in _REGISTRY.items() if row is element]:
        del _REGISTRY[key]


def find_element(kind: str, name: str) -> Element:
    """The element of that kind under its name or alias. Raises: ValueError listing what exists."""
    try:
        return _REGISTRY[kind, name]
    except KeyError:
        known = ", ".join(
            f"{e.name} ({e.alias})" if e.alias else e.name for e in list_elements(kind)
        )
        raise ValueError(f"{kind}: unknown element {name!r}; expected one of {known}.") from None


def list_elements(kind: str) -> tuple[Element, ...]:
    """All registered elements of a kind, in order of registration."""
    unique = {e.name: e for (k, _), e in _REGISTRY.items() if k == kind}
    return tuple(unique.values())
