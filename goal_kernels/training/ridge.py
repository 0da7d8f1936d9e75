"""Ridge regression from image features to words: what a result owes to trained encoders."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.data import DataLoader

import goal_kernels as gk
from goal_kernels.data.split import Split
from goal_kernels.training.data import (
    PICTURE_BATCH_DIMS,
    TextDataset,
    collate_images,
    images_of,
)
from goal_kernels.training.data_module import RetrievalDataModule
from goal_kernels.training.images import PictureOptions
from goal_kernels.training.tokenizers import Tokenizer

PIXELS = 16  # side that a picture is scaled to, whose pixels are then its features
IMAGES = 256  # read at once
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # tried on dev; of the mean variance


def ridge_metrics(data: RetrievalDataModule) -> dict[str, Any]:
    """`gk.retrieval_metrics` of ridge regression on the test split; nothing in it is random.

    An image is the mean of its regions, or its pixels at 16 x 16, standardised by the training
    images. A caption is its words times log(captions / captions with the word), of unit length. W
    minimises |X W - Y|^2 + s |W|^2, Y being the mean caption of each training image less the mean
    of all; a pair scores the cosine of x W and the caption. s is that with the highest rsum on dev.
    """
    splits = [data.ready(name) for name in ("train", data.dev_split, data.test_split)]
    train, dev, test = (_pooled(split) for split in splits)
    mean, scale = train.mean(0), train.std(0).clamp(min=1e-9)
    train, dev, test = ((rows - mean) / scale for rows in (train, dev, test))
    counts, dev_counts, test_counts = (_word_counts(split, data.tokenizer) for split in splits)
    with_word = torch.bincount(counts.indices()[1], minlength=counts.shape[1])
    rarity = torch.where(with_word > 0, counts.shape[0] / with_word.double(), 1.0).log()  # [V]
    captions, owner = _weighted(counts, rarity), torch.from_numpy(splits[0].image_of_caption)
    row, word = captions.indices()
    shares = captions.values() / torch.bincount(owner)[owner[row]]
    place = torch.stack([owner[row], word])
    images = _sparse(place, shares, (len(train), len(rarity)))  # [N, V]
    variances, directions = torch.linalg.eigh(train.t() @ train)
    # X is centred, so X^T Y is the same whether the mean of all captions is taken from Y or not.
    onto = directions.t() @ torch.sparse.mm(images.t(), train).t()  # [D, V]

    def metrics(x: Tensor, counts: Tensor, split: Split, strength: float) -> dict[str, Any]:
        shrunk = onto / (variances + strength * variances.mean())[:, None]
        found = normalize(x @ directions @ shrunk, dim=1)  # [n, V]
        scores = torch.sparse.mm(_weighted(counts, rarity), found.t()).t()  # [n, m]
        groups = None if split.groups is None else torch.from_numpy(split.groups)
        index = torch.from_numpy(split.image_of_caption)
        return gk.retrieval_metrics(gk.similarity_ranks(scores, index, groups=groups))

    best = max(STRENGTHS, key=lambda s: metrics(dev, dev_counts, splits[1], s)["rsum"])
    return metrics(test, test_counts, splits[2], best)


def _pooled(split: Split) -> Tensor:
    """[N, D] float64: the mean of each image's regions, or its pixels."""
    parts = []
    images = images_of(split, PictureOptions(size=PIXELS), 0)
    for values, mask in DataLoader(images, IMAGES, collate_fn=collate_images):
        wide = values.double()
        if wide.dim() == PICTURE_BATCH_DIMS:
            parts.append(wide.flatten(1))
        else:
            parts.append((wide * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True))
    return torch.cat(parts)


def _word_counts(split: Split, tokenizer: Tokenizer) -> Tensor:
    """[M, V] float64 sparse: how often each ordinary word is in each caption."""
    texts = TextDataset(split, tokenizer)
    ids = torch.from_numpy(np.asarray(texts.ids)).long()
    captions = torch.arange(len(texts), device="cpu")
    row = captions.repeat_interleave(torch.from_numpy(texts.ends).diff())
    words = ids >= tokenizer.first_word_id
    place = torch.stack([row, ids])[:, words]
    ones = torch.ones(place.shape[1], dtype=torch.float64, device="cpu")
    return _sparse(place, ones, (len(texts), len(tokenizer)))


def _weighted(counts: Tensor, weights: Tensor) -> Tensor:
    """Counts [M, V] times the weights [V] of words, in rows of unit length; zero rows stay zero."""
    row, word = counts.indices()
    values = counts.values() * weights[word]
    squares = torch.zeros(counts.shape[0], dtype=torch.float64, device="cpu")
    lengths = squares.index_add(0, row, values.square()).sqrt().clamp(min=1e-12)
    return _sparse(counts.indices(), values / lengths[row], tuple(counts.shape))


def _sparse(place: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A sparse matrix of values [n] at places [2, n]; values at one place are added up."""
    return torch.sparse_coo_tensor(place, values, shape, check_invariants=True).coalesce()
