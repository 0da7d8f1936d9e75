"""Losses of batches whose search the processes share out; the same in a single process."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import torch
from tasks import own_rows
from torch import Tensor, distributed
from torch.nn import functional as F

import goal_kernels as gk
from goal_kernels import Objective, ops, selection_ops
from goal_kernels.backends.base import SearchQuery
from goal_kernels.distributed import DistributedGOALLoss, distributed_loss, gather, shares
from goal_kernels.distributed.gather import rank, world_size

WIDTH = 8


WHOLE: dict[str, Callable[..., Any]] = {
    "sum_of_hinges": gk.sum_of_hinges_loss,
    "soft_margin": gk.soft_margin_loss,
    "info_nce": partial(gk.info_nce_loss, label_smoothing=0.1),
    "wide_info_nce": partial(gk.info_nce_loss, scale=300.0),
    "siglip": gk.siglip_loss,
    "multi_similarity": gk.multi_similarity_loss,
    "circle": gk.circle_loss,
}
"""Losses over all negatives, whose passes over the matrix the processes share out."""


class Case(NamedTuple):
    """A batch, by the images and texts of every process, and what is asked.

    exact: similarities without rounding, with many ties; broken: with NaN and infinities. square:
    without `text_to_image`.
    """

    objective: str | tuple[Callable[..., Any], Callable[..., Any]]
    images: list[int]
    texts: list[int]
    options: dict[str, Any]
    exact: bool = False
    ids: bool = False
    exempt: bool = False
    dtype: torch.dtype = torch.float64
    broken: bool = False

    @property
    def square(self) -> bool:
        return self.images == self.texts


class Answer(NamedTuple):
    """What a process has after a case; gradients of its own rows, times the number of processes."""

    loss: Tensor
    image: Tensor
    text: Tensor
    statistics: dict[str, Tensor]


def steep(positive: Tensor, negative: Tensor) -> Tensor:
    """A triplet weight of a user's."""
    return torch.sigmoid(7 * (negative - positive))


def slanted(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """Pair weights of a user's."""
    return 1.5 - positive, 0.5 + negative * negative


def answers(cases: list[Case]) -> list[Answer]:
    """All cases, one after the other."""
    return [answer(case) for case in cases]


def answer(case: Case, before_backward: Callable[[], object] | None = None) -> Answer:
    """Value, gradients and statistics of a case."""
    image, text, owner = batch(case)
    own, of_texts = own_rows(case.images), own_rows(case.texts)
    x, y = image[own].clone().requires_grad_(), text[of_texts].clone().requires_grad_()
    objective = case.objective
    options = {"averaged_gradients": False, "return_stats": True, **case.options}
    loss_of: Callable[..., Any]
    if objective in WHOLE:
        loss_of = partial(distributed_loss, WHOLE[objective], **options)
    else:
        own_objective = objective if isinstance(objective, str) else Objective(*objective)
        loss_of = DistributedGOALLoss(own_objective, **options)
    ids = torch.arange(len(image)) // 2 if case.ids else None
    exempt = torch.arange(len(text)) % 3 == 0 if case.exempt else None
    first = sum(case.images[: rank()]) if world_size() > 1 else 0
    owner = owner[of_texts]
    loss, statistics = loss_of(
        x,
        y,
        image_ids=None if ids is None else ids[own],
        text_to_image=None if case.square else torch.where(owner >= 0, owner - first, -1),
        exempt_texts=None if exempt is None else exempt[of_texts],
    )
    if before_backward is not None:
        before_backward()
    loss.backward()
    found = {k: v for k, v in statistics._asdict().items() if isinstance(v, Tensor)}
    return Answer(loss.detach(), x.grad, y.grad, found)


def batch(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """All images and texts, and the image of each text; some texts have none, one image none."""
    generator = torch.Generator().manual_seed(11)
    sides = []
    for count in (sum(case.images), sum(case.texts)):
        if case.exact:
            rows = torch.randint(-1, 2, (count, WIDTH), generator=generator) / 2
        else:
            rows = F.normalize(torch.randn(count, WIDTH, generator=generator), dim=1)
        if case.options.get("normalize"):
            rows *= 10 ** torch.randn(count, 1, generator=generator)
        sides.append(rows.to(case.dtype))
    if case.broken:
        sides[0][1, 2], sides[1][:, 2], sides[1][-1] = -math.inf, 0.5, math.nan
        sides[1][1:-1, 3] = math.inf
    if case.square:
        return *sides, torch.arange(len(sides[1]))
    owners, first = [], 0
    for images, texts in zip(case.images, case.texts, strict=True):
        own = torch.arange(texts) % (images + 1)
        owners.append(torch.where(own < images - (images > 2), own + first, -1))
        first += images
    return *sides, torch.cat(owners)


def work(cases: list[Case]) -> list[dict[str, int]]:
    """What each case cost a process, as `counted` counts it. Its backward has no group."""
    results = []
    for number, case in enumerate(cases):
        last = number + 1 == len(cases)
        with counted(world_size()) as counts:
            answer(case, distributed.destroy_process_group if last else None)
        results.append(counts)
    return results


@contextmanager
def counted(world: int) -> Iterator[dict[str, int]]:
    """Counts operations of searches, collectives, and bytes sent by type of element."""
    counts = {"operations": 0, "collectives": 0, "float64": 0, "float32": 0, "int64": 0}

    def of_rows(rows: Tensor, columns: Tensor, passes: int = 1) -> None:
        counts["operations"] += 2 * len(rows) * len(columns) * rows.shape[1] * passes

    def searched(name: str, rows: Tensor, columns: Tensor, *rest: Any) -> Any:
        of_rows(rows, columns)
        return search(name, rows, columns, *rest)

    def selected(rows: Tensor, columns: Tensor, *rest: Any) -> Any:
        query = next(x for x in rest if isinstance(x, SearchQuery))
        of_rows(rows, columns, 1 if query.relative == "none" else 2)
        return select(rows, columns, *rest)

    def sent(tensor: Tensor, times: int) -> None:
        counts["collectives"] += 1
        name = str(tensor.dtype).removeprefix("torch.")
        counts[name] += tensor.numel() * tensor.element_size() * times

    def gathered(out: Tensor, tensor: Tensor, **rest: Any) -> Any:
        sent(tensor, world - 1)
        return all_gather(out, tensor, **rest)

    def exchanged(out: Tensor, tensor: Tensor, **rest: Any) -> Any:
        sent(tensor[1:], 1)
        return all_to_all(out, tensor, **rest)

    search, select = ops.search, selection_ops.select_rows
    all_gather, all_to_all = gather._all_gather, shares.distributed.all_to_all_single
    with (
        mock.patch.object(ops, "search", searched),
        mock.patch("goal_kernels.rectangular.select_rows", selected),
        mock.patch.object(gather, "_all_gather", gathered),
        mock.patch.object(shares.distributed, "all_to_all_single", exchanged),
    ):
        yield counts
