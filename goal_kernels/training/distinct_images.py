"""Orders of captions in which no batch holds one image twice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TRIES = 64  # places tried for a caption whose image is in its batch already


def distinct_order(
    image_of_caption: NDArray[np.int64], batch_size: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """A random order of captions, cut into batches in which every image comes at most once.

    A random permutation is repaired: a caption whose image is in its batch already changes places
    with a random one elsewhere where both fit. Of 5 captions an image and batches of 128 that
    concerns one caption in hundreds, so that hardly any order is excluded. Where so many change
    places that this fails, captions are dealt out image by image instead, which always succeeds.

    Args:
        image_of_caption: int64 [M].
        batch_size: pairs a batch; there are S = M // batch_size batches.
        generator: source of randomness.

    Returns: int64 [S * batch_size], captions, each at most once.
    Raises: ValueError when there is no such order, that is when the sum over images of
        min(captions, S) is below S * batch_size.
    """
    check_distinct(image_of_caption, batch_size)
    order = generator.permutation(len(image_of_caption))
    batches = len(order) // batch_size
    if not _repair(order, image_of_caption, batches, batch_size, generator):
        order = _dealt_out(image_of_caption, batches, batch_size, generator)
    return order[: batches * batch_size]


def check_distinct(image_of_caption: NDArray[np.int64], batch_size: int) -> None:
    """Raise ValueError when batches of distinct images cannot be made of all captions."""
    batches = len(image_of_caption) // batch_size
    usable = int(np.minimum(np.bincount(image_of_caption), batches).sum())
    if usable < batches * batch_size:
        raise ValueError(
            f"data.distinct_images: expected captions that fill {batches} batches of {batch_size} "
            f"with an image at most once in each; {len(image_of_caption)} captions of "
            f"{len(np.unique(image_of_caption))} images give {usable} places; make "
            "data.batch_size smaller or leave the option out"
        )


def _repair(
    order: NDArray[np.int64],
    image_of_caption: NDArray[np.int64],
    batches: int,
    batch_size: int,
    generator: np.random.Generator,
) -> bool:
    """Exchange places in ``order`` [M] until all batches are distinct; False when that fails.

    Captions behind the last whole batch are in no batch; they take part in exchanges.
    """
    images = image_of_caption[order]  # [M], exchanged along with ``order``
    members = [set(part.tolist()) for part in images[: batches * batch_size].reshape(batches, -1)]
    for batch, held in enumerate(members):
        if len(held) == batch_size:
            continue
        start = batch * batch_size
        seen: set[int] = set()
        for place in range(start, start + batch_size):
            image = int(images[place])
            if image not in seen:
                seen.add(image)
                continue
            other = _partner(place, images, members, batch_size, generator)
            if other is None:
                return False
            order[place], order[other] = order[other], order[place]
            images[place], images[other] = images[other], images[place]
            held.add(int(images[place]))
            seen.add(int(images[place]))
            elsewhere = other // batch_size
            if elsewhere < batches:
                first = elsewhere * batch_size
                members[elsewhere] = set(images[first : first + batch_size].tolist())
    return True


def _partner(
    place: int,
    images: NDArray[np.int64],
    members: list[set[int]],
    batch_size: int,
    generator: np.random.Generator,
) -> int | None:
    """A random place to exchange ``place`` with, after which no batch is worse; None of TRIES."""
    batch, image = place // batch_size, int(images[place])
    for other in generator.integers(len(images), size=TRIES).tolist():
        elsewhere = other // batch_size
        if elsewhere == batch or int(images[other]) in members[batch]:
            continue
        if elsewhere >= len(members) or image not in members[elsewhere]:
            return other
    return None


def _dealt_out(
    image_of_caption: NDArray[np.int64],
    batches: int,
    batch_size: int,
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Captions in order of images, dealt to the batches in turn, batches and places shuffled.

    An image's captions, at most one a batch, are consecutive and so go to different batches.
    """
    rank = generator.permutation(int(image_of_caption.max()) + 1)
    shuffled = generator.permutation(len(image_of_caption))
    grouped = shuffled[np.argsort(rank[image_of_caption[shuffled]], kind="stable")]  # [M]
    images = image_of_caption[grouped]
    first = np.flatnonzero(np.append(True, images[1:] != images[:-1]))
    within = np.arange(len(images)) - np.repeat(first, np.diff(np.append(first, len(images))))
    dealt = grouped[within < batches]
    hands = [generator.permutation(dealt[batch::batches])[:batch_size] for batch in range(batches)]
    return np.concatenate([hands[batch] for batch in generator.permutation(batches)])
