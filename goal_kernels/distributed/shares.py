"""The search of a batch that every process has, shared out: no process multiplies all of S.

Texts and images are cut into equal parts, whoever brought them. Where the hardest negatives are all
that is wanted, a process searches its part of the texts against all images, and the images'
negatives are the hardest of what the processes found. Relative sums, and negatives of other kinds,
need all candidates of an anchor at once: a second search, of all texts against the process's part
of the images, finds those of the images. What was found is exchanged as vectors, after which every
process has the same numbers, bit for bit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup

from goal_kernels import rectangular
from goal_kernels.backends.base import Pairing, SearchQuery
from goal_kernels.backends.candidates import PLAIN, Selection
from goal_kernels.backends.selection import Chosen
from goal_kernels.constants import NO_INDEX
from goal_kernels.distributed.gather import gather_equal, rank, world_size
from goal_kernels.normalization import row_scale
from goal_kernels.pairs import owned, pair_similarity
from goal_kernels.selection_ops import Selected


class _Parts:
    """`total` items in parts of one size, one a process; the last ones overlap if need be."""

    def __init__(self, total: int, group: ProcessGroup | None, device: torch.device) -> None:
        self.total, self.group, self.device = total, group, device
        self.size = -(-total // world_size(group))
        self.starts = self.size * torch.arange(world_size(group), device=device)
        self.starts.clamp_(max=total - self.size)
        self.start = min(rank(group) * self.size, total - self.size)

    def own(self) -> Tensor:
        """Numbers of the items of this process. [size]"""
        return torch.arange(self.start, self.start + self.size, device=self.device)

    def packed(self, vectors: list[Tensor]) -> Tensor:
        """What this process found in one vector; float64 holds indices and counts exactly.

        Args: vectors: [size] or [k, size], beyond which nothing counts; or empty ones.
        """
        lines = [x[..., : self.size].flatten().double() for x in vectors if x.numel()]
        return torch.cat(lines)

    def unpacked(self, messages: Tensor, vectors: list[Tensor]) -> list[Tensor]:
        """Of all items, [total] or [k, total], from what the processes packed, [W, L size].

        Args: vectors: those of this process.
        """
        item = torch.arange(self.total, device=self.device)
        part = item // self.size
        place = item - self.starts[part]
        found = messages.unflatten(1, (-1, self.size)).transpose(0, 1)[:, part, place]
        lines = found.split([x[..., :1].numel() for x in vectors])
        return [
            line.reshape(*x.shape[:-1], -1).to(x.dtype) if x.numel() else x
            for x, line in zip(vectors, lines, strict=True)
        ]

    def hardest(self, value: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """The hardest of what all processes found, for the items of this process. [size]

        Args: value, place: [total], -inf and -1 where there is none. The lowest place on ties.
        """
        every = self.starts[:, None] + torch.arange(self.size, device=self.device)
        sent = torch.stack([value.double(), place.double()])[:, every].transpose(0, 1).contiguous()
        received = torch.empty_like(sent)
        distributed.all_to_all_single(received, sent, group=self.group)
        values, places = received.unbind(1)  # [W, size]
        best = values.amax(dim=0)
        tied = ((values == best) | values.isnan()) & (places >= 0)
        first = torch.where(tied, places, math.inf).amin(dim=0)
        return best.to(value.dtype), torch.where(tied.any(dim=0), first, NO_INDEX).long()


class _Batch(NamedTuple):
    """The arguments of `rectangular.search`."""

    backend: str
    image: Tensor
    text: Tensor
    pairing: Pairing
    query: SearchQuery
    selection: Selection
    exempt: Tensor | None

    @property
    def target(self) -> Tensor:
        """The image of each text."""
        assert self.pairing.target is not None
        return self.pairing.target

    def lowest_positive(self) -> Tensor:
        """The text whose positive is the smallest, which is where relative sums start. [1]"""
        positive = pair_similarity(self.text, self.image, self.target)
        if self.query.normalize:
            own = row_scale(self.image)[self.target.clamp(0, len(self.image) - 1)]
            positive = positive * row_scale(self.text) * own
        exists = positive != -math.inf
        return torch.where(exists, positive, math.inf).argmin()[None]

    def search_texts(self, rows: Tensor, start: int) -> Selected:
        """Some texts against all images. rows: [R], numbered from `start` on."""
        target, row_ids, column_ids = self.pairing
        pairing = Pairing(self.target[rows], _of(row_ids, rows), column_ids)
        selection = self.selection.numbered(start, 0)
        # What is exempt is so as a candidate, and the texts' candidates are images.
        return self._search(self.image, self.text[rows], pairing, selection)

    def search_images(self, columns: Tensor, start: int) -> Chosen:
        """The negatives of some images among all texts. columns: [C], numbered from `start` on."""
        _, row_ids, column_ids = self.pairing
        images = len(self.image)
        # Back to front: of an image that comes twice the first place counts.
        place = torch.arange(len(columns), device=columns.device)
        target = columns.new_full((images,), NO_INDEX)
        for part in (slice(len(columns) - 1, None), slice(len(columns) - 1)):
            target[columns[part]] = place[part]
        target = target[self.target.clamp(0, images - 1)]
        target = torch.where(owned(self.target, images), target, NO_INDEX)
        pairing = Pairing(target, row_ids, _of(column_ids, columns))
        selection = self.selection.numbered(0, start)
        image = self.image[columns]
        return self._search(image, self.text, pairing, selection, self.exempt).columns

    def _search(
        self,
        image: Tensor,
        text: Tensor,
        pairing: Pairing,
        selection: Selection,
        exempt: Tensor | None = None,
    ) -> Selected:
        return rectangular.search(self.backend, image, text, pairing, self.query, selection, exempt)


def _of(values: Tensor | None, index: Tensor) -> Tensor | None:
    return None if values is None else values[index]


def shared_search(
    backend: str,
    image: Tensor,
    text: Tensor,
    pairing: Pairing,
    query: SearchQuery,
    selection: Selection = PLAIN,
    exempt: Tensor | None = None,
    *,
    group: ProcessGroup | None,
) -> Selected:
    """`rectangular.search` of embeddings that every process of the group has.

    Each process multiplies its W-th part of S; twice (by rows and by columns) with relative sums or
    negatives of other kinds than the hardest. One collective of vectors, and one before it where
    the columns are not searched.
    """
    image, text = image.detach(), text.detach()
    batch = _Batch(backend, image, text, pairing, query, selection, exempt)
    texts = _Parts(len(text), group, text.device)
    images = _Parts(len(image), group, text.device)
    rows, columns = texts.own(), images.own()
    if query.relative != "none":  # every part has to start its sums at the same place
        lowest = batch.lowest_positive()
        rows = torch.cat([rows, lowest])
        columns = torch.cat([columns, batch.target[lowest].clamp(0, images.total - 1)])
    found = batch.search_texts(rows, texts.start)
    if selection == PLAIN and query.relative == "none":
        value, place = found.columns.value[0], found.columns.place[0]
        place = torch.where(place >= 0, place + texts.start, NO_INDEX)
        value, place = images.hardest(value, place)
        of_images = found.columns._replace(value=value[None], place=place[None])
    else:
        of_images = batch.search_images(columns, images.start)
    scales = found.scales_of_rows
    own = [found.positive, scales[: len(rows)], *found.rows], [*of_images]
    messages = [parts.packed(x) for parts, x in zip((texts, images), own, strict=True)]
    received = gather_equal(torch.cat(messages)[None], group).split([*map(len, messages)], dim=1)
    positive, scale, *of_rows = texts.unpacked(received[0], own[0])
    of_columns = images.unpacked(received[1], own[1])
    if query.normalize:
        scale = torch.cat([scale, scales[len(rows) :]])
    return Selected(positive, Chosen(*of_rows), Chosen(*of_columns), scale)
