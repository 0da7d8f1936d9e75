"""Pictures become tensors as published, and the same ones whichever process loads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_data import read_through
from strangers import put_picture
from torch.utils.data import DataLoader

from goal_kernels.data.picture_files import PictureError
from goal_kernels.data.split import PictureSplit
from goal_kernels.failures import reason_of
from goal_kernels.training.data import PairDataset, TextDataset, collate_pairs
from goal_kernels.training.images import (
    CROPS,
    PictureDataset,
    PictureOptions,
    evaluation_view,
    training_view,
)
from goal_kernels.training.sampler import ShuffledSampler
from goal_kernels.training.tokenizers import Tokens

Image = pytest.importorskip("PIL.Image")


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (8, 6)) -> Image.Image:
    return Image.new("RGB", size, colour)


def coordinates(width: int, height: int) -> Image.Image:
    """Red says which column a pixel is in, green which row."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = np.arange(width)
    pixels[..., 1] = np.arange(height)[:, None]
    return Image.fromarray(pixels)


class WholeCaption:
    """A tokenizer of one id a caption."""

    mask_id, first_word_id, identity, max_words = 1, 2, "test", 9

    def encode(self, caption: str) -> Tokens:
        return Tokens([len(caption)], [0])

    def count_words(self, caption: str) -> int:
        return 1

    def __len__(self) -> int:
        return 9


def test_imagenet_normalisation() -> None:
    view = evaluation_view(plain((255, 0, 51)), PictureOptions(size=4))
    assert view.shape == (3, 4, 4)
    assert view.dtype == np.float32
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]
    np.testing.assert_allclose(view[:, 1, 2], expected, rtol=1e-5)


def test_detector_normalisation_puts_blue_first() -> None:
    view = evaluation_view(plain((10, 20, 30)), PictureOptions(size=4, normalization="detector"))
    expected = [30 - 102.9801, 20 - 115.9465, 10 - 122.7717]
    np.testing.assert_allclose(view[:, 0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("half", [1, -1, -0.6]),
        ("lite", [1, -127 / 128, -76 / 128]),
        ("clip", [(1 - 0.4815) / 0.2686, -0.4578 / 0.2613, (0.2 - 0.4082) / 0.2758]),
    ],
)
def test_other_normalisations(name: str, expected: list[float]) -> None:
    view = evaluation_view(plain((255, 0, 51)), PictureOptions(size=4, normalization=name))
    np.testing.assert_allclose(view[:, 1, 2], expected, rtol=1e-3)


def test_what_is_evaluated() -> None:
    """VSE-infinity sees the whole picture, VSE++ its centre; nothing is mirrored."""
    raw = {"normalization": "detector"}
    whole = evaluation_view(coordinates(200, 100), PictureOptions(size=100, **raw))[::-1]
    shown = whole + np.array([122.7717, 115.9465, 102.9801])[:, None, None]
    assert shown[0, 0, 0] == pytest.approx(0.5, abs=0.6)
    assert shown[0, 0, -1] == pytest.approx(198.5, abs=0.6)
    assert shown[1, -1, 0] == pytest.approx(99, abs=0.6)
    centre = evaluation_view(coordinates(200, 100), PictureOptions("vsepp", 50, **raw))[::-1]
    shown = centre + np.array([122.7717, 115.9465, 102.9801])[:, None, None]
    assert shown[0, 0, 0] == pytest.approx(100 - 43.75 + 0.4, abs=0.6)
    assert shown[0, 0, -1] == pytest.approx(100 + 43.75 - 1.4, abs=0.6)
    assert shown[1, 0, 0] == pytest.approx(50 - 43.75 + 0.4, abs=0.6)


def test_sizes_are_the_papers() -> None:
    assert PictureOptions().side == 512
    assert PictureOptions("vsepp").side == 224


@pytest.mark.parametrize("crops", sorted(CROPS))
@pytest.mark.parametrize("shape", [(640, 480), (3, 500), (1, 1)])
def test_crops_stay_inside(crops: str, shape: tuple[int, int]) -> None:
    for seed in range(200):
        generator = np.random.default_rng(seed)
        left, upper, right, lower = CROPS[crops].training(*shape, generator)
        assert 0 <= left < right <= shape[0]
        assert 0 <= upper < lower <= shape[1]
        if crops == "vse_infinity" and shape == (640, 480):
            assert (right - left) / 640 == pytest.approx((lower - upper) / 480, abs=0.01)
            assert 0.59 <= (right - left) / 640 <= 1


def test_the_crops_of_vse_infinity_are_uniform_and_half_are_mirrored() -> None:
    ratios, flips = [], 0
    picture = coordinates(200, 100)
    for seed in range(400):
        left, _, right, _ = CROPS["vse_infinity"].training(200, 100, np.random.default_rng(seed))
        ratios.append((right - left) / 200)
        view = training_view(picture, PictureOptions(size=4), np.random.default_rng(seed))
        flips += view[0, 0, 0] > view[0, 0, -1]
    assert np.mean(ratios) == pytest.approx(0.8, abs=0.02)
    assert np.std(ratios) == pytest.approx(0.4 / 12**0.5, abs=0.01)
    assert 160 < flips < 240


@pytest.fixture
def split(tmp_path: Path) -> PictureSplit:
    names = [f"{i}.png" for i in range(6)]
    for number, name in enumerate(names):
        put_picture(tmp_path / name, number, (40, 30))
    return PictureSplit(
        folder=tmp_path,
        name="train",
        captions=["x" * (1 + i % 8) for i in range(12)],
        image_of_caption=np.arange(12) // 2,
        image_ids=np.arange(6),
        image_root=tmp_path,
        names=names,
    )


def loaded(split: PictureSplit, workers: int, epoch: int, position: int = 0, seed: int = 7) -> list:
    images = PictureDataset(split, PictureOptions(size=16), seed)
    pairs = PairDataset(images, TextDataset(split, WholeCaption()))
    sampler = ShuffledSampler(len(pairs), seed, batch_size=4)
    sampler.start_at(epoch, position)
    return read_through(
        DataLoader(pairs, 4, sampler=sampler, collate_fn=collate_pairs, num_workers=workers)
    )


def test_views_depend_on_seed_epoch_and_caption_alone(split: PictureSplit) -> None:
    alone, shared = loaded(split, 0, epoch=1), loaded(split, 2, epoch=1)
    resumed = loaded(split, 1, epoch=1, position=4)
    assert [b.image_ids.tolist() for b in alone] == [b.image_ids.tolist() for b in shared]
    for one, two in zip(alone, shared, strict=True):
        assert one.image_mask is None
        assert one.images.shape == (4, 3, 16, 16)
        assert torch.equal(one.images, two.images)
    assert len(resumed) == 2
    for one, two in zip(alone[1:], resumed, strict=True):
        assert torch.equal(one.images, two.images)
    images = PictureDataset(split, PictureOptions(size=16), 7)
    views = [images.training_image(0, *key) for key in ((0, 0), (0, 1), (1, 0))]
    views.append(PictureDataset(split, PictureOptions(size=16), 8).training_image(0, 0, 0))
    assert len({view.tobytes() for view in views}) == 4


def test_an_error_in_a_loader_process_is_the_sentence_of_one_without(
    split: PictureSplit,
) -> None:
    for content, kind in ((b"<html>", PictureError), (None, FileNotFoundError)):
        split.file(3).unlink()
        if content is not None:
            split.file(3).write_bytes(content)
        said = []
        for workers in (0, 2):
            with pytest.raises(kind) as raised:
                loaded(split, workers, epoch=1)
            said.append(reason_of(raised.value))
        assert said[0] == said[1] == str(said[0]).splitlines()[0]
        assert said[0].startswith(f"{split.file(3)}: ")


def test_options_are_checked() -> None:
    for options in ({"crops": "random"}, {"normalization": "mean"}, {"size": 0}):
        name = next(iter(options))
        with pytest.raises(ValueError, match=rf"data\.pictures\.{name}"):
            PictureOptions(**options)
