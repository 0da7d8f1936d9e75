"""Batches of image-caption pairs from a split in the field's precomputed layout. Plain torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from goal_kernels.data.precomputed import PrecomputedSplit
from goal_kernels.data.vocabulary import Vocabulary


class Pair(NamedTuple):
    """One caption and its image: regions [K, D], tokens (ids with <start> and <end>), image row."""

    regions: np.ndarray
    tokens: list[int]
    image_id: int


class ImageBatch(NamedTuple):
    """regions [B, K, D] float32; region_mask [B, K] bool, True for regions that hold something."""

    regions: Tensor
    region_mask: Tensor


class TextBatch(NamedTuple):
    """tokens [B, L] int64, padded with 0; lengths [B] int64; image_ids [B] int64, rows."""

    tokens: Tensor
    lengths: Tensor
    image_ids: Tensor


class Batch(NamedTuple):
    """B pairs: the fields of `ImageBatch` and `TextBatch`, matching row by row.

    image_ids [B] int64 is the image row of each caption; two captions of one image share it.
    """

    regions: Tensor
    region_mask: Tensor
    tokens: Tensor
    lengths: Tensor
    image_ids: Tensor


class ImageDataset(Dataset):
    """Every distinct image of a split once, by row: regions [K, D]."""

    def __init__(self, split: PrecomputedSplit) -> None:
        self.features = split.features

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.features[row]


class TextDataset(Dataset):
    """Every caption of a split once: (tokens, image row)."""

    def __init__(self, split: PrecomputedSplit, vocabulary: Vocabulary) -> None:
        self.tokens = [vocabulary.encode(caption) for caption in split.captions]
        self.image_of_caption = split.image_of_caption

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, caption: int) -> tuple[list[int], int]:
        return self.tokens[caption], int(self.image_of_caption[caption])


class PairDataset(Dataset):
    """Every caption of a split with its image: the training examples."""

    def __init__(self, split: PrecomputedSplit, vocabulary: Vocabulary) -> None:
        self.images = ImageDataset(split)
        self.texts = TextDataset(split, vocabulary)

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, caption: int) -> Pair:
        tokens, image = self.texts[caption]
        return Pair(self.images[image], tokens, image)


def collate_images(regions: Sequence[np.ndarray]) -> ImageBatch:
    """Stack regions [K, D]; a region that is zero throughout counts as padding."""
    stacked = torch.from_numpy(np.stack(regions).astype(np.float32, copy=False))  # [B, K, D]
    mask = (stacked != 0).any(dim=2)
    # An image without a single region is still an image: its zeros are then encoded as they are.
    return ImageBatch(stacked, mask | ~mask.any(dim=1, keepdim=True))


def collate_texts(captions: Sequence[tuple[list[int], int]]) -> TextBatch:
    """Pad token ids to the longest caption of the batch."""
    lengths = torch.tensor([len(tokens) for tokens, _ in captions])
    tokens = torch.zeros(len(captions), int(lengths.max()), dtype=torch.int64)
    for row, (ids, _) in enumerate(captions):
        tokens[row, : len(ids)] = torch.tensor(ids)
    return TextBatch(tokens, lengths, torch.tensor([image for _, image in captions]))


def collate_pairs(pairs: Sequence[Pair]) -> Batch:
    """Stack and pad pairs into a `Batch`."""
    images = collate_images([pair.regions for pair in pairs])
    texts = collate_texts([(pair.tokens, pair.image_id) for pair in pairs])
    return Batch(*images, *texts)


class ShuffledSampler(Sampler[int]):
    """A permutation of 0..size-1 that depends on (seed, epoch) alone.

    The trainer calls `set_epoch` before each epoch, so that a resumed run sees the order that the
    uninterrupted one would have seen.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation; epochs count from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        # A pair of small integers seeds a SeedSequence without collisions such as seed + epoch.
        generator = np.random.default_rng([self.seed, self.epoch])
        return iter(generator.permutation(self.size).tolist())
