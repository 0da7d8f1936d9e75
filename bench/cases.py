"""What is measured: operation, objective, sizes, dtype; and the embeddings it is measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PLAIN = "hinge/constant"
"""Weights from the mined similarities alone."""

RELATIVE = "nca/sigmoid_ms"
"""Weights that also need the relative-similarity sums over the whole matrix."""

NO_OBJECTIVE = "-"
NATIVE = "highest"
"""Precision of a bfloat16 case: torch's words are about float32 products, so none applies."""

PRECISIONS = ("highest", "high", "medium")
FORWARD = "forward"
FORWARD_BACKWARD = "forward_backward"
GOAL_LOSS = "goal_loss"
MINE = "mine"
GRADIENTS = "gradients"

HALF_TRAINED = "half-trained"
RANDOM = "random"
HUBS = "hubs"
DATA = (HALF_TRAINED, RANDOM, HUBS)
IDS = {"sorted": (7.0, True), "shuffled": (7.0, False), "groups": (0.5, False)}
"""Word -> ids are drawn below this multiple of B, and whether they are in order. A training set of
seven batches repeats an id now and then; in groups of two, most rows share one."""


class Kind(NamedTuple):
    """How similarities are computed. precision: of float32 products; NATIVE for other dtypes."""

    dtype: str
    precision: str = NATIVE

    def __str__(self) -> str:
        return f"{self.dtype} `{self.precision}`" if self.dtype == "float32" else self.dtype


BFLOAT16 = Kind("bfloat16")
FLOAT16 = Kind("float16")
HIGHEST = Kind("float32", "highest")
HIGH = Kind("float32", "high")
MEDIUM = Kind("float32", "medium")


@dataclass(frozen=True)
class Case:
    """One measured situation; every method of a case sees the same embeddings.

    op: GOAL_LOSS, MINE, or GRADIENTS (the backward of a loss alone). mode: FORWARD or
    FORWARD_BACKWARD. objective: "triplet/pair", or NO_OBJECTIVE for MINE. batch, width: B and D.
    dtype: as torch names it. precision: of float32 products, for every method, in torch's words;
    NATIVE for other dtypes. device: "cpu" or "cuda". data: one of DATA. ids: key of IDS, or empty
    for none. normalize: rows of any length, which the loss normalises.
    """

    op: str
    mode: str
    objective: str
    batch: int
    width: int
    dtype: str
    precision: str = NATIVE
    device: str = "cpu"
    data: str = HALF_TRAINED
    ids: str = ""
    normalize: bool = False

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch knows it."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    @property
    def backward(self) -> bool:
        """Whether gradients are part of the job."""
        return self.mode == FORWARD_BACKWARD

    @property
    def kind(self) -> Kind:
        """How its similarities are computed."""
        return Kind(self.dtype, self.precision)

    @property
    def job(self) -> str:
        """What is done, as tables call it."""
        if self.op == MINE:
            return "mining alone"
        if self.op == GRADIENTS:
            return f"`{self.objective}`, gradients alone"
        return f"`{self.objective}`, {self.mode.replace('_', ' + ')}"

    @property
    def size(self) -> str:
        """B × D."""
        return f"{self.batch} × {self.width}"

    @property
    def place(self) -> tuple[Any, ...]:
        """Where tables have it: by job, by kind, then by size."""
        return (self.op, self.mode, self.objective, *self.kind, self.width, self.batch)

    @property
    def options(self) -> str:
        """What sets it apart from the plain case, for people; empty for the plain one."""
        data = self.data if self.data != HALF_TRAINED else ""
        ids = f"{self.ids} ids" if self.ids else ""
        parts = (data, ids, "normalize" if self.normalize else "")
        return ", ".join(part for part in parts if part)

    def __str__(self) -> str:
        job = self.op if self.op == MINE else f"{self.mode}-{self.objective}"
        job = f"{GRADIENTS}-{self.objective}" if self.op == GRADIENTS else job
        kind = f"{self.dtype}-{self.precision}" if self.dtype == "float32" else self.dtype
        options = self.options.replace(", ", "-").replace(" ", "-")
        return "-".join(x for x in (job, f"{self.batch}x{self.width}", kind, options) if x)


@dataclass(frozen=True)
class Effort:
    """Rounds per method of a case: as many as fit into `seconds`, within [least, most]."""

    seconds: float
    least: int
    most: int

    def rounds(self, seconds: float) -> int:
        """Rounds for a method that needs `seconds` once."""
        fitting = self.most if seconds <= 0 else int(self.seconds / seconds)
        return min(self.most, max(self.least, fitting))


@dataclass(frozen=True)
class Suite:
    """A named selection of sizes, and which methods take part.

    precisions: of the float32 cases. memory_batches: sizes of the peak-memory measurement.
    compiling: whether torch.compile, seconds per pipeline, takes part. metric_learning_limit:
    largest B of pytorch-metric-learning, which lists all pairs: 0.1 s a step at 1024, 2 s and
    0.9 GB at 4096, where it would take most of a short run's time. strategies: whether each mining
    strategy of a backend is a method of its own. ways: further ways to call a method, see
    `methods`.
    """

    batches: tuple[int, ...]
    widths: tuple[int, ...]
    dtypes: tuple[str, ...]
    effort: Effort
    precisions: tuple[str, ...] = ("highest", "high")
    memory_batches: tuple[int, ...] = ()
    compiling: bool = True
    metric_learning_limit: int = 1024
    strategies: bool = False
    ways: tuple[str, ...] = ()

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Kinds of its cases: float32 once per precision, the others once."""
        return tuple(
            Kind(dtype, precision)
            for dtype in self.dtypes
            for precision in (self.precisions if dtype == "float32" else (NATIVE,))
        )


DTYPES = ("float32", "bfloat16")
SUITES = {
    # Proves that everything still runs; its figures mean nothing.
    "smoke": Suite((64,), (32,), ("float32",), Effort(0.02, 3, 3), ("highest",), compiling=False),
    # 128: the batch of the papers; 1024 and 4096: what image-text training uses today. Widths: a
    # small head and the usual 1024.
    "quick": Suite(
        (128, 1024, 4096), (256, 1024), DTYPES, Effort(0.2, 3, 15), memory_batches=(4096,)
    ),
    "full": Suite(
        (32, 64, 128, 512, 1024, 4096, 8192),
        (256, 1024),
        DTYPES,
        Effort(0.3, 5, 41),
        memory_batches=(8192,),
        metric_learning_limit=4096,
    ),
}


DEFAULT_SUITE = "quick"


def timed_cases(suite: Suite, device: str) -> Iterator[Case]:
    """Losses and mining alone; the cases of one pair of embeddings are neighbours, and share it."""
    for batch, width, kind in product(suite.batches, suite.widths, suite.kinds):
        for objective, mode in product((PLAIN, RELATIVE), (FORWARD, FORWARD_BACKWARD)):
            yield Case(GOAL_LOSS, mode, objective, batch, width, *kind, device)
        yield Case(MINE, FORWARD, NO_OBJECTIVE, batch, width, *kind, device)


def memory_cases(suite: Suite, device: str) -> Iterator[Case]:
    """Peak memory: the widest embeddings, float32 at the first precision."""
    width = suite.widths[-1]
    kinds = dict(reversed(suite.kinds))
    plan = product(
        suite.memory_batches, (PLAIN, RELATIVE), (FORWARD, FORWARD_BACKWARD), suite.dtypes
    )
    for batch, objective, mode, dtype in plan:
        yield Case(GOAL_LOSS, mode, objective, batch, width, dtype, kinds[dtype], device)


class Inputs(NamedTuple):
    """Image and text embeddings, [B, D] each, row i of one matching row i; ids int64 [B] or None.

    Rows have unit length unless the loss is to normalise them.
    """

    image: Tensor
    text: Tensor
    ids: Tensor | None = None


LATENT_WIDTH = 32
"""Rank of the shared part: negatives then spread by 1 / sqrt(32) = 0.18 at every D."""

TEXTS_PER_IMAGE = 5
"""Of the usual test sets, which ranks are counted in."""

HUB_COUNT = 4
"""Hubs on either side; each is the hardest negative of about a quarter of the other side."""

Draw = Callable[..., Tensor]
"""(*shape) -> normal numbers."""


def _half_trained(normal: Draw, uniform: Draw, batch: int, width: int) -> tuple[Tensor, Tensor]:
    """Texts are the images' latent vectors with noise of varying strength.

    A few to some tens of per cent of all pairs pass the threshold of the relative sums. Zeros run
    about a third faster than data.
    """
    latent = F.normalize(normal(batch, LATENT_WIDTH), dim=1)
    noise = F.normalize(normal(batch, LATENT_WIDTH), dim=1)
    strength = 0.5 + 0.7 * uniform(batch, 1)
    basis = normal(LATENT_WIDTH, width)
    detail = 0.3 * LATENT_WIDTH**-0.5 * normal(2, batch, width)
    return latent @ basis + detail[0], (latent + strength * noise) @ basis + detail[1]


def _random(normal: Draw, uniform: Draw, batch: int, width: int) -> tuple[Tensor, Tensor]:
    """Independent directions: every pair passes the threshold of the relative sums."""
    return normal(batch, width), normal(batch, width)


def _hubs(normal: Draw, uniform: Draw, batch: int, width: int) -> tuple[Tensor, Tensor]:
    """A few items that are the hardest negative of nearly all: the longest inverse lists."""
    count = min(HUB_COUNT, batch)
    centre = F.normalize(normal(count, width), dim=1)
    base = centre.repeat(-(-batch // count), 1)[:batch] + F.normalize(normal(batch, width), dim=1)
    sides = base + 0.5 * width**-0.5 * normal(2, batch, width)
    # The last ones: a kernel that sees the hubs first would never change its mind.
    sides[:, batch - count :] = 2.0 * centre
    return sides[0], sides[1]


MAKERS = {HALF_TRAINED: _half_trained, RANDOM: _random, HUBS: _hubs}


def make_inputs(case: Case) -> Inputs:
    """Embeddings, seeded: identical for every method and every run on the same kind of device."""
    device = case.device  # a processor would need minutes for a million rows
    generator = torch.Generator(device).manual_seed(case.batch * 100_003 + case.width)
    normal = partial(torch.randn, generator=generator, device=device)
    uniform = partial(torch.rand, generator=generator, device=device)
    rows = MAKERS[case.data](normal, uniform, case.batch, case.width)
    image, text = (F.normalize(x, dim=1) for x in rows)
    if case.normalize:
        image, text = (x * (0.25 + 4 * uniform(case.batch, 1)) for x in (image, text))
    ids = None
    if case.ids:
        factor, in_order = IDS[case.ids]
        ids = (uniform(case.batch) * max(1, int(factor * case.batch))).long()
        ids = ids.sort().values if in_order else ids
    dtype = case.torch_dtype
    return Inputs(image.to(dtype), text.to(dtype), ids)
