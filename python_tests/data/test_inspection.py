"""`goal-kernels data inspect`: what it says about sound and about broken datasets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from strangers import (
    captions_of,
    features_of,
    karpathy,
    put_picture,
    put_precomputed,
    put_scan_vocabulary,
)

from goal_kernels.cli import main
from goal_kernels.data import SourceOptions, open_source
from goal_kernels.data.inspection import checks, inspect_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound one: dev's rows repeated, as some have it."""
    root = tmp_path / "f30k_precomp"
    put_precomputed(root, "train", 6, 1)
    put_precomputed(root, "dev", 4, 2, repeated=True)
    put_precomputed(root, "test", 3, 3)
    put_scan_vocabulary(tmp_path / "vocab" / "f30k_precomp_vocab.json", (*VOCABULARY,))
    return root


VOCABULARY = (
    *("a", "there", "is", "here", "one", "the", "that's"),
    *("red", "blue", "green", "pink", "grey", "gold", "black", "white"),
    *("dog", "cat", "car", "tree", "boat", "house"),
)


def problems(folder: Path, **options: bool) -> list[str]:
    inspection = inspect_source(open_source(folder), **options)
    return [f"{p.split}: {p.text}" for p in inspection.of_level("problem")]


def said(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    status = main(["data", "inspect", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, " ".join(out.split()), err


def test_a_sound_folder(folder: Path, capsys: pytest.CaptureFixture) -> None:
    status, text, _ = said(capsys, folder)
    assert status == 0
    for part in (
        "train: 30 captions for 6 rows: 5 a row; 3 regions of 4 numbers, float32",
        "dev: rows are repeated 5 times: 20 rows are 4 images",
        "vocab/f30k_precomp_vocab.json, 26 words; unknown words: train 0.0%",
        "Trains on 30 pairs of 6 images",
        f"--data.folder {folder}",
        "no problems found",
        "1000 to 1005",
    ):
        assert part in text
    assert "note" not in text


def test_the_record_for_machines(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["data", "inspect", str(folder), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["status"] == 0
    assert record["format"] == "precomputed"
    assert [(s["name"], s["images"], s["captions"]) for s in record["splits"]] == [
        ("train", 6, 30), ("dev", 4, 20), ("test", 3, 15)
    ]  # fmt: skip
    assert record["splits"][0]["captions_per_image"] == {"5": 6}
    assert record["findings"] == []


def test_the_command_can_be_run(folder: Path, tmp_path: Path) -> None:
    """Every option is one of the data module's, and builds what was inspected."""
    module = pytest.importorskip("goal_kernels.training.data_module")
    from goal_kernels.recipes import recipe_names

    table = tmp_path / "captions.csv"
    rows = [f"{i}.jpg,a caption {k}" for i in range(40) for k in range(3)]
    table.write_text("\n".join(["file,Text", *rows]))
    options = SourceOptions(columns={"image": "file", "caption": "Text"}, dev_share=0.3)
    for source in (open_source(folder), open_source(table, options=options)):
        words = inspect_source(source).command.split()
        assert words[:3] == ["goal-kernels", "fit", "--config"]
        assert words[3] in recipe_names()
        given: dict[str, Any] = {}
        for name, value in zip(words[4::2], words[5::2], strict=True):
            if name == "--model.image.weights":
                assert value == "null"  # random ones: the command runs as it stands
                continue
            plain = name.removeprefix("--data.")
            if plain.startswith("columns."):
                given.setdefault("columns", {})[plain.removeprefix("columns.")] = value
            else:
                given[plain] = yaml.safe_load(value)
        data = module.RetrievalDataModule(**given)
        assert data.split("train").captions == source.open("train").captions
        assert data.split("dev").captions == source.open("dev").captions


def captions_cut(folder: Path) -> None:
    lines = (folder / "test_caps.txt").read_text().splitlines()
    (folder / "test_caps.txt").write_text("\n".join(lines[:-1]))


def not_finite(folder: Path) -> None:
    features = features_of(6, 1)
    features[2, 1, 3], features[4, 0, 0] = np.nan, np.inf
    np.save(folder / "train_ims.npy", features)


def too_large(folder: Path) -> None:
    features = features_of(6, 1).astype(np.float64)
    features[3, 2, 1] = -1e300
    np.save(folder / "train_ims.npy", features)


def all_zero(folder: Path) -> None:
    features = features_of(6, 1)
    features[5] = 0
    np.save(folder / "train_ims.npy", features)


def pickled(folder: Path) -> None:
    np.save(folder / "test_ims.npy", np.array([{}, {}, {}], dtype=object))


def torn(folder: Path) -> None:
    path = folder / "test_ims.npy"
    path.write_bytes(path.read_bytes()[:-20])


def no_captions(folder: Path) -> None:
    (folder / "test_caps.txt").unlink()


def id_twice(folder: Path) -> None:
    (folder / "train_ids.txt").write_text("7\n8\n8\n-9\n10\n11\n")


def ids_of_rows(folder: Path) -> None:
    (folder / "dev_ids.txt").write_text("\n".join(map(str, range(20))))


def too_many_ids(folder: Path) -> None:
    (folder / "train_ids.txt").write_text("\n".join(map(str, range(7))))


def empty_captions(folder: Path) -> None:
    lines = (folder / "test_caps.txt").read_text().splitlines()
    lines[3] = lines[7] = "  "
    (folder / "test_caps.txt").write_text("\n".join(lines))


def shared_ids(folder: Path) -> None:
    (folder / "test_ids.txt").write_text("5\n1003\n6\n")


def shared_contents(folder: Path) -> None:
    for split in ("train", "dev", "test"):
        (folder / f"{split}_ids.txt").unlink()
    features = features_of(3, 3)
    features[1] = features_of(6, 1)[4]
    np.save(folder / "test_ims.npy", features)
    lines = (folder / "test_caps.txt").read_text().splitlines()
    lines[5:7] = captions_of(5)[:2]
    (folder / "test_caps.txt").write_text("\n".join(lines))


def broken_vocabulary(folder: Path) -> None:
    (folder / "vocab.json").write_text('{"word2idx": {"dog": 5}}')


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (captions_cut, "test: .*test_caps.txt.* 3 feature rows, got 14 captions .4.667 a row; 5 a"),
        (not_finite, "train: 2 images with NaN or infinite features, rows 2, 4"),
        (all_zero, "train: 1 image with features that are zero throughout, rows 5"),
        (pickled, r"test: .*test_ims\.npy: expected numbers, found pickled Python objects"),
        (torn, r"test: .*test_ims\.npy: expected 272 bytes.*found 252: the file is cut short"),
        (no_captions, r"test: no file .*test_caps\.txt"),
        (id_twice, "train: 1 image ids stand for several images: 8"),
        (id_twice, "train: 1 image ids are out of range: -9"),
        (ids_of_rows, "dev: identical consecutive feature rows have different ids.*row 1"),
        (too_many_ids, r"train: .*train_ids\.txt: expected 6 ids.*found 7"),
        (
            too_large,
            "train: 1 image with NaN or infinite features, rows 3 of train_ims.npy, once they are",
        ),
        (empty_captions, "test: 2 captions empty, first 3, 7"),
        (shared_ids, "test: 1 images are in train too, by id: 1003"),
        (shared_contents, "test: 2 captions are in train too, with identical features"),
        (broken_vocabulary, r"None: vocabulary .*vocab\.json: expected the ids 0"),
    ],
)
def test_what_is_wrong_is_said(
    folder: Path, spoil: Callable[[Path], None], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert problems(folder) == []
    spoil(folder)
    found = problems(folder)
    assert any(re.search(message, problem) for problem in found), found
    status, text, err = said(capsys, folder)
    assert status == 1
    assert "problems found" in text
    assert "Traceback" not in text + err


def test_images_that_agree_at_the_start_only_are_no_leak(folder: Path) -> None:
    shared_contents(folder)
    features = np.load(folder / "test_ims.npy")
    features[1, 2, 3] += 1
    np.save(folder / "test_ims.npy", features)
    assert problems(folder) == []


def test_a_pickled_vocabulary_is_not_read(folder: Path) -> None:
    (folder.parent / "vocab" / "f30k_precomp_vocab.json").unlink()
    (folder / "f30k_precomp_vocab.pkl").write_bytes(b"\x80\x04boom")
    inspection = inspect_source(open_source(folder))
    assert inspection.status == 0
    assert "a pickle can run any code" in inspection.findings[0].text
    assert "`fit` builds one" in inspection.vocabulary


def test_ragged_captions_have_a_histogram(folder: Path, capsys: pytest.CaptureFixture) -> None:
    index = np.repeat(np.arange(6), [10, 10, 5, 3, 1, 1])
    np.save(folder / "train_image_of_caption.npy", index)
    status, text, _ = said(capsys, folder)
    assert status == 0
    assert "1 to 10" in text
    assert "10 2 images ####" in text
    assert "train_image_of_caption.npy says which" in text


def test_only_a_test_split(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    put_precomputed(tmp_path, "testall", 3, 1)
    status, text, _ = said(capsys, tmp_path)
    assert status == 0
    assert "Nothing can be trained: there is no usable split train" in text
    assert "command" not in text


def test_captions_longer_than_training_reads(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = put_precomputed(tmp_path, "train", 4, 1) / "train_caps.txt"
    lines = path.read_text().splitlines()
    lines[3] = "a dog, " * 1500
    lines[5] = "dog " * 10**6
    path.write_text("\n".join(lines) + "\n")
    _, text, _ = said(capsys, tmp_path)
    plain = " ".join(text.split())
    assert "2 captions of more than 256 words, the first 3 (counted from 0) of 3,000:" in plain


def test_what_cannot_be_read_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ([tmp_path / "none"], "found nothing at"),
        ([tmp_path / "empty"], "recognised none"),
        ([put_precomputed(tmp_path, "train", 2, 1), "--restval"], "not an option of format"),
        ([tmp_path, "--column", "image"], "expected NAME=HEADER"),
    ):
        status, out, err = said(capsys, *arguments)
        assert status == 2
        assert out == ""
        assert message in err
        assert "Traceback" not in err


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    content = karpathy("coco", {"train": 4, "val": 2, "test": 2, "restval": 1}, times=6)
    path = tmp_path / "dataset_coco.json"
    path.write_text(json.dumps(content))
    for number, entry in enumerate(content["images"]):
        put_picture(tmp_path / "images" / entry["filepath"] / entry["filename"], number)
    return path


def test_pictures_are_looked_for_and_decoded(pictures: Path, capsys: pytest.CaptureFixture) -> None:
    status, text, _ = said(capsys, pictures)
    assert status == 0
    assert "9 captions beyond the first 5" in text
    assert "--data.restval true" in text
    assert f"--data.image_root {pictures.parent / 'images'} --data.restval false" in text
    assert "--model.image.weights FILE" in text
    files = sorted((pictures.parent / "images" / "train2014").iterdir())
    files[1].write_bytes(files[1].read_bytes()[:200])
    files[2].unlink()
    status, text, _ = said(capsys, pictures, "--restval", "--max-captions", "0")
    assert status == 1
    assert f"1 image file missing, the first {files[2]}" in text
    assert f"1 image file that cannot be decoded, the first {files[1]}" in text
    assert "--data.restval true --data.max_captions 0" in text


def test_pictures_of_other_depths_are_named(pictures: Path, capsys: pytest.CaptureFixture) -> None:
    from PIL import Image

    files = sorted((pictures.parent / "images" / "train2014").iterdir())
    for file in files[:2]:
        Image.new("I;16", (8, 8), 300).save(file, "PNG")
    status, text, _ = said(capsys, pictures)
    assert status == 0
    said_so = "2 image files with integers of 0 to 65535 scaled to 8 bits, the first"
    assert f"{said_so} {files[0]}" in text


def test_a_wrong_picture_folder(pictures: Path, capsys: pytest.CaptureFixture) -> None:
    status, text, _ = said(capsys, pictures, "--image-root", pictures.parent / "pictures")
    assert status == 1
    assert "4 image files missing (all of them: is the folder right? --image-root" in text


def test_many_pictures_are_sampled(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(checks, "DECODED_PICTURES", 2)
    broken = sorted((pictures.parent / "images" / "train2014").iterdir())[1]
    broken.write_bytes(b"not a picture")
    assert said(capsys, pictures)[0] == 0
    assert said(capsys, pictures, "--all")[0] == 1


def test_the_same_picture_in_two_splits(tmp_path: Path) -> None:
    for name in "abcd":
        put_picture(tmp_path / f"{name}.png", ord(name))
    for split, names in (("train", "abc"), ("test", "cd"), ("dev", "d")):
        entries = [{"image": f"{name}.png", "caption": f"a {name}"} for name in names]
        (tmp_path / f"{split}.json").write_text(json.dumps(entries))
    found = problems(tmp_path)
    assert len(found) == 2
    assert "test: 1 images are in train too, by name: c.png" in found[0]
    assert "test: 1 images are in dev too, by name: d.png" in found[1]
