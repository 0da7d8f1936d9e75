"""Embeddings: exact integers for checks, three distributions for checks and times."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.cases import Case, Inputs, make_inputs
from goal_kernels.backends.base import Pairing

HALF_TRAINED = "half-trained"
RANDOM = "random"
HUBS = "hubs"
DATA = (HALF_TRAINED, RANDOM, HUBS)

CACHE_BYTES = 180_000_000
"""Three times the largest L2 cache of a Hopper GPU (60 MB)."""

MOST_COPIES = 640

HUB_COUNT = 4
"""Hubs on either side; each is the hardest negative of about a quarter of the other side."""

LARGEST_WHOLE = 2
"""Largest magnitude of the integers."""


def _random(case: Case) -> Inputs:
    """Independent directions: every pair passes the threshold of the relative sums."""
    generator = torch.Generator().manual_seed(case.batch + case.width)
    rows = torch.randn(2, case.batch, case.width, generator=generator)
    return Inputs(*F.normalize(rows, dim=2).to(case.device, case.torch_dtype))


def _hubs(case: Case) -> Inputs:
    """A few items that are the hardest negative of nearly all: the longest inverse lists."""
    generator = torch.Generator().manual_seed(case.batch * 7 + case.width)
    count = min(HUB_COUNT, case.batch)
    centre = F.normalize(torch.randn(count, case.width, generator=generator), dim=1)
    own = F.normalize(torch.randn(case.batch, case.width, generator=generator), dim=1)
    noise = torch.randn(2, case.batch, case.width, generator=generator) * case.width**-0.5
    base = centre[torch.arange(case.batch) % count] + own
    sides = base + 0.5 * noise
    # The last ones: a kernel that sees the hubs first would never change its mind.
    sides[:, case.batch - count :] = 2.0 * centre
    return Inputs(*F.normalize(sides, dim=2).to(case.device, case.torch_dtype))


MAKERS = {HALF_TRAINED: make_inputs, RANDOM: _random, HUBS: _hubs}


@lru_cache(maxsize=1)
def _made(data: str, batch: int, width: int, dtype: str, device: str) -> Inputs:
    return MAKERS[data](Case("", "", "", batch, width, dtype, device=device))


def inputs_for(case: Case, data: str) -> Inputs:
    """The embeddings of a case, kept for the next job of the same size."""
    return _made(data, case.batch, case.width, case.dtype, case.device)


def rotating_copies(inputs: Inputs, most: int = MOST_COPIES) -> list[Inputs]:
    """As many copies as outgrow the caches of a GPU, so that none is found there in its turn.

    Returns: at least one, at most `most`; on a processor, where nothing is measured, at most two.
    """
    size = sum(x.numel() * x.element_size() for x in inputs)
    limit = most if inputs.image.is_cuda else 2
    count = min(limit, max(1, -(-CACHE_BYTES // size)))
    return [Inputs(*(x.clone() for x in inputs)) for _ in range(count)]


def whole_numbers(rows: int, width: int, seed: int) -> Tensor:
    """Small integers, [rows, width] float32: every similarity is exact, and ties abound."""
    generator = torch.Generator().manual_seed(seed)
    low, high = -LARGEST_WHOLE, LARGEST_WHOLE + 1
    return torch.randint(low, high, (rows, width), generator=generator).float()


def busy_pairing(rows: int, columns: int, device: str) -> Pairing:
    """A target with holes, repeats and values out of range on both sides, and overlapping ids."""
    generator = torch.Generator().manual_seed(rows)

    def draw(low: int, high: int, size: int) -> Tensor:
        return torch.randint(low, high, (size,), generator=generator).to(device)

    groups = max(2, columns // 3)
    return Pairing(draw(-1, columns + 2, rows), draw(0, groups, rows), draw(0, groups, columns))
