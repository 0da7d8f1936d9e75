"""Batches of image-caption pairs from a split in the field's precomputed layout. Plain torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from goal_kernels.data.precomputed import PrecomputedSplit
from goal_kernels.training.tokenizers import NO_WORD, Tokenizer, Tokens


class Pair(NamedTuple):
    """One caption and its image: image (regions [K, D]), tokens, image row."""

    image: np.ndarray
    tokens: Tokens
    image_id: int


class ImageBatch(NamedTuple):
    """B images.

    images: region features [B, K, D], or raw images [B, 3, H, W]; float32.
    image_mask: [B, K] bool, True for regions that hold something; None for raw images.
    """

    images: Tensor
    image_mask: Tensor | None


class TextBatch(NamedTuple):
    """B captions.

    tokens: [B, L] int64, padded with 0. lengths: [B] int64.
    words: [B, L] int64, which word of the caption a token belongs to, -1 for special tokens and
        padding. image_ids: [B] int64, image rows.
    """

    tokens: Tensor
    lengths: Tensor
    words: Tensor
    image_ids: Tensor


class Batch(NamedTuple):
    """B pairs: the fields of `ImageBatch` and `TextBatch`, matching row by row.

    image_ids [B] int64 is the image row of each caption; two captions of one image share it.
    """

    images: Tensor
    image_mask: Tensor | None
    tokens: Tensor
    lengths: Tensor
    words: Tensor
    image_ids: Tensor

    @property
    def image_part(self) -> ImageBatch:
        """The images."""
        return ImageBatch(self.images, self.image_mask)

    @property
    def text_part(self) -> TextBatch:
        """The captions."""
        return TextBatch(self.tokens, self.lengths, self.words, self.image_ids)


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

    def __init__(self, split: PrecomputedSplit, tokenizer: Tokenizer) -> None:
        self.tokens = [tokenizer.encode(caption) for caption in split.captions]
        self.image_of_caption = split.image_of_caption

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, caption: int) -> tuple[Tokens, int]:
        return self.tokens[caption], int(self.image_of_caption[caption])


class PairDataset(Dataset):
    """Every caption of a split with its image: the training examples."""

    def __init__(self, split: PrecomputedSplit, tokenizer: Tokenizer) -> None:
        self.images = ImageDataset(split)
        self.texts = TextDataset(split, tokenizer)

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


def collate_texts(captions: Sequence[tuple[Tokens, int]]) -> TextBatch:
    """Pad tokens to the longest caption of the batch."""
    lengths = torch.tensor([len(tokens.ids) for tokens, _ in captions])
    tokens = torch.zeros(len(captions), int(lengths.max()), dtype=torch.int64)
    words = torch.full_like(tokens, NO_WORD)
    for row, (caption, _) in enumerate(captions):
        tokens[row, : len(caption.ids)] = torch.tensor(caption.ids)
        words[row, : len(caption.words)] = torch.tensor(caption.words)
    return TextBatch(tokens, lengths, words, torch.tensor([image for _, image in captions]))


def collate_pairs(pairs: Sequence[Pair]) -> Batch:
    """Stack and pad pairs into a `Batch`."""
    images = collate_images([pair.image for pair in pairs])
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
