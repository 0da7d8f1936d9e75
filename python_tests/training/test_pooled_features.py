"""`goal-kernels data features`: what the backbone sees of every picture, averaged, once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from goal_kernels.cli import main
from goal_kernels.data import load_split, open_source, write_split
from goal_kernels.training.backbones import BACKBONES
from goal_kernels.training.backbones.base import Backbone, flattened
from goal_kernels.training.images import PictureDataset, PictureOptions

CHANNELS = 5


def stand_in(name: str, weights: str | None, pretrained: bool = True) -> Backbone:
    torch.manual_seed(int(name))
    body = nn.Sequential(nn.Conv2d(3, CHANNELS, 4, 4), nn.BatchNorm2d(CHANNELS), nn.Dropout(0.9))
    return Backbone(body, CHANNELS, lambda body, images: flattened(body(images)))


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "stand_in", stand_in)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two splits of noise, ragged captions, groups."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    (folder / "images").mkdir(parents=True)
    for name, count, first in (("train", 5, 7), ("test", 2, 100)):
        entries = []
        for row in range(count):
            file = f"images/{name}{row}.png"
            Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(folder / file)
            captions = [f"{name} {row}", f"picture {row}"][: 1 + row % 2]
            entry = {"image": file, "caption": captions, "image_id": first + 10 * row}
            entries.append({**entry, "group": row % 2} if name == "train" else entry)
        (folder / f"{name}.json").write_text(json.dumps(entries))
    return folder


def test_the_mean_of_the_cells(pictures: Path, capsys: pytest.CaptureFixture) -> None:
    out = pictures / "pooled"
    seen = ("--size", "8", "--normalization", "half", "--batch", "2")
    assert (
        main(["data", "features", str(pictures), str(out), "--backbone", "stand_in:3", *seen]) == 0
    )
    assert "5 images" in capsys.readouterr().out
    source, backbone = open_source(pictures), stand_in("3", None).eval()
    for name in ("train", "test"):
        split, made = source.open(name), load_split(out, name)
        options = PictureOptions(size=8, normalization="half")
        images = torch.from_numpy(np.stack([*PictureDataset(split, options, 0)]))
        with torch.no_grad():
            expected = backbone(images).mean(1).numpy()
        np.testing.assert_allclose(made.features[:, 0], expected, rtol=1e-5, atol=1e-6)
        assert made.captions == split.captions
        assert made.image_ids.tolist() == split.image_ids.tolist()
        assert np.array_equal(made.image_of_caption, split.image_of_caption)
        assert (made.groups is None) == (name == "test")
        assert made.picture(1) is not None
        assert made.picture(1).samefile(split.file(1))
    assert load_split(out, "train").groups.tolist() == [0, 1, 0, 1, 0]


def test_what_cannot_be_encoded(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_split(tmp_path / "features", "train", np.eye(2), ["a", "b"])
    given = ["data", "features", str(tmp_path / "features"), str(tmp_path / "out")]
    assert main([*given, "--backbone", "stand_in:3"]) == 2
    assert "expected pictures to encode, found features" in capsys.readouterr().err
    given[2] = str(pictures)
    assert main([*given, "--backbone", "unknown:x", "--overwrite"]) == 2
    assert "model.image.backbone: library" in capsys.readouterr().err
