"""Datasets as found in the wild: which format they are, what is in them, what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from strangers import (
    captions_of,
    features_of,
    karpathy,
    put_picture,
    put_precomputed,
    put_scan_vocabulary,
)

from goal_kernels.data import Vocabulary, open_source
from goal_kernels.data.sources import FORMATS, SourceOptions
from goal_kernels.data.sources.table import place_of, split_at
from goal_kernels.data.split import PictureSplit, PrecomputedSplit


def write_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


# Precomputed features


@pytest.mark.parametrize("inner", ["f30k_precomp", "f30k/precomp", "."])
@pytest.mark.parametrize("above", [False, True])
def test_both_styles_of_folders(tmp_path: Path, inner: str, above: bool) -> None:
    """The folder itself or the one above; VSE++ also repeats the rows of dev, for instance."""
    folder = put_precomputed(tmp_path / "data" / inner, "train", 6, 1)
    put_precomputed(folder, "dev", 4, 2, repeated=True)
    source = open_source(folder.parent if above and inner != "." else folder)
    assert source.format == "precomputed"
    assert source.names() == ["train", "dev"]
    dev = source.open("dev")
    assert isinstance(dev, PrecomputedSplit)
    np.testing.assert_array_equal(dev.features, features_of(4, 2))
    np.testing.assert_array_equal(dev.image_of_caption, np.arange(20) // 5)
    np.testing.assert_array_equal(dev.image_ids, 2000 + np.arange(4))
    assert dev.captions[5:10] == [text.strip() for text in captions_of(3)]
    assert not dev.numbered


def test_two_feature_folders_are_not_chosen_between(tmp_path: Path) -> None:
    for name in ("coco_precomp", "f30k_precomp"):
        put_precomputed(tmp_path / name, "train", 2, 1)
    with pytest.raises(ValueError, match=r"coco_precomp.*f30k_precomp.*give the one"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("features", "vocabulary"),
    [
        ("f30k_precomp", "vocab/f30k_precomp_vocab.json"),
        ("f30k/precomp", "f30k/vocab/f30k_precomp_vocab.json"),
        ("f30k/precomp", "vocab/f30k_precomp_vocab.json"),
        ("f30k/precomp", "f30k/vocab.json"),
        ("mine", "mine/vocab.json"),
        ("mine", "mine/mine_vocab.json"),
    ],
)
def test_the_vocabulary_is_found(tmp_path: Path, features: str, vocabulary: str) -> None:
    folder = put_precomputed(tmp_path / features, "train", 2, 1)
    path = put_scan_vocabulary(tmp_path / vocabulary)
    put_scan_vocabulary(tmp_path / "vocab" / "coco_precomp_vocab.json", ("other",))
    assert open_source(folder).vocabulary_files()[0] == path.resolve()
    assert Vocabulary.load(path).encode("a dog")[1:-1] == [4, 13]


def test_ids_repeated_for_each_caption(tmp_path: Path) -> None:
    folder = put_precomputed(tmp_path, "test", 3, 1)
    (folder / "test_ids.txt").write_text("\n".join(str(i) for i in (7, 9, 8) for _ in range(5)))
    assert open_source(folder).open("test").image_ids.tolist() == [7, 9, 8]
    (folder / "test_ids.txt").write_text("\n".join(str(i) for i in range(15)))
    with pytest.raises(ValueError, match=r"test_ids\.txt: expected 3 ids.*found 15"):
        open_source(folder).open("test")


def test_an_index_file_gives_ragged_captions(tmp_path: Path) -> None:
    folder = put_precomputed(tmp_path, "train", 3, 1, times=2)
    index = np.array([0, 0, 0, 1, 2, 2])
    np.save(folder / "train_image_of_caption.npy", index)
    split = open_source(folder).open("train")
    np.testing.assert_array_equal(split.image_of_caption, index)
    assert split.captions_per_image().tolist() == [3, 1, 2]
    assert open_source(folder).open("train", limit=2).captions == split.captions[:4]
    for wrong in ([0, 0, 0, 2, 2, 2], [1, 1, 1, 1, 2, 2], [0, 1, 0, 1, 2, 2], [0, 0, 1, 1, 1, 1]):
        np.save(folder / "train_image_of_caption.npy", np.array(wrong))
        with pytest.raises(ValueError, match=r"train_image_of_caption\.npy.*from 0 to 2"):
            open_source(folder).open("train")
    np.save(folder / "train_image_of_caption.npy", index[:-1])
    with pytest.raises(ValueError, match="6 integers"):
        open_source(folder).open("train")


def test_names_from_the_id_mapping(tmp_path: Path) -> None:
    folder = put_precomputed(tmp_path / "f30k" / "precomp", "dev", 2, 1)
    split = open_source(folder).open("dev")
    assert split.image_names is None
    assert split.picture(0) is None
    write_json(tmp_path / "f30k" / "id_mapping.json", {"1000": "a.jpg", "1001": "b.jpg"})
    put_picture(tmp_path / "f30k" / "flickr30k-images" / "b.jpg", 0)
    split = open_source(folder).open("dev")
    assert split.image_names == ["a.jpg", "b.jpg"]
    assert split.picture(0) is None
    assert split.picture(1) == tmp_path / "f30k" / "flickr30k-images" / "b.jpg"


# Karpathy's JSON


def test_flickr_json(tmp_path: Path) -> None:
    content = karpathy("flickr30k", {"train": 3, "val": 2, "test": 2})
    path = write_json(tmp_path / "dataset_flickr30k.json", content)
    put_picture(tmp_path / "flickr30k-images" / content["images"][0]["filename"], 0)
    source = open_source(tmp_path)
    assert (source.format, source.path) == ("karpathy", path)
    assert source.names() == ["train", "dev", "test"]
    dev = source.open(source.find("val"))
    assert isinstance(dev, PictureSplit)
    assert dev.name == "dev"
    assert dev.image_ids.tolist() == [3, 4]
    assert dev.captions == [text.strip() for image in (3, 4) for text in captions_of(image)]
    assert dev.caption_ids is not None
    assert dev.caption_ids.tolist() == [30, 31, 32, 33, 34, 40, 41, 42, 43, 44]
    train = source.open("train")
    assert train.file(0).is_file()
    assert train.image_root == tmp_path / "flickr30k-images"
    assert len(source.open("train", limit=2).captions) == 10
    with pytest.raises(ValueError, match="restval"):
        open_source(tmp_path, options=SourceOptions(restval=True)).names()


def test_coco_json_cuts_captions_and_keeps_restval_apart(tmp_path: Path) -> None:
    content = karpathy("coco", {"train": 2, "val": 1, "test": 1, "restval": 3}, times=6)
    path = write_json(tmp_path / "dataset_coco.json", content)
    put_picture(tmp_path / "images" / "train2014" / content["images"][0]["filename"], 0)
    source = open_source(path)
    train = source.open("train")
    assert train.image_ids.tolist() == [500, 501]
    assert train.captions_per_image().tolist() == [5, 5]
    assert train.caption_ids is not None
    assert train.caption_ids.tolist()[:6] == [0, 1, 2, 3, 4, 10]
    assert train.file(0).is_file()
    assert source.find("testall") == "test"
    remarks = " ".join(source.remarks())
    assert "7 captions beyond the first 5" in remarks
    assert "3 images of split restval" in remarks
    options = SourceOptions(restval=True, max_captions=0)
    whole = open_source(path, options=options).open("train")
    assert whole.image_ids.tolist() == [500, 501, 504, 505, 506]
    assert whole.captions_per_image().tolist() == [6] * 5
    assert open_source(path, options=options).remarks() == []


def test_what_a_karpathy_json_lacks_is_named(tmp_path: Path) -> None:
    path = tmp_path / "dataset_coco.json"
    write_json(path, {"images": [{"split": "train", "filename": "a.jpg"}]})
    with pytest.raises(ValueError, match=r"image 0: expected .*sentences"):
        open_source(path).names()
    write_json(path, {"images": [{"filename": "a", "sentences": [{"raw": "x"}], "cocoid": "b"}]})
    with pytest.raises(ValueError, match="image 0: id: expected an integer of 64 bits, found 'b'"):
        open_source(path).names()
    write_json(path, {"annotations": []})
    with pytest.raises(ValueError, match="a list 'images'"):
        open_source(path).names()
    path.write_text('{"images": [')
    with pytest.raises(ValueError, match=r"dataset_coco\.json: expected JSON"):
        open_source(path).names()


# Lists of {"image", "caption"}


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_lists_of_albef_and_blip(tmp_path: Path, suffix: str) -> None:
    train = [
        {"image": f"val2014/{i}.jpg", "caption": text, "image_id": f"coco_{30 + i}"}
        for i in (0, 1)
        for text in captions_of(i)
    ]
    dev = [{"image": "val2014/9.jpg", "caption": ["one ", "two"]}]
    for name, entries in (("coco_karpathy_train", train), ("coco_karpathy_val", dev)):
        text = json.dumps(entries)
        if suffix == ".jsonl":
            text = "\n".join(map(json.dumps, entries)) + "\n"
        (tmp_path / (name + suffix)).write_text(text)
    source = open_source(tmp_path)
    assert source.format == "list"
    assert source.names() == ["train", "val"]
    split = source.open("train")
    assert split.image_ids.tolist() == [30, 31]
    assert split.captions_per_image().tolist() == [5, 5]
    held = source.open(source.find("dev"))
    assert held.captions == ["one", "two"]
    assert held.numbered
    assert held.image_names == ["val2014/9.jpg"]


def test_pictures_are_found_beside_the_folder_of_the_file(tmp_path: Path) -> None:
    write_json(tmp_path / "annotations" / "my_train.json", [{"image": "a.png", "caption": "x"}])
    write_json(tmp_path / "annotations" / "other_val.json", [{"image": "b.png", "caption": "x"}])
    source = open_source(tmp_path / "annotations" / "my_train.json")
    assert source.names() == ["train"]
    assert source.open("train").image_root == tmp_path / "annotations"
    put_picture(tmp_path / "images" / "a.png", 0)
    assert source.open("train").file(0) == tmp_path / "images" / "a.png"
    options = SourceOptions(image_root=tmp_path / "elsewhere")
    named = open_source(tmp_path / "annotations" / "my_train.json", options=options)
    assert named.open("train").image_root == tmp_path / "elsewhere"


def test_list_entries_are_checked(tmp_path: Path) -> None:
    path = write_json(tmp_path / "my_train.json", [{"image": "a.jpg", "caption": 3}])
    with pytest.raises(ValueError, match=r"my_train\.json: entry 1: expected 'image'"):
        open_source(tmp_path).open("train")
    write_json(path, [{"image": "a", "caption": "x", "image_id": i} for i in (1, 2)])
    with pytest.raises(ValueError, match="one image_id, got 1 and 2"):
        open_source(path).open("train")
    path.unlink()
    (tmp_path / "my_train.jsonl").write_text('{"image": "a", "caption": "x"}\n{"image"\n')
    with pytest.raises(ValueError, match="line 2: expected JSON"):
        open_source(tmp_path).open("train")
    for name in ("a_train.json", "b_train.json"):
        write_json(tmp_path / "two" / name, [])
    with pytest.raises(ValueError, match=r"a_train\.json, b_train\.json"):
        open_source(tmp_path / "two")
    with pytest.raises(ValueError, match="expected images in split 'train', found none"):
        open_source(tmp_path / "two" / "a_train.json").open("train")


# Tables


@pytest.mark.parametrize("delimiter", [",", ";", "|"])
def test_tables_with_splits(tmp_path: Path, delimiter: str) -> None:
    rows = [
        ("file name", "image_id", "Caption", "split"),
        ("a.jpg", "5", '"one, two; three | four\tfive"', "train"),
        ("b.jpg", "6", "six", "val"),
        ("a.jpg", "5", "seven", "train"),
    ]
    text = "".join(delimiter.join(row) + "\r\n" for row in rows)
    (tmp_path / "captions.csv").write_text(text, encoding="utf-8-sig", newline="")
    options = SourceOptions(columns={"image": "file name"})
    source = open_source(tmp_path, options=options)
    assert source.format == "table"
    assert source.names() == ["train", "dev"]
    assert source.open("train").captions == ["one, two; three | four\tfive", "seven"]
    assert source.open("train").image_ids.tolist() == [5]
    assert source.open("dev").names == ["b.jpg"]
    assert source.remarks() == ["rows read: 3, from 4 lines with the header"]


def test_flickr_tables_on_the_web(tmp_path: Path) -> None:
    """results.csv: "image_name| comment_number| comment"; captions.txt: "image,caption"."""
    (tmp_path / "results.csv").write_text(
        "image_name| comment_number| comment\na.jpg| 0| Two men .\n"
    )
    options = SourceOptions(dev_share=0.0, test_share=0.0)
    assert open_source(tmp_path, options=options).open("train").captions == ["Two men ."]
    folder = tmp_path / "flickr8k"
    folder.mkdir()
    (folder / "captions.txt").write_text("image,caption\nb.jpg,A child\n")
    (folder / "readme.txt").write_text("hello, world\n")
    assert open_source(folder, options=options).open("train").names == ["b.jpg"]


def test_images_are_dealt_out_by_a_hash_of_their_name(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(300)]
    lines = ["image,caption", *(f"{name},text {k}" for name in names for k in range(2))]
    (tmp_path / "captions.csv").write_text("\n".join(lines))
    options = SourceOptions(dev_share=0.2, test_share=0.1, split_seed=3)
    source = open_source(tmp_path, options=options)
    found = {split: source.open(split).names for split in source.names()}
    assert sorted(name for part in found.values() for name in part) == sorted(names)
    for name in names:
        digest = hashlib.sha256(f"3:{name}".encode()).hexdigest()
        place = int(digest[:16], 16) / 2**64
        expected = "dev" if place < 0.2 else "test" if place < 0.3 else "train"
        assert name in found[expected]
    assert 40 <= len(found["dev"]) <= 80
    assert "20 % of the images into dev" in source.remarks()[1]
    # Frozen: a change of the rule would move images between the splits of users.
    assert [split_at(place_of(f"{i}.jpg", 0), 0.3, 0.3) for i in range(8)] == FROZEN


FROZEN = ["test", "test", "dev", "test", "train", "test", "train", "train"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,text2\na,b\n", "columns for image and caption, found 'image,text2'"),
        ("image,caption\na,b,c\n", "line 2: expected 2 columns, found 3"),
        (
            "image,caption,image_id\na,b,x\n",
            "line 2: image_id: expected an integer of 64 bits, found 'x'",
        ),
        ("image,caption,split\na,b,train\na,c,test\n", "'a': expected one split"),
        ("image,caption,image_id\na,b,1\na,c,2\n", "one image_id, got 1 and 2"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "captions.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path).names()


def test_a_named_column_has_to_be_there(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("image,caption\na,b\n")
    with pytest.raises(ValueError, match="columns for image and caption and split"):
        open_source(tmp_path, options=SourceOptions(columns={"split": "part"})).names()
    with pytest.raises(ValueError, match="keys among"):
        SourceOptions(columns={"picture": "x"})


# All of them


def test_nothing_recognised_lists_the_formats(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="found nothing at"):
        open_source(tmp_path / "none")
    with pytest.raises(ValueError, match="recognised none") as error:
        open_source(tmp_path)
    assert all(name in str(error.value) for name in FORMATS)
    with pytest.raises(ValueError, match="format 'table'"):
        open_source(put_precomputed(tmp_path, "train", 2, 1), "table")
    with pytest.raises(ValueError, match="expected one of"):
        open_source(tmp_path, "excel")


def test_options_of_other_formats_are_refused(tmp_path: Path) -> None:
    put_precomputed(tmp_path, "train", 2, 1)
    with pytest.raises(ValueError, match="restval: not an option of format 'precomputed'"):
        open_source(tmp_path, options=SourceOptions(restval=True))
    with pytest.raises(ValueError, match="max_captions"):
        SourceOptions(max_captions=-1)
    with pytest.raises(ValueError, match="below 1"):
        SourceOptions(dev_share=0.5, test_share=0.5)


def test_features_come_before_other_descriptions(tmp_path: Path) -> None:
    put_precomputed(tmp_path / "precomp", "train", 2, 1)
    write_json(tmp_path / "dataset_coco.json", karpathy("coco", {"train": 1}))
    assert open_source(tmp_path).format == "precomputed"
    assert open_source(tmp_path, "karpathy").format == "karpathy"


def test_an_unknown_split_lists_those_there(tmp_path: Path) -> None:
    put_precomputed(tmp_path, "train", 2, 1)
    with pytest.raises(FileNotFoundError, match=r"no split 'dev'; it has \['train'\]"):
        open_source(tmp_path).find("dev")
    put_precomputed(tmp_path, "validation", 2, 2)
    assert open_source(tmp_path).find("dev") == "validation"


def test_other_encodings_are_named(tmp_path: Path) -> None:
    put_precomputed(tmp_path, "train", 1, 1)
    (tmp_path / "train_caps.txt").write_bytes(b"one\ntwo caf\xe9\n")
    with pytest.raises(ValueError, match=r"train_caps\.txt: expected UTF-8.*line 2"):
        open_source(tmp_path).open("train")


def test_opening_a_large_file_reads_next_to_nothing(tmp_path: Path) -> None:
    """4 GiB of features that take no place on the disk."""
    images, shape = 16384, (32, 2048)
    header = {"descr": "<f4", "fortran_order": False, "shape": (images, *shape)}
    with (tmp_path / "train_ims.npy").open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        stream.truncate(stream.tell() + 4 * images * shape[0] * shape[1])
    (tmp_path / "train_caps.txt").write_text("text\n" * (2 * images))
    before = resident_bytes()
    split = open_source(tmp_path).open("train")
    assert split.features.shape == (images, *shape)
    assert split.features[-1].sum() == 0
    assert resident_bytes() - before < 32 << 20


def resident_bytes() -> int:
    """Memory that the process occupies, file pages it has mapped and touched included."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except FileNotFoundError:
        pytest.skip("needs /proc")
    return 4096 * pages
