"""What is measured: operation, objective, sizes, dtype; and the embeddings it is measured on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

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


@dataclass(frozen=True)
class Case:
    """One measured situation; every contestant of a case sees the same embeddings.

    op: GOAL_LOSS or MINE. mode: FORWARD or FORWARD_BACKWARD. objective: "triplet/pair", or
    NO_OBJECTIVE for MINE. batch, width: B and D. dtype: "float32" or "bfloat16". precision: of
    float32 products, for every contestant, in torch's words; NATIVE for bfloat16. device: "cpu" or
    "cuda".
    """

    op: str
    mode: str
    objective: str
    batch: int
    width: int
    dtype: str
    precision: str = NATIVE
    device: str = "cpu"

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch knows it."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    @property
    def backward(self) -> bool:
        """Whether gradients are part of the job."""
        return self.mode == FORWARD_BACKWARD

    def __str__(self) -> str:
        job = self.op if self.op == MINE else f"{self.mode}-{self.objective}"
        kind = f"{self.dtype}-{self.precision}" if self.dtype == "float32" else self.dtype
        return f"{job}-{self.batch}x{self.width}-{kind}"


@dataclass(frozen=True)
class Effort:
    """Rounds per contestant of a case: as many as fit into `seconds`, within [least, most]."""

    seconds: float
    least: int
    most: int

    def rounds(self, seconds: float) -> int:
        """Rounds for a contestant that needs `seconds` once."""
        fitting = self.most if seconds <= 0 else int(self.seconds / seconds)
        return min(self.most, max(self.least, fitting))


@dataclass(frozen=True)
class Suite:
    """A named selection of sizes.

    precisions: of the float32 cases. memory_batches: sizes of the peak-memory measurement.
    compiling: whether torch.compile, seconds per pipeline, takes part. metric_learning_limit:
    largest B of pytorch-metric-learning, which lists all pairs: 0.1 s a step at 1024, 2 s and
    0.9 GB at 4096, where it would take most of a short run's time.
    """

    batches: tuple[int, ...]
    widths: tuple[int, ...]
    dtypes: tuple[str, ...]
    effort: Effort
    precisions: tuple[str, ...] = ("highest", "high")
    memory_batches: tuple[int, ...] = ()
    compiling: bool = True
    metric_learning_limit: int = 1024

    @property
    def kinds(self) -> tuple[tuple[str, str], ...]:
        """(dtype, precision) of its cases: float32 once per precision, the others once."""
        return tuple(
            (dtype, precision)
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
        (32, 128, 512, 1024, 4096, 8192),
        (256, 1024),
        DTYPES,
        Effort(0.3, 5, 41),
        memory_batches=(8192,),
        metric_learning_limit=4096,
    ),
}


DEFAULT_SUITE = "quick"


def objective_cases(suite: Suite, device: str) -> Iterator[Case]:
    """Loss cases; the modes of one situation are neighbours, so they share its checks."""
    for batch, width, kind in product(suite.batches, suite.widths, suite.kinds):
        for objective, mode in product((PLAIN, RELATIVE), (FORWARD, FORWARD_BACKWARD)):
            yield Case(GOAL_LOSS, mode, objective, batch, width, *kind, device)


def mining_cases(suite: Suite, device: str) -> Iterator[Case]:
    """Mining alone, without weights."""
    for batch, width, kind in product(suite.batches, suite.widths, suite.kinds):
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
    """Image and text embeddings, [B, D] each, rows of unit length, row i of one matching row i."""

    image: Tensor
    text: Tensor


LATENT_WIDTH = 32
"""Rank of the shared part: negatives then spread by 1 / sqrt(32) = 0.18 at every D."""


def make_inputs(case: Case) -> Inputs:
    """Embeddings of a half-trained model; seeded, identical for every contestant and run.

    Never zeros and never isotropic noise: zeros run about a third faster than data, and with noise
    no pair would pass the threshold of the relative sums, which would then be measured empty. Here
    texts are copies of the images' latent vectors with noise of varying strength, so that a few to
    some tens of per cent of all pairs pass.
    """
    generator = torch.Generator().manual_seed(case.batch * 100_003 + case.width)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    latent = F.normalize(normal(case.batch, LATENT_WIDTH), dim=1)
    noise = F.normalize(normal(case.batch, LATENT_WIDTH), dim=1)
    strength = 0.5 + 0.7 * torch.rand(case.batch, 1, generator=generator)
    basis = normal(LATENT_WIDTH, case.width)
    detail = 0.3 * LATENT_WIDTH**-0.5 * normal(2, case.batch, case.width)
    image = F.normalize(latent @ basis + detail[0], dim=1)
    text = F.normalize((latent + strength * noise) @ basis + detail[1], dim=1)
    dtype = case.torch_dtype
    return Inputs(image.to(case.device, dtype), text.to(case.device, dtype))
