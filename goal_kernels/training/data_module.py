"""The Lightning data module over a folder in the precomputed layout."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from goal_kernels.data.precomputed import PrecomputedSplit, load_split
from goal_kernels.data.vocabulary import Vocabulary
from goal_kernels.training.data import (
    ImageDataset,
    PairDataset,
    ShuffledSampler,
    TextDataset,
    collate_images,
    collate_pairs,
    collate_texts,
)
from goal_kernels.training.options import DataSizes
from goal_kernels.training.tokenizers import Tokenizer, WordTokenizer

EVALUATION_BATCH = 256  # images or captions encoded at once; no effect on results


class RetrievalDataModule(pl.LightningDataModule):
    """Pairs for training, distinct images and captions for evaluation.

    Args:
        folder: holds `{split}_ims.npy`, `{split}_caps.txt`, `{split}_ids.txt` and the vocabulary.
        batch_size: pairs a training batch; the incomplete last batch is dropped.
        num_workers: loader processes; 0 loads in the main process, best when features are small.
        seed: of the shuffling, together with the epoch.
        train_limit: use only the first images of the training split, all when None.
        dev_limit: the same for the dev split. The field's tables select on 1000 dev images.
        vocabulary: file of the vocabulary; `vocab.json` in the folder when None.
        dev_split: split that selects the checkpoint, and that `validate` evaluates.
        test_split: split that `test` evaluates.
    """

    def __init__(
        self,
        folder: str,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        train_limit: int | None = None,
        dev_limit: int | None = None,
        vocabulary: str | None = None,
        dev_split: str = "dev",
        test_split: str = "test",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.folder = Path(folder)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.limits = {dev_split: dev_limit, "train": train_limit}
        self.vocabulary_file = Path(vocabulary) if vocabulary else self.folder / "vocab.json"
        self.dev_split = dev_split
        self.test_split = test_split
        self.splits: dict[str, PrecomputedSplit] = {}
        self._start = (0, 0)

    def start_at(self, epoch: int, pairs: int) -> None:
        """Have the training loader begin in this epoch, after this many of its pairs."""
        self._start = (epoch, pairs)

    @property
    def training_pairs(self) -> int:
        """Number of training pairs: captions of the training split."""
        return len(self.split("train").captions)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary. Raises: FileNotFoundError when it is not there."""
        return Vocabulary.load(self.vocabulary_file)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """From captions to token ids."""
        return WordTokenizer(self.vocabulary)

    @property
    def sizes(self) -> DataSizes:
        """What a model must know of the data."""
        return DataSizes(
            region_dim=int(self.split("train").features.shape[2]),
            vocabulary_size=len(self.tokenizer),
            mask_id=self.tokenizer.mask_id,
            first_word_id=self.tokenizer.first_word_id,
        )

    def split(self, name: str) -> PrecomputedSplit:
        """The named split, read once; features stay on disk.

        Raises: FileNotFoundError with the remedy when there is no such folder or split.
        """
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"data.folder: expected a folder of precomputed features, found no {self.folder}; "
                "make the built-in dataset with `goal-kernels data synth` (its --help says where "
                "it goes), or give another folder with --data.folder"
            )
        if name not in self.splits:
            self.splits[name] = load_split(self.folder, name, limit=self.limits.get(name))
        return self.splits[name]

    def train_dataloader(self) -> DataLoader:
        """Batches of pairs, shuffled by (seed, epoch)."""
        pairs = PairDataset(self.split("train"), self.tokenizer)
        if len(pairs) < self.batch_size:
            raise ValueError(
                f"data.batch_size: expected at most the {len(pairs)} training pairs, got "
                f"{self.batch_size}; every batch would be dropped as incomplete"
            )
        sampler = ShuffledSampler(len(pairs), self.seed)
        sampler.start_at(*self._start)
        return DataLoader(
            pairs,
            self.batch_size,
            sampler=sampler,
            collate_fn=collate_pairs,
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
        split = self.split(name)
        images = DataLoader(
            ImageDataset(split),
            EVALUATION_BATCH,
            collate_fn=collate_images,
            num_workers=self.num_workers,
        )
        texts = DataLoader(
            TextDataset(split, self.tokenizer),
            EVALUATION_BATCH,
            collate_fn=collate_texts,
            num_workers=self.num_workers,
        )
        return [images, texts]
