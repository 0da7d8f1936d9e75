"""`goal-kernels data convert`: what comes out equals what went in."""

from __future__ import annotations

import base64
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from strangers import features_of, karpathy, put_picture, put_precomputed

from goal_kernels.cli import main
from goal_kernels.data import Vocabulary, load_split, open_source, write_split
from goal_kernels.data.conversion import features as conversion_features
from goal_kernels.data.split import PictureSplit


def convert(*arguments: object) -> int:
    return main(["data", "convert", *map(str, arguments)])


@pytest.mark.parametrize("style", ["f30k_precomp", "f30k/precomp"])
@pytest.mark.parametrize("half", [False, True])
def test_precomputed_folders(tmp_path: Path, style: str, half: bool) -> None:
    folder = put_precomputed(tmp_path / "old" / style, "train", 6, 1)
    put_precomputed(folder, "val", 4, 2, repeated=True)
    out = tmp_path / "new"
    assert convert(tmp_path / "old", out, *(["--half"] if half else [])) == 0
    dtype = np.float16 if half else np.float32
    for name, old_name, images, seed in (("train", "train", 6, 1), ("dev", "val", 4, 2)):
        stored = np.load(out / f"{name}_ims.npy")
        assert stored.dtype == dtype
        np.testing.assert_array_equal(stored, features_of(images, seed).astype(dtype))
        old, new = load_split(folder, old_name), load_split(out, name)
        assert new.captions == old.captions
        np.testing.assert_array_equal(new.image_of_caption, old.image_of_caption)
        np.testing.assert_array_equal(new.image_ids, old.image_ids)
    assert not list(out.glob("*.partial"))
    assert not list(out.glob("*_image_of_caption.npy"))


def test_flat_features_stay_flat(tmp_path: Path) -> None:
    put_precomputed(tmp_path / "old", "train", 3, 1)
    np.save(tmp_path / "old" / "train_ims.npy", features_of(3, 1)[:, 0])
    assert convert(tmp_path / "old", tmp_path / "new") == 0
    np.testing.assert_array_equal(
        np.load(tmp_path / "new" / "train_ims.npy"), features_of(3, 1)[:, 0]
    )


def test_ragged_captions_survive(tmp_path: Path) -> None:
    index = np.array([0, 0, 1, 1, 1, 2])
    captions = [f"caption {i}" for i in range(6)]
    write_split(tmp_path / "old", "train", features_of(3, 1), captions, image_of_caption=index)
    assert convert(tmp_path / "old", tmp_path / "new") == 0
    split = load_split(tmp_path / "new", "train")
    np.testing.assert_array_equal(split.image_of_caption, index)
    assert split.captions == captions
    write_split(tmp_path / "new", "train", features_of(3, 1), captions)
    assert load_split(tmp_path / "new", "train").image_of_caption.tolist() == [0, 0, 1, 1, 2, 2]


def test_truth_scenes_and_oracle_go_along(tmp_path: Path) -> None:
    from goal_kernels.data.goalworld import generate_goalworld

    generate_goalworld(tmp_path / "old", preset="tiny", seed=3)
    assert convert(tmp_path / "old", tmp_path / "new", "--splits", "test", "--half") == 0
    old, new = load_split(tmp_path / "old", "test"), load_split(tmp_path / "new", "test")
    assert old.truth is not None
    assert new.truth is not None
    np.testing.assert_array_equal(old.truth.indices, new.truth.indices)
    assert old.scenes == new.scenes
    assert list(old.image_names or ()) == list(new.image_names or ())
    assert (tmp_path / "new" / "oracle.json").is_file()
    assert not (tmp_path / "new" / "train_ims.npy").exists()


def test_the_vocabulary_is_of_train_alone(tmp_path: Path) -> None:
    write_split(tmp_path / "old", "train", features_of(2, 1), ["dog dog", "dog cat dog"])
    write_split(tmp_path / "old", "dev", features_of(2, 2), ["bird bird bird", "bird cat cat cat"])
    old = tmp_path / "old"
    words = {}
    for name, options in {
        "default": [],
        "both": ["--vocabulary-from", "train,dev"],
        "rare": ["--min-count", 1],
    }.items():
        assert convert(old, tmp_path / name, *options) == 0
        words[name] = set(Vocabulary.load(tmp_path / name / "vocab.json").words[4:])
    assert words == {"default": {"dog"}, "both": {"dog", "bird", "cat"}, "rare": {"dog", "cat"}}
    own = tmp_path / "both" / "vocab.json"
    assert convert(old, tmp_path / "kept", "--vocabulary", own) == 0
    assert (tmp_path / "kept" / "vocab.json").read_bytes() == own.read_bytes()


def test_pictures_become_lists(tmp_path: Path) -> None:
    content = karpathy("coco", {"train": 3, "val": 2, "restval": 1}, times=6)
    content["images"][1]["sentences"] = content["images"][1]["sentences"][:2]
    (tmp_path / "dataset_coco.json").write_text(json.dumps(content))
    for number, entry in enumerate(content["images"]):
        put_picture(tmp_path / "images" / entry["filepath"] / entry["filename"], number)
    assert convert(tmp_path, tmp_path / "out" / "coco", "--restval") == 0
    old = open_source(tmp_path).open("train")
    new = open_source(tmp_path / "out" / "coco").open("train")
    assert isinstance(old, PictureSplit)
    assert isinstance(new, PictureSplit)
    assert new.captions_per_image().tolist() == [5, 2, 5, 5]
    assert new.captions[:12] == old.captions
    assert new.image_ids.tolist() == [500, 501, 502, 505]
    assert new.caption_ids is not None
    assert old.caption_ids is not None
    assert new.caption_ids.tolist()[:12] == old.caption_ids.tolist()
    assert [new.file(row).resolve() for row in range(3)] == [old.file(row) for row in range(3)]
    assert open_source(tmp_path / "out" / "coco").names() == ["train", "dev"]


def put_tsv(path: Path, features: dict[int, np.ndarray]) -> Path:
    lines = []
    for key, array in features.items():
        boxes = np.zeros((len(array), 4), dtype="<f4")
        parts = [base64.b64encode(part.astype("<f4").tobytes()).decode() for part in (boxes, array)]
        lines.append("\t".join([str(key), "640", "480", str(len(array)), *parts]))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("dataset", ["coco", "flickr30k"])
def test_bottom_up_features_join_pictures(tmp_path: Path, dataset: str) -> None:
    """COCO by its ids; Flickr by the number in the file name. Fewer boxes are padded with zeros."""
    content = karpathy(dataset, {"train": 3, "val": 1})
    if dataset == "flickr30k":
        for entry in content["images"]:
            entry["filename"] = f"{7000 + entry['imgid']}.jpg"
    (tmp_path / f"dataset_{dataset}.json").write_text(json.dumps(content))
    first = {"coco": 500, "flickr30k": 7000}[dataset]
    regions = {first + i: features_of(3, i)[0][: 1 + i % 3] for i in range(4)}
    one = put_tsv(tmp_path / "a.tsv", {key: regions[key] for key in (first + 3, first)})
    two = put_tsv(tmp_path / "b.tsv", {key: regions[key] for key in (first + 2, first + 1)})
    source = tmp_path / f"dataset_{dataset}.json"
    assert convert(source, tmp_path / "out", "--features", one, two) == 0
    train = load_split(tmp_path / "out", "train")
    assert train.features.shape == (3, 3, 4)
    for row in range(3):
        array = regions[first + row]
        np.testing.assert_array_equal(train.features[row, : len(array)], array)
        assert not train.features[row, len(array) :].any()
    assert len(train.captions) == 15
    assert train.image_names == [
        "/".join(filter(None, (e.get("filepath"), e["filename"]))) for e in content["images"][:3]
    ]


def test_bad_tsv_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "dataset_coco.json").write_text(json.dumps(karpathy("coco", {"train": 2})))
    tsv = put_tsv(tmp_path / "a.tsv", {500: features_of(1, 0)[0]})
    assert convert(tmp_path / "dataset_coco.json", tmp_path / "out", "--features", tsv) == 2
    assert "expected features of all 2 images in a.tsv" in capsys.readouterr().err
    lines = tsv.read_text().split("\t")
    tsv.write_text("\t".join([*lines[:5], lines[5][:21]]) + "\nx\n")
    assert convert(tmp_path / "dataset_coco.json", tmp_path / "out", "--features", tsv) == 2
    assert "a.tsv: line 2: expected 6 columns" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (1e6, ["--half"], "too large for float16; leave out"),
        (np.nan, ["--half"], "not finite; extract"),
        (1e300, [], "too large for float32; extract"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path,
    value: float,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture,
) -> None:
    put_precomputed(tmp_path / "old", "train", 3, 1)
    features = features_of(3, 1, "float64")
    features[2, 0, 1] = value
    np.save(tmp_path / "old" / "train_ims.npy", features)
    assert convert(tmp_path / "old", tmp_path / "new", *options) == 2
    error = capsys.readouterr().err
    assert f"image 2 of train_ims.npy: {message}" in error
    assert not list((tmp_path / "new").glob("*ims*"))


def test_folders_are_not_overwritten_unasked(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    old = put_precomputed(tmp_path / "old", "train", 3, 1)
    assert convert(old, old) == 2
    assert "another folder than the source's own" in capsys.readouterr().err
    assert convert(old, tmp_path / "new") == 0
    assert convert(old, tmp_path / "new") == 2
    assert "it holds a conversion" in capsys.readouterr().err
    assert convert(old, tmp_path / "new", "--overwrite", "--half") == 0
    assert np.load(tmp_path / "new" / "train_ims.npy").dtype == np.float16
    (tmp_path / "pictures.csv").write_text("image,caption\na.jpg,x\n")
    shares = ("--dev-share", "0", "--test-share", "0")
    assert convert(tmp_path / "pictures.csv", tmp_path / "p", "--half", *shares) == 2
    assert "only pictures" in capsys.readouterr().err


def test_a_full_disk_is_said_before_work_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    old = put_precomputed(tmp_path / "old", "train", 3, 1)
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(conversion_features.shutil, "disk_usage", lambda _: usage)
    assert convert(old, tmp_path / "new") == 2
    assert "GB are free; --half takes half" in capsys.readouterr().err


def test_features_pass_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from goal_kernels.data import feature_rows

    monkeypatch.setattr(feature_rows, "_BLOCK_BYTES", 1 << 16)
    features = np.random.default_rng(0).random((400, 8, 1024), dtype=np.float32)  # 13 MB
    write_split(tmp_path / "old", "train", features, ["x"] * 400)
    source = open_source(tmp_path / "old")
    from goal_kernels.data.conversion import convert as convert_source

    tracemalloc.start()
    convert_source(source, tmp_path / "new", half=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 21
    stored = np.load(tmp_path / "new" / "train_ims.npy")
    np.testing.assert_array_equal(stored, features.astype(np.float16))


def test_nothing_and_two_splits_of_one_name_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Both would be dev.json: one would take the place of the other."""
    folder = tmp_path / "lists"
    folder.mkdir()
    for name in ("train", "val", "dev"):
        entries = [{"image": f"{name}.png", "caption": "a dog"}]
        (folder / f"x_{name}.json").write_text(json.dumps(entries))
    assert convert(folder, tmp_path / "new") == 2
    assert "expected one split to call dev, found ['dev', 'val']" in capsys.readouterr().err
    (tmp_path / "captions.csv").write_text("image,caption\n")
    assert convert(tmp_path / "captions.csv", tmp_path / "new") == 2
    assert "expected images with captions, found none" in capsys.readouterr().err
