"""The Lightning data module over any source of data."""

from __future__ import annotations

from dataclasses import fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn
from torch.utils.data import DataLoader

from goal_kernels.data.feature_rows import image_bytes
from goal_kernels.data.layout import VOCABULARY
from goal_kernels.data.picture_files import need_pillow
from goal_kernels.data.precomputed import refuse_unusable
from goal_kernels.data.sources import Source, SourceOptions, open_source
from goal_kernels.data.split import PrecomputedSplit, Split
from goal_kernels.data.vocabulary import (
    MAX_WORDS,
    MIN_COUNT,
    PICKLE_SUFFIXES,
    Vocabulary,
    number_said,
)
from goal_kernels.training.data import (
    CaptionedImages,
    PairDataset,
    TextDataset,
    collate_images,
    collate_pairs,
    collate_texts,
    images_of,
)
from goal_kernels.training.explicit_negatives import read_negatives
from goal_kernels.training.images import PictureOptions, picture_options
from goal_kernels.training.options import DataSizes, plain
from goal_kernels.training.sampler import ShuffledSampler
from goal_kernels.training.tokenizers import WORDS, Tokenizer, WordPieceTokenizer, WordTokenizer

SAID_GB = 4  # features above which their reading, as long as the disk takes, is announced
EVALUATION_BATCH = 256  # images or captions encoded at once; no effect on results


class RetrievalDataModule(pl.LightningDataModule):
    """Pairs for training, distinct images and captions for evaluation.

    docs/data.md shows the formats.

    Args:
        folder: a folder of precomputed features, a folder of images with a table of captions, or
            the file that describes a dataset. `goal-kernels data inspect` says what it is.
        format: "precomputed", "karpathy", "list" or "table"; found by itself when None.
        batch_size: pairs (images with captions_per_image) a training step, of all devices together;
            the incomplete last step of an epoch is dropped.
        num_workers: loader processes; 0 loads in the main process, best when features are small.
        seed: of the shuffling, together with the epoch.
        train_limit: use only the first images of the training split, all when None.
        dev_limit: the same for the dev split. The field's tables select on 1000 dev images.
        tokenizer: "words", or a folder with a WordPiece vocabulary.
        vocabulary: JSON file of the words. When None, the one that comes with the data, or else
            the words that training captions use `min_count` times.
        min_count: see `vocabulary`.
        max_words: words read of a caption; a warning names those that have more.
        distinct_images: an image, or group, at most once a batch. Off in all papers; the loss masks
            captions of one image in any case.
        captions_per_image: when given, a batch has batch_size images, each once, with so many of
            its captions, drawn anew each epoch; 0 for all. Images are then read and encoded once.
        explicit_negatives: FILE.npz that `goal-kernels mine` wrote for the training split: captions
            of other images that come with each image as negatives. Needs captions_per_image.
        explicit_per_image: how many of them, drawn anew each epoch.
        dev_split: split that selects the checkpoint, and that `validate` evaluates.
        test_split: split that `test` evaluates.
        pictures: how image files become tensors.
        image_root: folder that names of image files are relative to; found when None.
        restval: karpathy: add COCO's restval to the training split, as published.
        max_captions: keep so many captions an image; 0 all; None: 5 for COCO's JSON, else all.
        columns: table: names of its columns, by image, caption, split, image_id, group.
        dev_share, test_share: table without a split column: share of the images in dev and test.
        split_seed: table without a split column: other splits.
    """

    def __init__(
        self,
        folder: str,
        format: str | None = None,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        train_limit: int | None = None,
        dev_limit: int | None = None,
        tokenizer: str = WORDS,
        vocabulary: str | None = None,
        min_count: int = MIN_COUNT,
        max_words: int = MAX_WORDS,
        distinct_images: bool = False,
        captions_per_image: int | None = None,
        explicit_negatives: str | None = None,
        explicit_per_image: int = 1,
        dev_split: str = "dev",
        test_split: str = "test",
        pictures: PictureOptions | dict[str, Any] | None = None,
        image_root: str | None = None,
        restval: bool = False,
        max_captions: int | None = None,
        columns: dict[str, str] | None = None,
        dev_share: float = SourceOptions.dev_share,
        test_share: float = SourceOptions.test_share,
        split_seed: int = SourceOptions.split_seed,
    ) -> None:
        super().__init__()
        pictures = picture_options(pictures)
        given = dict(locals())
        self.save_hyperparameters(plain(type(self), given))
        self.folder = Path(folder)
        self.format = format
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.limits = {dev_split: dev_limit, "train": train_limit}
        self.tokenizer_name, self.vocabulary_file = tokenizer, vocabulary
        self.min_count, self.max_words = min_count, max_words
        self.distinct_images, self.captions_per_image = distinct_images, captions_per_image
        if captions_per_image is not None and captions_per_image < 0:
            raise ValueError(
                "data.captions_per_image: expected at least 1, 0 for all captions or null for a "
                f"batch of pairs, got {captions_per_image}"
            )
        self.explicit_negatives, self.explicit_per_image = explicit_negatives, explicit_per_image
        if explicit_negatives is not None and (
            captions_per_image is None or explicit_per_image < 1
        ):
            raise ValueError(
                "data.explicit_negatives: expected data.captions_per_image, and at least 1 as "
                f"data.explicit_per_image, got {captions_per_image} and {explicit_per_image}"
            )
        self.dev_split, self.test_split = dev_split, test_split
        self.pictures = pictures
        named = {**given, "image_root": Path(image_root) if image_root else None}
        self.source_options = {
            field.name: named[field.name]
            for field in fields(SourceOptions)
            if named[field.name] is not None
        }
        self.splits: dict[str, Split] = {}
        self._ready: set[str] = set()
        self._start = (0, 0)

    @cached_property
    def source(self) -> Source:
        """The dataset. Raises: FileNotFoundError, ValueError naming the remedy."""
        try:
            return open_source(self.folder, self.format, SourceOptions(**self.source_options))
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"data.folder: {error}; make the built-in one with `goal-kernels data synth` (its "
                "--help says where it goes), or give another with --data.folder"
            ) from error
        except ValueError as error:
            raise ValueError(f"data.folder: {error}") from error

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary given, that of the data, or one built from the training captions."""
        if self.vocabulary_file is not None:
            return Vocabulary.load(self.vocabulary_file)
        for path in self.source.vocabulary_files():
            if path.suffix not in PICKLE_SUFFIXES:
                return Vocabulary.load(path)
        captions = self.source.open("train").captions
        built = Vocabulary.from_captions(captions, self.min_count, self.max_words)
        _say(
            f"vocabulary: none with the data, built one of {len(built)} words, those that train "
            f"captions use {self.min_count} times or more"
        )
        return built

    def write_vocabulary(self, folder: Path) -> None:
        """Write `vocab.json` into a folder, that of a run; nothing for a WordPiece tokenizer."""
        if self.tokenizer_name == WORDS:
            self.vocabulary.save(folder / VOCABULARY)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """From captions to token ids. Raises: ValueError when no word is known."""
        if self.tokenizer_name != WORDS:
            return WordPieceTokenizer(self.tokenizer_name, self.max_words)
        tokenizer = WordTokenizer(self.vocabulary, self.max_words)
        if len(tokenizer) <= tokenizer.first_word_id:
            raise ValueError(
                f"data.min_count: expected words that come {self.min_count} times in the training "
                "captions, found none; make it smaller, or give data.vocabulary"
            )
        return tokenizer

    @property
    def sizes(self) -> DataSizes:
        """What a model must know of the data."""
        train = self.split("train")
        return DataSizes(
            region_dim=train.features.shape[2] if isinstance(train, PrecomputedSplit) else 0,
            vocabulary_size=len(self.tokenizer),
            mask_id=self.tokenizer.mask_id,
            first_word_id=self.tokenizer.first_word_id,
        )

    def split(self, name: str) -> Split:
        """The named split, opened once; features and images stay on disk.

        Raises: FileNotFoundError or ValueError with the remedy when there is no such dataset or
            split, or its files do not fit together.
        """
        if name not in self.splits:
            self.splits[name] = self.source.open(name, self.limits.get(name))
        return self.splits[name]

    def ready(self, name: str) -> Split:
        """The named split after one look at all of its features, when it is first asked for.

        Raises: as `split`; ValueError when a feature is not finite as float32, or Pillow is not
            installed for images.
        """
        split = self.split(name)
        if name not in self._ready:
            if isinstance(split, PrecomputedSplit):
                size = image_bytes(split.features) * len(split.features) / 1e9
                if size > SAID_GB:
                    _say(
                        f"{name}: reads {size:.0f} GB of features once, to see that all are finite"
                    )
                refuse_unusable(split)
            else:
                need_pillow("data.folder")
            self._ready.add(name)
        return split

    def make_ready(self, command: str) -> None:
        """`ready` for all splits that `fit`, `validate` or `test` will read, before the first step.

        Raises: as `ready`.
        """
        wanted = {"fit": ("train", self.dev_split, self.test_split), "test": (self.test_split,)}
        for name in wanted.get(command, (self.dev_split,)):
            self.ready(name)

    @property
    def training_pairs(self) -> int:
        """Number of training pairs: captions of the training split."""
        return len(self.split("train").captions)

    def pairs_per_device(self, devices: int) -> int:
        """Pairs, or images, of a step that each of the devices takes.

        Raises: ValueError when they cannot share a batch equally.
        """
        if self.batch_size % devices:
            raise ValueError(
                f"data.batch_size: expected a multiple of the {devices} devices that share a "
                f"batch, got {self.batch_size}; change one of them"
            )
        return self.batch_size // devices

    def start_at(self, epoch: int, pairs: int) -> None:
        """Have the training loader begin in this epoch, after pairs that all processes have used.

        Images are counted instead where a batch is made of images. See `ShuffledSampler.start_at`.
        """
        self._start = (epoch, pairs)

    def train_dataloader(self) -> DataLoader:
        """Batches, shuffled by (seed, epoch), this process's part of each step.

        The trainer must leave the sampler alone (`use_distributed_sampler=False`).
        """
        rank, world_size = (
            (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        )
        batch_size = self.pairs_per_device(world_size)
        split = self.ready("train")
        images, texts = images_of(split, self.pictures, self.seed), self._texts(split)
        captions = self.captions_per_image
        distinct = self.distinct_images and captions is None  # images are distinct in any case
        examples: PairDataset | CaptionedImages = PairDataset(images, texts)
        if captions is not None:
            negatives = read_negatives(self.explicit_negatives, split), self.explicit_per_image
            examples = CaptionedImages(images, texts, captions, self.seed, *negatives)
        sampler = ShuffledSampler(
            len(examples),
            self.seed,
            rank=rank,
            world_size=world_size,
            batch_size=batch_size,
            image_of_caption=split.group_of_caption if distinct else None,
            noun="pairs" if captions is None else "images",
        )
        sampler.start_at(*self._start)
        return DataLoader(
            examples,
            batch_size,
            sampler=sampler,
            collate_fn=partial(collate_pairs, groups=split.groups),
            drop_last=True,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )

    def val_dataloader(self) -> list[DataLoader]:
        """Two loaders for the dev split: distinct images, then captions."""
        return self._evaluation_loaders(self.dev_split)

    def test_dataloader(self) -> list[DataLoader]:
        """Two loaders for the test split: distinct images, then captions."""
        return self._evaluation_loaders(self.test_split)

    def _evaluation_loaders(self, name: str) -> list[DataLoader]:
        split = self.ready(name)
        images = DataLoader(
            images_of(split, self.pictures, self.seed),
            EVALUATION_BATCH,
            collate_fn=collate_images,
            num_workers=self.num_workers,
        )
        texts = DataLoader(
            self._texts(split),
            EVALUATION_BATCH,
            collate_fn=partial(collate_texts, groups=split.groups),
            num_workers=self.num_workers,
        )
        return [images, texts]

    def _texts(self, split: Split) -> TextDataset:
        """The captions of a split; a warning when some are cut."""
        texts = TextDataset(split, self.tokenizer)
        if texts.cut:
            number, words = texts.cut[0]
            rank_zero_warn(
                f"data.max_words: {len(texts.cut):,} of the captions of {split.name} are cut to "
                f"their first {self.max_words} words, caption {number} (counted from 0) for "
                f"instance, which has {number_said(words)}; --data.max_words N reads more"
            )
        return texts


@rank_zero_only
def _say(line: str) -> None:
    """Print a line, by one process."""
    print(line, flush=True)
