"""A dataset that somebody else made trains and is tested, whichever way it lies on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from strangers import put_precomputed

pytest.importorskip("pytorch_lightning")

from goal_kernels.cli import main
from goal_kernels.data import Vocabulary
from goal_kernels.training.data_module import RetrievalDataModule


def put_vsepp_style(root: Path) -> Path:
    """`{name}_precomp/`; the rows of dev repeated for each caption, as in some downloads."""
    folder = root / "f30k_precomp"
    for split, images, seed in (("train", 24, 1), ("dev", 8, 30), ("test", 8, 20)):
        put_precomputed(folder, split, images, seed, repeated=split == "dev")
    return folder


def put_vse_infinity_style(root: Path) -> Path:
    """`{name}/precomp/` beside other things, the folder above given; no repeated rows, no ids."""
    folder = root / "f30k" / "precomp"
    for split, images, seed in (("train", 24, 1), ("val", 8, 30), ("test", 8, 20)):
        put_precomputed(folder, split, images, seed)
        (folder / f"{split}_ids.txt").unlink()
    (root / "f30k" / "flickr30k-images").mkdir()
    return folder.parent


def arguments_of(folder: Path, runs: Path) -> list[str]:
    return [
        *("fit", "--config", "goalworld_tiny", "--data.folder", str(folder)),
        *("--data.dev_split", "dev", "--data.test_split", "test", "--data.batch_size", "16"),
        *("--trainer.max_epochs", "1", "--run.root", str(runs)),
    ]


def fit(folder: Path, runs: Path, name: str) -> dict:
    threads = torch.get_num_threads()
    status = main([*arguments_of(folder, runs), "--run.name", name])
    torch.set_num_threads(threads)
    assert status == 0
    return json.loads((runs / name / "metrics.json").read_text())


def test_all_ways_give_one_result(tmp_path: Path) -> None:
    """Equal features and captions are equal data: same order, same steps, same metrics."""
    ways = (put_vsepp_style, put_vse_infinity_style)
    results = [fit(put(tmp_path / put.__name__), tmp_path / "runs", put.__name__) for put in ways]
    for metrics in results:
        assert metrics["split"] == "test"
        assert metrics["i2t"] == results[0]["i2t"]
        assert metrics["t2i"] == results[0]["t2i"]
    vocabulary = Vocabulary.load(tmp_path / "runs" / "put_vsepp_style" / "vocab.json")
    assert "dog" in vocabulary
    assert not list((tmp_path / "put_vsepp_style").rglob("vocab.json"))


def test_half_the_place_gives_the_same_batches(tmp_path: Path) -> None:
    """Of figures that float16 holds exactly; a conversion keeps the order of images."""
    folder = put_vsepp_style(tmp_path)
    for path in folder.glob("*_ims.npy"):
        np.save(path, np.round(256 * np.load(path)) / np.float32(256))
    assert main(["data", "convert", str(folder), str(tmp_path / "half"), "--half"]) == 0
    whole, half = (
        list(RetrievalDataModule(str(path), batch_size=16).train_dataloader())
        for path in (folder, tmp_path / "half")
    )
    assert len(whole) == len(half) == 7
    for one, two in zip(whole, half, strict=True):
        fields = [(a, b) for a, b in zip(one, two, strict=True) if a is not None]
        assert all(torch.equal(a, b) for a, b in fields)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_features_that_float32_cannot_hold_stop_it_before_the_first_step(
    tmp_path: Path, split: str, capsys: pytest.CaptureFixture
) -> None:
    """Also those of test, which is read when training is over; no folder is left behind."""
    folder = put_vsepp_style(tmp_path)
    features = np.load(folder / f"{split}_ims.npy").astype(np.float64)
    features[3, 2, 1] = 1e300
    np.save(folder / f"{split}_ims.npy", features)
    status = main(arguments_of(folder, tmp_path / "runs"))
    error = capsys.readouterr().err
    assert status == 2
    assert f"{split}_ims.npy: expected finite numbers within float32" in error
    assert "first image 3" in error or split == "dev"  # whose rows are repeated
    assert not list((tmp_path / "runs").glob("*"))


def test_what_is_wrong_with_the_folder_is_said_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = put_vsepp_style(tmp_path)
    (folder / "test_ims.npy").unlink()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "page.json").write_text("<html></html>")
    for place, message in (
        (folder, "no split 'test'; it has ['train', 'dev']"),
        (tmp_path / "loop", "found nothing at"),
        (tmp_path / ("x" * 500), "data.folder: "),
        (tmp_path / "page.json", "expected JSON, found a web page"),
    ):
        assert main(arguments_of(place, tmp_path / "runs")) == 2
        assert message in capsys.readouterr().err
