"""Batches: which image a caption goes with, padding, order."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from made_up_data import read_through
from strangers import karpathy, put_picture, put_precomputed, put_scan_vocabulary

from goal_kernels.data import Vocabulary, load_split, write_split
from goal_kernels.training.data import (
    Batch,
    CaptionedImages,
    PairDataset,
    RegionDataset,
    TextDataset,
    collate_images,
    collate_pairs,
    collate_texts,
)
from goal_kernels.training.data_module import RetrievalDataModule
from goal_kernels.training.explicit_negatives import read_negatives
from goal_kernels.training.options import DataSizes
from goal_kernels.training.sampler import ShuffledSampler
from goal_kernels.training.tokenizers import Tokens, WordTokenizer


@pytest.fixture
def module(folder: Path) -> RetrievalDataModule:
    return RetrievalDataModule(str(folder), batch_size=10, seed=3)


def test_pairs_carry_their_image_and_its_row(folder: Path) -> None:
    split, vocabulary = load_split(folder, "train"), Vocabulary.load(folder / "vocab.json")
    pairs = PairDataset(RegionDataset(split), TextDataset(split, WordTokenizer(vocabulary)))
    batch = collate_pairs(pairs.__getitems__([(0, caption) for caption in range(len(pairs))]))
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
        return [number for _, number in sampler]

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


def test_loader_processes_map_the_file_themselves(folder: Path) -> None:
    """Pickled for a process that is not forked, the images are a few names, not the features."""
    images = RegionDataset(load_split(folder, "train", limit=20))
    stored = pickle.dumps(images)
    assert len(stored) < 1000 < images.split.features.nbytes
    again = pickle.loads(stored)
    assert len(again) == 20
    np.testing.assert_array_equal(again[19], images[19])
    assert isinstance(again.split.features, np.memmap)


@pytest.mark.parametrize("repeats", [[1] * 12, [2] * 12, [1, 2] * 6])
def test_a_file_cut_short_is_said_and_does_not_kill(tmp_path: Path, repeats: list[int]) -> None:
    """Rows come from the file as they are stored; what is gone is an error, not SIGBUS."""
    images = np.random.default_rng(0).random((12, 40, 30)).astype(np.float16)
    folder, captions = tmp_path / "data", sum(repeats)
    write_split(folder, "train", images.repeat(repeats, axis=0), ["a"] * captions)
    dataset = RegionDataset(load_split(folder, "train"))
    assert len(dataset) == 12
    for row in range(12):
        np.testing.assert_array_equal(dataset[row], images[row])
    path = folder / "train_ims.npy"
    os.truncate(path, path.stat().st_size // 2)
    np.testing.assert_array_equal(dataset[0], images[0])
    with pytest.raises(FileNotFoundError, match=r"train_ims\.npy: was cut short .* row \d+ is no"):
        [dataset[row] for row in range(12)]


def test_features_are_never_read_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch costs its own images, whatever the size of the split."""
    module = RetrievalDataModule(str(folder), batch_size=4)
    loader = module.train_dataloader()
    batches = iter(loader)
    rows: list[int] = []
    kind = type(loader.dataset.images)
    read = kind.__getitems__
    monkeypatch.setattr(kind, "__getitems__", lambda s, some: rows.extend(some) or read(s, some))
    next(batches)
    assert len(rows) == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_goes_on_inside_an_epoch(folder: Path, workers: int) -> None:
    def batches(epoch: int, pairs: int) -> list[list[int]]:
        module = RetrievalDataModule(str(folder), batch_size=8, seed=5, num_workers=workers)
        module.start_at(epoch, pairs)
        loader = module.train_dataloader()
        loader.sampler.set_epoch(epoch)  # as the trainer does
        assert len(loader) == 6
        return [batch.tokens.tolist() for batch in read_through(loader)]

    whole = batches(1, 0)
    assert len(whole) == 6
    assert batches(1, 24) == whole[3:]
    assert batches(2, 0) != whole


def test_distinct_images_are_an_option(folder: Path) -> None:
    def repeats(distinct: bool) -> int:
        module = RetrievalDataModule(str(folder), batch_size=16, distinct_images=distinct)
        ids = [batch.image_ids.tolist() for batch in module.train_dataloader()]
        return sum(len(batch) - len(set(batch)) for batch in ids)

    assert repeats(False) > 0
    assert repeats(True) == 0


def captioned(folder: Path, captions: int, epoch: int = 0, **options) -> list[Batch]:
    """Batches of an epoch, of images with so many captions each."""
    module = RetrievalDataModule(str(folder), captions_per_image=captions, **options)
    loader = module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


@pytest.mark.parametrize(("captions", "each"), [(1, 1), (2, 2), (9, 2), (0, 2)])
def test_images_come_once_with_their_captions(folder: Path, captions: int, each: int) -> None:
    split = load_split(folder, "train")
    vocabulary = Vocabulary.load(folder / "vocab.json")
    batches = captioned(folder, captions, batch_size=8, distinct_images=True)
    assert [len(batch.images) for batch in batches] == [8, 8, 8]
    seen = torch.cat([batch.image_ids for batch in batches])
    assert sorted(seen.tolist()) == sorted([*range(24)] * each)
    for batch in batches:
        assert batch.text_to_image.tolist() == [i // each for i in range(8 * each)]
        for row, image in enumerate(batch.text_to_image.tolist()):
            own = int(batch.image_ids[row])
            assert np.array_equal(batch.images[image], split.features[own])
            ids = batch.tokens[row, : batch.lengths[row]].tolist()
            assert ids in [vocabulary.encode(c) for c in split.captions[2 * own : 2 * own + 2]]
        rows = batch.text_to_image[1:] == batch.text_to_image[:-1]
        assert not (batch.tokens[1:] == batch.tokens[:-1])[rows].all(dim=1).any()


def test_captions_are_drawn_anew_each_epoch_and_go_on_inside_one(folder: Path) -> None:
    def drawn(epoch: int, seed: int = 0) -> dict[int, list[int]]:
        batches = captioned(folder, 1, epoch, batch_size=4, seed=seed)
        return {
            int(image): tokens[:length].tolist()
            for batch in batches
            for image, tokens, length in zip(
                batch.image_ids, batch.tokens, batch.lengths, strict=True
            )
        }

    assert drawn(1) == drawn(1)
    assert len({str(sorted(drawn(*key).items())) for key in ((0,), (1,), (2,), (0, 1))}) == 4
    module = RetrievalDataModule(str(folder), batch_size=4, captions_per_image=1)
    module.start_at(1, 12)
    rest = [batch.tokens.tolist() for batch in module.train_dataloader()]
    whole = [batch.tokens.tolist() for batch in captioned(folder, 1, 1, batch_size=4)]
    assert rest == whole[3:]
    with pytest.raises(ValueError, match=r"at most the 24 training images, got 25"):
        captioned(folder, 1, batch_size=25)


def test_images_may_have_any_number_of_captions() -> None:
    """None, one or more; an image is read once for all of them."""
    asked: list[int] = []
    images = SimpleNamespace(training_images=lambda rows, keys: asked.extend(rows) or rows)
    texts = SimpleNamespace(image_of_caption=np.array([3, 0, 3, 3, 1]))
    examples = CaptionedImages(images, texts, 2, seed=0)
    examples.texts = range(5)
    assert len(examples) == 3
    pairs = examples.__getitems__([(0, 0), (0, 2), (0, 1)])
    assert asked == [0, 3, 1]
    assert pairs.counts == [1, 2, 1]
    assert (pairs.captions[0], pairs.captions[3]) == (1, 4)
    assert set(pairs.captions[1:3]) < {0, 2, 3}


def test_negatives_that_were_mined_come_with_their_image(folder: Path, tmp_path: Path) -> None:
    """Behind its captions, in the batch of another image or not; drawn anew each epoch."""
    mined = (np.arange(24)[:, None] * 2 + [2, 5, 9]) % 48
    mined[7] = -1
    np.savez(tmp_path / "mined.npz", i2t_indices=mined)
    options = {"explicit_negatives": str(tmp_path / "mined.npz"), "explicit_per_image": 2}
    vocabulary, split = Vocabulary.load(folder / "vocab.json"), load_split(folder, "train")
    drawn = []
    for epoch in (0, 1):
        batches = captioned(folder, 1, epoch, batch_size=8, **options)
        for batch in batches:
            relation = batch.relation(True)
            rows, owner = relation["image_ids"], relation["text_to_image"]
            assert torch.equal(relation["text_ids"], batch.image_ids)
            assert torch.equal(batch.image_ids[owner >= 0], rows)
            for image, row in enumerate(rows.tolist()):
                with_it = (batch.text_to_image == image).nonzero()[:, 0]
                assert owner[with_it].tolist() == [image, -1, -1][: len(with_it)]
                words = [vocabulary.encode(split.captions[c]) for c in mined[row]]
                found = [batch.tokens[m, : batch.lengths[m]].tolist() for m in with_it[1:]]
                assert len(found) == (0 if row == 7 else 2)
                assert all(caption in words for caption in found)
                drawn.append((row, found))
    assert sorted(drawn[:24]) != sorted(drawn[24:])


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ({"t2i_indices": np.zeros((24, 1), int)}, r"expected i2t_indices in .*\['t2i_indices'\]"),
        ({"i2t_indices": np.zeros((23, 1), int)}, r"each of the 24 images of train .*\(23, 1\)"),
        ({"i2t_indices": np.full((24, 1), 48)}, r"rows of the 48 captions .* got 48 to 48"),
        ({"i2t_indices": np.full((24, 1), 9)}, r"one of its own for image 4 of train"),
    ],
    ids=["other direction", "other images", "other captions", "own captions"],
)
def test_negatives_of_another_split_are_refused(
    folder: Path, tmp_path: Path, stored: dict[str, np.ndarray], said: str
) -> None:
    np.savez(tmp_path / "mined.npz", **stored)
    with pytest.raises(ValueError, match=rf"data\.explicit_negatives: .*{said}.*goal-kernels mine"):
        captioned(folder, 1, batch_size=8, explicit_negatives=str(tmp_path / "mined.npz"))


def test_negatives_need_batches_of_images() -> None:
    with pytest.raises(ValueError, match=r"expected data\.captions_per_image.*got None and 1"):
        RetrievalDataModule("folder", explicit_negatives="mined.npz")
    with pytest.raises(FileNotFoundError, match=r"data\.explicit_negatives: .*none\.npz"):
        read_negatives("none.npz", SimpleNamespace(name="train"))


def test_devices_share_the_batch(folder: Path) -> None:
    """Two processes of a trainer see the halves of the batches that one alone sees."""

    def batches(rank: int, world_size: int) -> list[torch.Tensor]:
        module = RetrievalDataModule(str(folder), batch_size=10, seed=2)
        module.trainer = SimpleNamespace(global_rank=rank, world_size=world_size)
        return [batch.image_ids for batch in module.train_dataloader()]

    alone, first, second = batches(0, 1), batches(0, 2), batches(1, 2)
    assert len(alone) == len(first) == len(second) == 4
    for whole, *halves in zip(alone, first, second, strict=True):
        assert [len(half) for half in halves] == [5, 5]
        assert torch.equal(torch.cat(halves), whole)
    with pytest.raises(ValueError, match=r"data\.batch_size: expected a multiple of the 3 devices"):
        batches(0, 3)


def test_long_captions_are_cut_and_named(folder: Path, tmp_path: Path) -> None:
    """A batch is no longer than the limit, and a run says which caption was."""
    folder = Path(shutil.copytree(folder, tmp_path / "own"))
    path = folder / "train_caps.txt"
    lines = path.read_text().splitlines()
    lines[7] = "disc " * 300
    lines[9] = "disc " * 10**6
    path.write_text("\n".join(lines) + "\n")
    module = RetrievalDataModule(str(folder), batch_size=48)
    with pytest.warns(
        UserWarning, match=r"2 of the captions of train .* 256 words, caption 7 .* 300;"
    ):
        loader = module.train_dataloader()
    assert max(batch.tokens.shape[1] for batch in loader) == 258
    shorter = RetrievalDataModule(str(folder), batch_size=48, max_words=3)
    with pytest.warns(UserWarning, match=r"first 3 words"):
        assert {batch.tokens.shape[1] for batch in shorter.train_dataloader()} == {5}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module.val_dataloader()


# Datasets of strangers


def test_a_folder_without_vocabulary_trains(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    put_precomputed(tmp_path / "f30k" / "precomp", "train", 6, 1)
    put_precomputed(tmp_path / "f30k" / "precomp", "val", 4, 2, repeated=True)
    module = RetrievalDataModule(str(tmp_path / "f30k"), batch_size=5)
    assert module.sizes.region_dim == 4
    words = module.vocabulary.words
    assert {"a", "there", "dog"} <= set(words)
    assert "blue" in words
    out = capsys.readouterr().out
    assert f"built one of {len(words)} words" in out
    assert "4 times or more" in out
    module.write_vocabulary(tmp_path)
    assert Vocabulary.load(tmp_path / "vocab.json") == module.vocabulary
    assert not list((tmp_path / "f30k").rglob("*vocab*"))
    images, texts = module.val_dataloader()
    assert sum(len(batch.images) for batch in images) == 4
    assert sum(len(batch.tokens) for batch in texts) == 20
    with pytest.raises(ValueError, match=r"data\.min_count"):
        RetrievalDataModule(str(tmp_path / "f30k"), min_count=99).sizes  # noqa: B018


def test_the_vocabulary_beside_the_data_is_taken(tmp_path: Path) -> None:
    folder = put_precomputed(tmp_path / "coco_precomp", "train", 6, 1)
    path = put_scan_vocabulary(tmp_path / "vocab" / "coco_precomp_vocab.json")
    assert RetrievalDataModule(str(folder)).vocabulary == Vocabulary.load(path)
    (tmp_path / "v.pkl").write_bytes(b"\x80")
    with pytest.raises(ValueError, match="pickle"):
        RetrievalDataModule(str(folder), vocabulary=str(tmp_path / "v.pkl")).sizes  # noqa: B018


def test_pictures_of_a_karpathy_json(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    content = karpathy("coco", {"train": 4, "restval": 2, "val": 2, "test": 1}, times=6)
    (tmp_path / "dataset_coco.json").write_text(json.dumps(content))
    for number, entry in enumerate(content["images"]):
        put_picture(tmp_path / "pictures" / entry["filepath"] / entry["filename"], number)
    module = RetrievalDataModule(
        str(tmp_path),
        batch_size=6,
        restval=True,
        image_root=str(tmp_path / "pictures"),
        pictures={"size": 32},
        test_split="testall",
    )
    assert module.sizes.region_dim == 0
    assert module.training_pairs == 30
    batch = next(iter(module.train_dataloader()))
    assert batch.images.shape == (6, 3, 32, 32)
    assert batch.images.dtype == torch.float32
    assert batch.image_mask is None
    module.captions_per_image = 2  # a picture is cropped once for both
    batch = next(iter(module.train_dataloader()))
    assert (batch.images.shape, len(batch.tokens)) == ((6, 3, 32, 32), 12)
    images, texts = module.test_dataloader()
    assert next(iter(images)).images.shape == (1, 3, 32, 32)
    assert len(next(iter(texts)).lengths) == 5
    # What a checkpoint keeps has to be plain.
    assert json.loads(json.dumps(dict(module.hparams)))["pictures"]["size"] == 32
    with pytest.raises(ValueError, match=r"data\.pictures: expected .*crops"):
        RetrievalDataModule(str(tmp_path), pictures={"width": 3})


def test_wrong_folders_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.folder: .*recognised none"):
        RetrievalDataModule(str(tmp_path)).split("train")
    put_precomputed(tmp_path, "train", 2, 1)
    with pytest.raises(FileNotFoundError, match=r"no split 'dev'; it has \['train'\]"):
        RetrievalDataModule(str(tmp_path)).val_dataloader()
    with pytest.raises(ValueError, match=r"data\.folder: restval: not an option"):
        RetrievalDataModule(str(tmp_path), restval=True).split("train")
