"""The catalogue: losses from the literature, one row each, with equation and source.

`max_violation` is the objective hinge/constant, `triplet_nca` is nca/constant; the objectives that
GOAL combines from elements are not repeated here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from goal_kernels import constants
from goal_kernels.analysis import losses
from goal_kernels.objective import Objective
from goal_kernels.parser import nearest
from goal_kernels.registry import PARAMETERS, Parameter

Side = Callable[..., Any]


@dataclass(frozen=True)
class CatalogueLoss:
    """A loss of an anchor with its positives and negatives.

    Called with embeddings it is the sum over all anchors of both directions of a batch.

    Attributes:
        name: in the catalogue.
        value: f(p [N, K], n [N, M], **parameters) -> [N]; p[:, 0] is the anchor's own pair,
            positives that are not there are +inf and negatives -inf.
        equation, source: for tables; s is a similarity, d = sqrt(2 - 2 s) a distance of unit rows.
        weights: the closed form of (-dvalue/dp [N, K], dvalue/dn [N, M]), None: autograd's.
        parameters: declarations, with the defaults of the source.
        settings: values of them that are not the defaults.
    """

    name: str
    value: Side
    equation: str = ""
    source: str = ""
    weights: Side | None = None
    parameters: tuple[Parameter, ...] = ()
    settings: Mapping[str, float] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, float]:
        """The value of every parameter."""
        return {p.name: self.settings.get(p.name, p.default) for p in self.parameters}

    def with_parameters(self, settings: Mapping[str, float]) -> CatalogueLoss:
        """The same loss with other values. Raises: ValueError for an unknown name or its range."""
        declared = {p.name: p for p in self.parameters}
        for name, number in settings.items():
            if name not in declared:
                raise ValueError(
                    f"{name}: {self.name} has no such parameter; it has "
                    f"{', '.join(declared) or 'none'}{nearest(name, declared)}."
                )
            if not declared[name].admits(number):
                raise ValueError(
                    f"{name}: expected a number in {declared[name].range_text()}, got {number}."
                )
        return replace(self, settings={**self.settings, **settings})

    def of_pair(self, p: Tensor, n: Tensor) -> Tensor:
        """The value of anchors with one positive and one negative each, [K]."""
        return self.value(p[:, None], n[:, None], **self.values)

    @property
    def pair_weights(self) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
        """(pull [K], push [K]) of such anchors by the closed form, None without one."""
        formula, values = self.weights, self.values
        if formula is None:
            return None

        def pair(p: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                pull, push = formula(p[:, None], n[:, None], **values)
            return pull[:, 0], push[:, 0]

        return pair

    def __call__(self, image: Tensor, text: Tensor, ids: Tensor | None = None) -> Tensor:
        """Sum over the 2 B anchors, 0-d. image, text: [B, D]; ids [B]: equal ones are positives."""
        return self.of_similarity(image @ text.T, ids)

    def of_similarity(self, similarity: Tensor, ids: Tensor | None = None) -> Tensor:
        """The same of similarities [B, B], images by texts."""
        if ids is None:
            ids = torch.arange(len(similarity), device=similarity.device)
        same = ids[:, None] == ids[None, :]
        others = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
        total = similarity.new_zeros(())
        for side in (similarity, similarity.T):
            more = side.masked_fill(~others, torch.inf)
            positive = torch.cat([side.diagonal()[:, None], more], dim=1)
            negative = side.masked_fill(same, -torch.inf)
            total = total + self.value(positive, negative, **self.values).sum()
        return total


_CATALOGUE: dict[str, CatalogueLoss] = {}


def register_loss(
    name: str,
    value: Side,
    *,
    weights: Side | None = None,
    equation: str = "",
    source: str = "",
    parameters: Iterable[Parameter] = (),
) -> CatalogueLoss:
    """Add a loss to the catalogue; see `CatalogueLoss` for what the arguments are.

    Returns: the row. Raises: ValueError when the name is taken or has a '/'.
    """
    if not name or "/" in name or name in _CATALOGUE:
        taken = name in _CATALOGUE
        raise ValueError(
            f"name: expected a {'new name' if taken else 'word without a slash'}, got {name!r}"
            + (", which the catalogue has." if taken else ".")
        )
    row = CatalogueLoss(name, value, equation, source, weights, tuple(parameters))
    _CATALOGUE[name] = row
    return row


def unregister_loss(name: str) -> None:
    """Take a loss out of the catalogue. Raises: ValueError when it is not there."""
    del _CATALOGUE[find_loss(name).name]


def find_loss(name: str) -> CatalogueLoss:
    """The loss of that name. Raises: ValueError listing what there is."""
    if name not in _CATALOGUE:
        raise ValueError(
            f"loss: unknown name {name!r}{nearest(name, _CATALOGUE)}; expected 'triplet/pair' or "
            f"one of {', '.join(_CATALOGUE)}."
        )
    return _CATALOGUE[name]


def as_loss(loss: Any) -> Any:
    """The objective or the loss of the catalogue that a string names; all else as it is.

    A dense loss of the training driver, an objective without elements of its own, is that of the
    catalogue.
    """
    if isinstance(loss, Objective) and "/" not in loss.name:
        row = find_loss(loss.name)
        return row.with_parameters({name: getattr(loss, name) for name in row.values})
    if not isinstance(loss, str):
        return loss
    return Objective.parse(loss) if "/" in loss else find_loss(loss)


def list_losses() -> tuple[CatalogueLoss, ...]:
    """All losses of the catalogue, in order of registration."""
    return tuple(_CATALOGUE.values())


def _tau(default: float) -> Parameter:
    return replace(PARAMETERS["tau"], default=default, meaning="factor of similarities")


def _margin(default: float) -> Parameter:
    return replace(PARAMETERS["margin"], default=default)


_HARDNESS = Parameter("alpha", 9.0, 0.0, meaning="strength of the hardness")

_ROWS: tuple[tuple[str, Side, Side, tuple[Parameter, ...], str, str], ...] = (
    (
        *("max_violation", losses.max_violation, losses.max_violation_weights),
        (_margin(constants.MARGIN),),
        "L = [margin + max n - p]+",
        "VSE++, Faghri et al., BMVC 2018",
    ),
    (
        *("sum_of_hinges", losses.sum_of_hinges, losses.sum_of_hinges_weights),
        (_margin(constants.MARGIN),),
        "L = sum [margin + n - p]+",
        "Kiros et al. 2014; VSE++, eq. 5",
    ),
    (
        *("soft_margin", losses.triplet_nca, losses.triplet_nca_weights),
        (_tau(1.0),),
        "L = log(1 + exp(tau (max n - p))) / tau",
        "Hermans et al. 2017, arXiv 1703.07737, on similarities",
    ),
    (
        *("info_nce", losses.info_nce, losses.info_nce_weights),
        (_tau(constants.TAU),),
        "L = -log(exp(tau p) / (exp(tau p) + sum exp(tau n)))",
        "NCA, Goldberger et al., NIPS 2004; van den Oord et al. 2018, arXiv 1807.03748",
    ),
    (
        *("triplet_nca", losses.triplet_nca, losses.triplet_nca_weights),
        (_tau(constants.TAU),),
        "L = log(1 + exp(tau (max n - p))) / tau",
        "Xuan and Chen, WACV 2023, arXiv 2210.13188",
    ),
    (
        *("circle", losses.circle, losses.circle_weights),
        (Parameter("gamma", 80.0, 0.0, low_open=True, meaning="scale"), _margin(0.4)),
        "L = log(1 + sum exp(gamma [n + m]+ (n - m)) sum exp(-gamma [1 + m - p]+ (p - 1 + m))), "
        "[]+ without gradient",
        "Sun et al., CVPR 2020, arXiv 2002.10857, m = 0.4 of its retrieval experiments",
    ),
    (
        *("multi_similarity", losses.multi_similarity, losses.multi_similarity_weights),
        (
            PARAMETERS["alpha"],
            replace(PARAMETERS["beta"], default=50.0),
            PARAMETERS["lam"],
            replace(PARAMETERS["epsilon"], meaning="slack of mining"),
        ),
        "L = log(1 + sum exp(-alpha (p - lam))) / alpha + log(1 + sum exp(beta (n - lam))) / beta "
        "over p < max n + epsilon, n > min p - epsilon",
        "Wang et al., CVPR 2019, arXiv 1904.06627; lam of its code, the paper has 1",
    ),
    (
        *("contrastive", losses.contrastive, losses.contrastive_weights),
        (_margin(1.0),),
        "L = sum d(p)^2 / 2 + sum [margin - d(n)]+^2 / 2",
        "Hadsell et al., CVPR 2006",
    ),
    (
        *("lifted_structure", losses.lifted_structure, losses.lifted_structure_weights),
        (_margin(1.0),),
        "L = [log sum exp(d(p)) + log sum exp(margin - d(n))]+",
        "Song et al., CVPR 2016; of one anchor as in Hermans et al. 2017",
    ),
    (
        *("n_pair", losses.info_nce, losses.info_nce_weights),
        (_tau(1.0),),
        "L = log(1 + sum exp(tau (n - p))), tau = 1, without the penalty of lengths",
        "Sohn, NIPS 2016",
    ),
    (
        *("sup_con", losses.sup_con, losses.sup_con_weights),
        (_tau(10.0),),
        "L = mean over p of -log(exp(tau p) / (sum exp(tau p) + sum exp(tau n)))",
        "Khosla et al., NeurIPS 2020, arXiv 2004.11362, the sum outside of the logarithm",
    ),
    (
        *("proxy_nca", losses.proxy_nca, losses.proxy_nca_weights),
        (),
        "L = d(p)^2 + log sum exp(-d(n)^2) = -2 p + log sum exp(2 n)",
        "Movshovitz-Attias et al., ICCV 2017, arXiv 1703.07464; texts in place of proxies",
    ),
    (
        *("siglip", losses.siglip, losses.siglip_weights),
        (
            Parameter("scale", 10.0, 0.0, low_open=True, meaning="factor of similarities"),
            Parameter("bias", -10.0, meaning="added to the logits"),
        ),
        "L = log(1 + exp(-(scale p + bias))) + sum log(1 + exp(scale n + bias))",
        "Zhai et al., ICCV 2023, arXiv 2303.15343, at its initial scale and bias",
    ),
    (
        *("epshn", losses.epshn, losses.epshn_weights),
        (_tau(10.0),),
        "L = log(1 + exp(tau (n' - p'))), p' = max p, n' = max of n < p'",
        "Xuan et al., WACV 2020, arXiv 1904.04370: easy positive, semi-hard negative",
    ),
    (
        *("llave", losses.info_nce, losses.info_nce_weights),
        (_tau(50.0), _HARDNESS),
        "L = -log(exp(tau p) / (exp(tau p) + sum exp(tau n + alpha n))), alpha n without gradient",
        "LLaVE, Lan et al. 2025, arXiv 2503.04812, eq. 5",
    ),
    (
        *("ega", losses.ega, losses.ega_weights),
        (_tau(50.0), _HARDNESS),
        "as llave with alpha (n - p): probabilities amplified by hardness relative to the positive",
        "EGA, Xue et al. 2025, arXiv 2506.02020, from its description; exact form not verified",
    ),
)

for _name, _value, _weights, _parameters, _equation, _source in _ROWS:
    register_loss(
        _name,
        _value,
        weights=_weights,
        equation=_equation,
        source=_source,
        parameters=_parameters,
    )
