"""Batches: which image a caption goes with, padding, order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from goal_kernels.data import Vocabulary, load_split
from goal_kernels.training.data import (
    PairDataset,
    ShuffledSampler,
    collate_images,
    collate_pairs,
    collate_texts,
)
from goal_kernels.training.data_module import RetrievalDataModule
from goal_kernels.training.options import DataSizes
from goal_kernels.training.tokenizers import Tokens, WordTokenizer


@pytest.fixture
def module(folder: Path) -> RetrievalDataModule:
    return RetrievalDataModule(str(folder), batch_size=10, seed=3)


def test_pairs_carry_their_image_and_its_row(folder: Path) -> None:
    split, vocabulary = load_split(folder, "train"), Vocabulary.load(folder / "vocab.json")
    pairs = PairDataset(split, WordTokenizer(vocabulary))
    batch = collate_pairs([pairs[caption] for caption in range(len(pairs))])
    assert batch.image_ids.tolist() == [caption // 2 for caption in range(len(split.captions))]
    for row, image in enumerate(batch.image_ids.tolist()):
        assert np.array_equal(batch.images[row], split.features[image])
        ids = batch.tokens[row, : batch.lengths[row]].tolist()
        assert ids == vocabulary.encode(split.captions[row])
        assert (batch.tokens[row, batch.lengths[row] :] == 0).all()


def test_zero_regions_are_padding_unless_nothing_else_is_there() -> None:
    regions = np.ones((2, 3, 4), dtype=np.float16)
    regions[0, 1] = 0
    regions[1] = 0
    batch = collate_images(list(regions))
    assert batch.images.dtype == torch.float32
    assert batch.image_mask.tolist() == [[True, False, True], [True, True, True]]


def test_texts_are_padded_to_the_longest() -> None:
    batch = collate_texts(
        [(Tokens([1, 5, 2], [-1, 0, -1]), 4), (Tokens([1, 5, 6, 7, 2], [-1, 0, 1, 1, -1]), 9)]
    )
    assert batch.tokens.tolist() == [[1, 5, 2, 0, 0], [1, 5, 6, 7, 2]]
    assert batch.words.tolist() == [[-1, 0, -1, -1, -1], [-1, 0, 1, 1, -1]]
    assert batch.lengths.tolist() == [3, 5]
    assert batch.image_ids.tolist() == [4, 9]


def test_shuffling_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = ShuffledSampler(50, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert sorted(order(0, 0)) == list(range(50))
    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(*pair)) for pair in [(0, 0), (0, 1), (1, 0), (1, 1)]}) == 4


def test_training_batches_are_full_and_reproducible(module: RetrievalDataModule) -> None:
    loader = module.train_dataloader()
    first = [batch.image_ids.tolist() for batch in loader]
    assert len(first) == 48 // 10
    assert {len(ids) for ids in first} == {10}
    assert first == [batch.image_ids.tolist() for batch in module.train_dataloader()]
    loader.sampler.set_epoch(1)
    assert first != [batch.image_ids.tolist() for batch in loader]


def test_evaluation_visits_each_image_and_caption_once(module: RetrievalDataModule) -> None:
    images, texts = module.val_dataloader()
    assert sum(len(batch.images) for batch in images) == 12
    assert torch.cat([batch.image_ids for batch in texts]).tolist() == [c // 2 for c in range(24)]


def test_sizes_follow_from_the_files(module: RetrievalDataModule, folder: Path) -> None:
    assert module.sizes == DataSizes(10, len(Vocabulary.load(folder / "vocab.json")))


def test_limits(folder: Path) -> None:
    module = RetrievalDataModule(str(folder), train_limit=5, dev_limit=4)
    assert len(module.split("train").captions) == 10
    assert len(module.split("dev").features) == 4
    assert len(module.split("test").features) == 12


def test_too_large_a_batch_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.batch_size.*48.*100"):
        RetrievalDataModule(str(folder), batch_size=100).train_dataloader()


def test_missing_folder_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="goal-kernels data synth"):
        RetrievalDataModule(str(tmp_path / "none")).split("train")
