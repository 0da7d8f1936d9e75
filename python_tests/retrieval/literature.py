"""The literature's evaluation, written out: sort every row, look the positions up. And a set."""

from __future__ import annotations

import numpy as np
import torch

IMAGES, CAPTIONS = 60, 5


def index(images: int = IMAGES) -> torch.Tensor:
    """Image row of each caption, five an image. [5 N]"""
    return torch.arange(images * CAPTIONS) // CAPTIONS


def embeddings(seed: int = 0, noise: float = 1.5, images: int = IMAGES):
    """Unit image rows [N, 24] and captions [5 N, 24] that are noisy copies of theirs."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(images, 24, generator=generator)
    text = image[index(images)] + noise * torch.randn(5 * images, 24, generator=generator)
    unit = torch.nn.functional.normalize
    return unit(image), unit(text)


def argsort_ranks(similarity: np.ndarray, image_of_caption: np.ndarray):
    """0-based ranks in `np.argsort(row)[::-1]`; the best own caption counts. [N], [M]."""
    i2t, t2i = np.zeros(similarity.shape[0]), np.zeros(similarity.shape[1])
    for image in range(similarity.shape[0]):
        inds = np.argsort(similarity[image])[::-1]
        rank = 1e20
        for caption in np.flatnonzero(image_of_caption == image):
            found = np.where(inds == caption)[0][0]
            if found < rank:
                rank = found
        i2t[image] = rank
    transposed = similarity.T
    for caption in range(similarity.shape[1]):
        inds = np.argsort(transposed[caption])[::-1]
        t2i[caption] = np.where(inds == image_of_caption[caption])[0][0]
    return i2t, t2i


def printed(i2t: np.ndarray, t2i: np.ndarray):
    """The numbers a log shows: R@1, R@5, R@10, median and mean rank twice, ar, ari, rsum."""
    sides = [
        (
            *(100.0 * len(np.where(ranks < k)[0]) / len(ranks) for k in (1, 5, 10)),
            np.floor(np.median(ranks)) + 1,
            ranks.mean() + 1,
        )
        for ranks in (i2t, t2i)
    ]
    image, text = sides
    ar, ari = (image[0] + image[1] + image[2]) / 3, (text[0] + text[1] + text[2]) / 3
    rsum = image[0] + image[1] + image[2] + text[0] + text[1] + text[2]
    return [*image, *text, ar, ari, rsum]


def flat(table: dict) -> list[float]:
    """Our record in the order of `printed`."""
    names = ("R@1", "R@5", "R@10", "median_rank", "mean_rank")
    sides = [table[direction][name] for direction in ("i2t", "t2i") for name in names]
    return [*sides, table["ar"], table["ari"], table["rsum"]]
