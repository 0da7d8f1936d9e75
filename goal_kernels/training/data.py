"""Batches of image-caption pairs from a split of any source. Plain torch."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from goal_kernels.data.feature_rows import FeatureRows
from goal_kernels.data.precomputed import open_split
from goal_kernels.data.row_file import rows_of
from goal_kernels.data.split import PictureSplit, PrecomputedSplit, Split
from goal_kernels.training.images import PictureDataset, PictureOptions
from goal_kernels.training.tokenizers import NO_WORD, Tokenizer, Tokens

PICTURE_BATCH_DIMS = 4  # [B, 3, S, S]; regions have [B, K, D]


class Pairs(NamedTuple):
    """Captions and their images: images [n, ...] or n of them, captions as tokens and row.

    counts: how many of the captions, in order, come with each image; None: one.
    """

    images: Sequence[np.ndarray] | np.ndarray
    captions: Sequence[tuple[Tokens, int]]
    counts: Sequence[int] | None = None


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
        padding. image_ids: [B] int64, image rows. group_ids: [B] int64, where images have groups.
    """

    tokens: Tensor
    lengths: Tensor
    words: Tensor
    image_ids: Tensor
    group_ids: Tensor | None = None

    def rows(self, index: Tensor) -> TextBatch:
        """The captions at [b] int64, padded to the longest of them."""
        longest = int(self.lengths[index].max())
        tokens, words = self.tokens[index, :longest], self.words[index, :longest]
        groups = None if self.group_ids is None else self.group_ids[index]
        return TextBatch(tokens, self.lengths[index], words, self.image_ids[index], groups)


class Batch(NamedTuple):
    """B pairs: the fields of `ImageBatch` and `TextBatch`, matching row by row.

    image_ids [B] int64 is the image row of each caption; two captions of one image share it.
    group_ids [B] int64 stands in for it where several images show one thing, else None.
    text_to_image: [M] int64, ascending, for N images, each once, with M captions: the image in the
        batch that each caption comes with. The first of an image is its own; what has the row of
        another image is a negative that was chosen for it. None for pairs.
    """

    images: Tensor
    image_mask: Tensor | None
    tokens: Tensor
    lengths: Tensor
    words: Tensor
    image_ids: Tensor
    text_to_image: Tensor | None = None
    group_ids: Tensor | None = None

    def relation(self, mask_same_image: bool) -> dict[str, Any]:
        """Which belong together, by the arguments of `gather_pairs`.

        Args: mask_same_image: whether pairs of one image, or group, are no negatives of each other.
        """
        owner = self.text_to_image
        ids = self.image_ids if self.group_ids is None else self.group_ids
        if owner is None:
            return {"image_ids": ids if mask_same_image else None}
        images = torch.arange(len(self.images), device=owner.device)
        first = torch.searchsorted(owner, images)
        own = self.image_ids == self.image_ids[first][owner]
        return {
            "image_ids": ids[first],
            "text_ids": ids,
            "text_to_image": torch.where(own, owner, -1),
        }

    @property
    def image_part(self) -> ImageBatch:
        """The images."""
        return ImageBatch(self.images, self.image_mask)

    @property
    def text_part(self) -> TextBatch:
        """The captions."""
        return TextBatch(self.tokens, self.lengths, self.words, self.image_ids, self.group_ids)


class RegionDataset(Dataset):
    """Every distinct image of a split once, by row: regions [K, D], read when asked for."""

    def __init__(self, split: PrecomputedSplit) -> None:
        self.split = split
        features = split.features
        self.places: Sequence[int] | np.ndarray = range(len(features))
        if isinstance(features, FeatureRows):
            self.places, features = features.row_of_image, features.stored
        self.rows = rows_of(features)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> np.ndarray:
        """Rows at once, as a loader asks for them: [n, K, D]."""
        return self.rows[[int(self.places[row]) for row in rows]]

    def training_images(self, rows: Sequence[int], keys: Sequence[tuple[int, int]]) -> np.ndarray:
        """The same for every epoch and caption: what is dropped of it the model decides."""
        return self.__getitems__(rows)

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickling a memory map copies what it maps; a loader process opens the file itself.
        return _reopen, (self.split.folder, self.split.name, len(self))


def _reopen(folder: Path, name: str, images: int) -> RegionDataset:
    """The first images of a split of a folder."""
    return RegionDataset(open_split(folder, name, limit=images))


def images_of(split: Split, pictures: PictureOptions, seed: int) -> RegionDataset | PictureDataset:
    """The images of a split, by row: regions [K, D] or pictures [3, S, S].

    Args:
        split: which.
        pictures: how image files become tensors.
        seed: of the crops that training draws.
    """
    if isinstance(split, PictureSplit):
        return PictureDataset(split, pictures, seed)
    assert isinstance(split, PrecomputedSplit)
    return RegionDataset(split)


class TextDataset(Dataset):
    """Every caption of a split once: (tokens, image row).

    Tokens lie in three arrays, which loader processes share; lists would be copied into each.

    Attributes:
        cut: number and words of each caption that has more words than the tokenizer reads.
    """

    def __init__(self, split: Split, tokenizer: Tokenizer) -> None:
        self.ids, self.words = array("i"), array("i")
        self.cut: list[tuple[int, int]] = []
        ends = array("q", [0])
        for number, caption in enumerate(split.captions):
            if len(caption) > tokenizer.max_words:  # else there are not so many words
                words = tokenizer.count_words(caption)
                if words > tokenizer.max_words:
                    self.cut.append((number, words))
            tokens = tokenizer.encode(caption)
            self.ids.extend(tokens.ids)
            self.words.extend(tokens.words)
            ends.append(len(self.ids))
        self.ends = np.asarray(ends)  # [M + 1]
        self.image_of_caption = split.image_of_caption

    def __len__(self) -> int:
        return len(self.image_of_caption)

    def __getitem__(self, caption: int) -> tuple[Tokens, int]:
        place = slice(self.ends[caption], self.ends[caption + 1])
        tokens = Tokens(self.ids[place].tolist(), self.words[place].tolist())
        return tokens, int(self.image_of_caption[caption])


class PairDataset(Dataset):
    """Every caption of a split with its image: the training examples.

    An example is asked for by (epoch, caption): pictures are cropped anew each epoch.
    """

    def __init__(self, images: RegionDataset | PictureDataset, texts: TextDataset) -> None:
        self.images = images
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Pairs:
        """Pairs at once, as a loader asks for them."""
        captions = [self.texts[caption] for _, caption in keys]
        return Pairs(self.images.training_images([row for _, row in captions], keys), captions)


class CaptionedImages(Dataset):
    """Every image of a split that has captions, once, with some of them: other training examples.

    An example is asked for by (epoch, number); which captions it has depends on these and the seed
    alone.

    Args:
        images, texts: of the split.
        captions: how many are drawn of an image's, all where it has no more; 0: all.
        seed: of what is drawn.
        negatives: [N, k] captions of other images that were chosen for each, -1: fewer; or None.
        chosen: how many of them are drawn, all where there are no more.
    """

    def __init__(
        self,
        images: RegionDataset | PictureDataset,
        texts: TextDataset,
        captions: int,
        seed: int,
        negatives: NDArray[np.int64] | None = None,
        chosen: int = 1,
    ) -> None:
        self.images, self.texts, self.captions, self.seed = images, texts, captions, seed
        self.negatives, self.chosen = negatives, chosen
        owner = np.asarray(texts.image_of_caption)
        self.order = np.argsort(owner, kind="stable")  # captions, image by image
        self.rows, starts = np.unique(owner[self.order], return_index=True)
        self.ends = np.append(starts, len(owner))  # [N + 1]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Pairs:
        """Images and their captions at once, as a loader asks for them; then their negatives."""
        chosen = [self._own(*key) + self._negatives(*key) for key in keys]
        captions = [self.texts[caption] for own in chosen for caption in own]
        images = self.images.training_images([int(self.rows[n]) for _, n in keys], keys)
        return Pairs(images, captions, [len(own) for own in chosen])

    def _own(self, epoch: int, number: int) -> list[int]:
        """The captions of an image in an epoch, in their order."""
        own = self.order[self.ends[number] : self.ends[number + 1]]
        # The last number keeps this apart from what is drawn of the picture.
        return self._drawn(own, self.captions or len(own), epoch, number, 1)

    def _negatives(self, epoch: int, number: int) -> list[int]:
        """The negatives of an image in an epoch, in their order."""
        if self.negatives is None:
            return []
        found = self.negatives[self.rows[number]]
        return self._drawn(found[found >= 0], self.chosen, epoch, number, 2)

    def _drawn(self, captions: NDArray[np.int64], count: int, *key: int) -> list[int]:
        if count < len(captions):
            generator = np.random.default_rng([self.seed, *key])
            captions = np.sort(generator.choice(captions, count, replace=False))
        return captions.tolist()


def collate_images(images: Sequence[np.ndarray] | np.ndarray) -> ImageBatch:
    """Stack pictures [3, S, S], or regions [K, D], of which zero ones count as padding."""
    array = images if isinstance(images, np.ndarray) else np.stack(images)
    stacked = torch.from_numpy(array.astype(np.float32, copy=False))
    if stacked.dim() == PICTURE_BATCH_DIMS:
        return ImageBatch(stacked, None)
    mask = (stacked != 0).any(dim=2)  # [B, K]
    # An image without a single region is still an image: its zeros are then encoded as they are.
    return ImageBatch(stacked, mask | ~mask.any(dim=1, keepdim=True))


def collate_texts(
    captions: Sequence[tuple[Tokens, int]], groups: NDArray[np.int64] | None = None
) -> TextBatch:
    """Pad tokens to the longest caption of the batch. groups: of all images, `Split.groups`."""
    lengths = _integers([len(tokens.ids) for tokens, _ in captions])
    tokens = torch.zeros(len(captions), int(lengths.max()), dtype=torch.int64, device="cpu")
    words = torch.full_like(tokens, NO_WORD)
    for row, (caption, _) in enumerate(captions):
        tokens[row, : len(caption.ids)] = _integers(caption.ids)
        words[row, : len(caption.words)] = _integers(caption.words)
    rows = [image for _, image in captions]
    group_ids = None if groups is None else _integers(groups[rows].tolist())
    return TextBatch(tokens, lengths, words, _integers(rows), group_ids)


def _integers(values: Sequence[int]) -> Tensor:
    """int64 on the CPU, whatever torch's default device: a loader's batches are sent from there."""
    return torch.tensor(values, dtype=torch.int64, device="cpu")


def collate_pairs(pairs: Pairs, groups: NDArray[np.int64] | None = None) -> Batch:
    """Stack and pad pairs into a `Batch`. groups: as in `collate_texts`."""
    texts = collate_texts(pairs.captions, groups)
    batch = Batch(*collate_images(pairs.images), **texts._asdict())
    if pairs.counts is None:
        return batch
    owner = [image for image, count in enumerate(pairs.counts) for _ in range(count)]
    return batch._replace(text_to_image=_integers(owner))
