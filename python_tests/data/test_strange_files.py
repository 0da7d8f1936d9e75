"""Files that are not what their names say, damaged ones, and names that no file can have."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from strangers import captions_of, karpathy, put_picture, put_precomputed

from goal_kernels.cli import main
from goal_kernels.data import TruthRelation, Vocabulary, load_split, open_source, write_split
from goal_kernels.data.arrays import open_array, read_archive
from goal_kernels.data.conversion.features import RegionTsv
from goal_kernels.data.files import parse_integer, read_lines
from goal_kernels.data.inspection import inspect_source
from goal_kernels.extras import install

STRANGE = {
    b"": "an empty file",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n": "git lfs pull",
    b"\n  <!DOCTYPE html><html><head>Quota exceeded</head></html>": "a web page",
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>": "a web page",
    gzip.compress(b"image,caption\n", mtime=0): "a gzip archive",
    "image,caption\na.png,b\n".encode("utf-16"): "UTF-16",
    "image,caption\na.png,b\n".encode("utf-32"): "UTF-32 text",
    '[{"image": 1}]'.encode("utf-16-be"): "UTF-16",
    b"\x80\x04\x95\x10": "a pickle, which could run any code",
}
FILES = (
    "train_ims.npy",
    "train_caps.txt",
    "train_ids.txt",
    "train_image_of_caption.npy",
    "train_truth.npz",
    "vocab.json",
    "id_mapping.json",
)


def problems(folder: Path) -> str:
    inspection = inspect_source(open_source(folder))
    assert inspection.status == 1
    return " ".join(found.text for found in inspection.of_level("problem"))


@pytest.mark.parametrize("content", STRANGE)
@pytest.mark.parametrize("name", FILES)
def test_features_with_a_strange_file(tmp_path: Path, name: str, content: bytes) -> None:
    put_precomputed(tmp_path, "train", 3, 1)
    (tmp_path / name).write_bytes(content)
    said = problems(tmp_path)
    assert f"{tmp_path / name}: expected" in said
    assert STRANGE[content] in said
    assert "allow_pickle" not in said


@pytest.mark.parametrize("content", STRANGE)
@pytest.mark.parametrize("name", ["captions.csv", "dataset_x.json", "x_train.json", "a_dev.jsonl"])
def test_descriptions_that_are_none(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    for path in (tmp_path, tmp_path / name):
        inspection = inspect_source(open_source(path))
        assert inspection.status == 1
        assert STRANGE[content] in inspection.findings[0].text


def test_where_nothing_is_recognised_a_strange_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_bytes("image,caption\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"recognised none \(captions\.txt is UTF-16"):
        open_source(tmp_path)
    (tmp_path / "captions.txt").rename(tmp_path / "captions.csv.gz")
    (tmp_path / "captions.csv.gz").write_bytes(gzip.compress(b"image,caption\n"))
    with pytest.raises(ValueError, match=r"captions\.csv\.gz is a gzip archive; unpack it"):
        open_source(tmp_path)


def test_a_picture_that_is_a_web_page(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("image,caption,split\na.png,b,train\n")
    (tmp_path / "a.png").write_text("<html>no such picture</html>")
    assert "cannot be decoded, the first" in problems(tmp_path)
    assert "a web page" in problems(tmp_path)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


WHOLE = npy(np.ones((3, 3, 4), np.float32))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            WHOLE[:-1],
            "expected 272 bytes for float32 .3, 3, 4. .* found 271: the file is cut short",
        ),
        (WHOLE[:60], "found a damaged header"),
        (WHOLE.replace(b"3, 3, 4", b"3, 3, ("), "found a damaged header"),
        (WHOLE.replace(b"(3, 3, 4), }      ", b"(3000000, 3, 4), }"), "expected 144,000,128 bytes"),
        (WHOLE.replace(b"(3, 3, 4)", b"(-3,3,-4)"), "a shape of whole numbers"),
        (WHOLE + WHOLE, "found 544: more than one array"),
        (npy(np.ones((0, 3, 4), np.float32)), r"a filled .*found float32 \(0, 3, 4\)"),
        (npy(np.array([None])), "pickled Python objects"),
        (b"image,caption\n", "a file that begins with b'image,captio'"),
    ],
)
def test_damaged_arrays(tmp_path: Path, content: bytes, message: str) -> None:
    put_precomputed(tmp_path, "train", 3, 1)
    (tmp_path / "train_ims.npy").write_bytes(content)
    with pytest.raises(ValueError, match=rf"train_ims\.npy: .*{message}") as error:
        load_split(tmp_path, "train")
    assert "allow_pickle" not in str(error.value)


def archive(folder: Path, **members: bytes) -> Path:
    path = folder / "dev_truth.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as stream:
        for name, content in members.items():
            stream.writestr(f"{name}.npy", content)
    return path


def test_an_archive_that_claims_more_than_it_holds(tmp_path: Path) -> None:
    """12 GB by the header of a member of a few bytes: nothing of it is allocated."""
    header = npy(np.arange(4)).replace(b"(4,), }         ", b"(1500000000,), }")
    path = archive(tmp_path, indptr=header, indices=header, shape=header)
    with pytest.raises(ValueError, match=r"dev_truth\.npz: indptr\.npy: expected 12,000,000,128"):
        TruthRelation.load(path)


def test_damaged_archives(tmp_path: Path) -> None:
    TruthRelation.from_rows([np.array([0]), np.array([1])], 2).save(tmp_path / "dev_truth.npz")
    whole = (tmp_path / "dev_truth.npz").read_bytes()
    assert set(read_archive(tmp_path / "dev_truth.npz")) == {"indptr", "indices", "shape"}
    for place in (40, len(whole) // 2, len(whole) - 20):
        (tmp_path / "dev_truth.npz").write_bytes(whole[:place])
        with pytest.raises(ValueError, match=r"dev_truth\.npz: expected"):
            TruthRelation.load(tmp_path / "dev_truth.npz")
    one, two = npy(np.arange(3)), npy(np.zeros((2, 2)))
    for members, message in (
        ({"indptr": one}, r"lacks \['indices', 'shape'\]"),
        ({"indptr": one, "indices": two, "shape": npy(np.arange(2))}, r"others in \['indices'\]"),
        ({"indptr": one, "indices": one, "shape": one}, r"others in \['shape'\]"),
        ({"indptr": one, "indices": one, "shape": npy(np.array([9, 9]))}, "indptr: expected 10"),
    ):
        with pytest.raises(ValueError, match=rf"dev_truth\.npz: .*{message}"):
            TruthRelation.load(archive(tmp_path, **members))


def test_an_empty_array_is_no_error_of_its_own(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.empty((0, 3), np.float32))
    assert open_array(tmp_path / "a.npy").shape == (0, 3)


# Text


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"\xef\xbb\xbfone\ntwo\n", ["one", "two"]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"one\rtwo\r", ["one", "two"]),
        (b"one\r\ntwo\nthree", ["one", "two", "three"]),
        (b"one\n\n", ["one", ""]),
        ("one\u2028two\x85three\x0bfour\n".encode(), ["one\u2028two\x85three\x0bfour"]),
    ],
)
def test_ends_of_lines(tmp_path: Path, content: bytes, lines: list[str]) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    assert read_lines(tmp_path / "a.txt") == lines


def test_captions_with_line_ends_of_two_kinds(tmp_path: Path) -> None:
    put_precomputed(tmp_path, "train", 2, 1)
    (tmp_path / "train_caps.txt").write_bytes(b"one\rtwo\n" + b"more\n" * 9)
    assert "1 caption with a line break, first 0" in problems(tmp_path)


def test_converted_captions_have_no_line_ends_inside(tmp_path: Path) -> None:
    write_split(tmp_path, "dev", np.ones((1, 2), np.float32), ["one\r\ntwo\rthree"])
    assert (tmp_path / "dev_caps.txt").read_bytes() == b"one two three\n"


@pytest.mark.parametrize("given", ["x", "", "1_000", "1.0", True, 1.5, 2**63, None, "\u0663"])
def test_what_is_no_integer(given: object) -> None:
    with pytest.raises(ValueError, match="here: expected an integer"):
        parse_integer(given, "here")
    assert parse_integer(" -7 ", "here") == parse_integer(-7, "here") == -7


def test_ids_that_do_not_fit_are_not_to_be_thrown_away(tmp_path: Path) -> None:
    """Without its ids, a split whose rows repeat would count right images as wrong ones."""
    put_precomputed(tmp_path, "train", 3, 1)
    (tmp_path / "train_ids.txt").write_text("7\n7\n8\n8\n")
    said = problems(tmp_path)
    assert "expected 3 ids" in said
    assert "remove" not in said


# JSON


def test_a_caption_that_takes_the_place_of_another(tmp_path: Path) -> None:
    (tmp_path / "x_train.jsonl").write_text('{"image": "a.png", "caption": "b", "caption": "c"}\n')
    assert "line 1: expected JSON" in problems(tmp_path)
    assert "'caption' stands twice in one object" in problems(tmp_path)


@pytest.mark.parametrize("name", ["dataset_x.json", "x_train.json", "x_train.jsonl"])
def test_json_nested_too_deep(tmp_path: Path, name: str) -> None:
    opening = '{"images":' if name != "x_train.json" else ""
    (tmp_path / name).write_text(opening + "[" * 100_000 + "]" * 100_000)
    assert "nested too deep" in problems(tmp_path)
    (tmp_path / "vocab.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deep"):
        Vocabulary.load(tmp_path / "vocab.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "word2idx"),
        ('{"word2idx": {"a": 0, "b": "1"}}', "an integer id of each word"),
        ('{"word2idx": {"a": 0, "b": [1]}}', "an integer id of each word"),
    ],
)
def test_odd_vocabularies(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "vocab.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        Vocabulary.load(tmp_path / "vocab.json")


def test_half_a_surrogate_pair(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """It becomes U+FFFD, like NUL, is told, can be written and printed; a whole pair stays."""
    entries = [{"image": "\ud83d\0.png", "caption": ["a \ud83d dog", "a \U0001f415"]}]
    (tmp_path / "x_train.json").write_text(json.dumps(entries))
    split = open_source(tmp_path).open("train")
    assert split.captions == ["a \ufffd dog", "a \U0001f415"]
    assert split.image_names == ["\ufffd\ufffd.png"]
    assert main(["data", "inspect", str(tmp_path)]) == 1
    assert "1 caption with U+FFFD, first 0" in " ".join(capsys.readouterr().out.split())
    assert main(["data", "convert", str(tmp_path), str(tmp_path / "out"), "--min-count", "1"]) == 0
    assert open_source(tmp_path / "out").open("train").captions == split.captions


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": None}, "image 1: expected a split"),
        ({"split": " "}, "image 1: expected a split"),
        ({"split": 3}, "image 1: expected a split"),
        ({"split": "../train"}, "image 1: expected a split"),
        ({"split": "\ud83d"}, "image 1: expected a split"),
        ({"cocoid": 1.5}, "image 1: id: expected an integer"),
        ({"cocoid": float("inf")}, "image 1: id: expected an integer"),
        ({"cocoid": 10**30}, "image 1: id: expected an integer"),
        ({"filename": 5}, "image 1: expected 'filename'"),
        ({"sentences": [{"raw": None}]}, "image 1: expected 'filename' and 'sentences' with texts"),
        ({"sentences": [{"raw": "a", "sentid": "x"}]}, "image 1: sentid: expected an integer"),
    ],
)
def test_images_that_lack_something(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    content = karpathy("coco", {"train": 3})
    content["images"][1] |= change
    (tmp_path / "dataset_coco.json").write_text(json.dumps(content))
    assert message in problems(tmp_path)


def test_no_images(tmp_path: Path) -> None:
    (tmp_path / "dataset_coco.json").write_text('{"images": []}')
    assert "no image with a caption" in problems(tmp_path)
    with pytest.raises(FileNotFoundError, match="no split 'val'"):
        open_source(tmp_path).open("val")


def test_an_image_in_two_entries(tmp_path: Path) -> None:
    content = karpathy("flickr30k", {"train": 2})
    content["images"][1]["filename"] = content["images"][0]["filename"]
    (tmp_path / "dataset_flickr30k.json").write_text(json.dumps(content))
    assert "1 image name in several entries" in problems(tmp_path)


def test_capitals_in_names_of_files(tmp_path: Path) -> None:
    (tmp_path / "x_Train.JSON").write_text('[{"image": "a.png", "caption": "b"}]')
    assert open_source(tmp_path).open("train").captions == ["b"]
    (tmp_path / "x_train.json").write_text('[{"image": "a.png", "caption": "b"}]')
    with pytest.raises(ValueError, match="expected one file of split train"):
        open_source(tmp_path).names()
    put_precomputed(tmp_path / "f_precomp", "TRAIN", 2, 1)
    put_precomputed(tmp_path / "f_precomp", "dev", 2, 2)
    assert "found ['TRAIN']; rename them" in problems(tmp_path / "f_precomp")


# Places


@pytest.mark.parametrize("missing", [[0], [0, 1, 2, 3], list(range(5))])
def test_the_root_is_where_most_pictures_are(tmp_path: Path, missing: list[int]) -> None:
    """The first one alone decided, so that one picture less made all of them missing."""
    names = [f"p/{i}.png" for i in range(6)]
    for number, name in enumerate(names):
        if number not in missing:
            put_picture(tmp_path / "images" / name, number)
    put_picture(tmp_path / "p" / "9.png", 9)  # not one of them
    files = {
        "dataset_x.json": json.dumps(
            {
                "images": [
                    {"split": "train", "filename": n, "sentences": [{"raw": "x"}]} for n in names
                ]
            }
        ),
        "x_train.json": json.dumps([{"image": name, "caption": "x"} for name in names]),
        "captions.csv": "image,caption,split\n" + "".join(f"{n},x,train\n" for n in names),
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        split = open_source(tmp_path / name).open("train")
        assert split.image_root == tmp_path / "images"  # type: ignore[attr-defined]


def test_few_of_many_pictures_settle_the_root(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(1000)]
    text = "image,caption,split\n" + "".join(f"{name},x,train\n" for name in names)
    (tmp_path / "captions.csv").write_text(text)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").touch()  # not among the few that are probed first
    split = open_source(tmp_path).open("train")
    assert split.image_root == tmp_path / "images"  # type: ignore[attr-defined]
    for name in names:
        (tmp_path / name).touch()
    split = open_source(tmp_path).open("train")
    assert split.image_root == tmp_path  # type: ignore[attr-defined]


def test_splits_with_different_roots_leave_the_root_open(tmp_path: Path) -> None:
    for split, folder in (("train", "images"), ("dev", "flickr30k-images")):
        entries = []
        for i in range(2):
            put_picture(tmp_path / folder / f"{split}{i}.png", i)
            entries.append({"image": f"{split}{i}.png", "caption": captions_of(i)})
        (tmp_path / f"x_{split}.json").write_text(json.dumps(entries))
    inspection = inspect_source(open_source(tmp_path))
    assert "--data.image_root null" in inspection.command
    assert "--model.image.weights null" in inspection.command
    assert any(install("train,grid") in sentence for sentence in inspection.plan)


@pytest.mark.parametrize("name", ["x" * 500 + ".png", "a\0b.png", "."])
def test_names_that_no_file_has(tmp_path: Path, name: str) -> None:
    (tmp_path / "x_train.json").write_text(json.dumps([{"image": name, "caption": "x"}]))
    assert "1 image file missing" in problems(tmp_path)


def test_links_and_folders_in_place_of_files(tmp_path: Path) -> None:
    table = tmp_path / "captions.csv"
    table.symlink_to(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"captions\.csv: .*the link there leads nowhere"):
        open_source(tmp_path).names()
    with pytest.raises(FileNotFoundError, match=r"found nothing at .*the link there leads nowhere"):
        open_source(table)
    table.unlink()
    table.mkdir()
    with pytest.raises(ValueError, match="recognised none"):
        open_source(tmp_path)
    put_precomputed(tmp_path, "train", 2, 1)
    (tmp_path / "train_caps.txt").rename(tmp_path / "away")
    (tmp_path / "train_caps.txt").symlink_to(tmp_path / "away")
    assert len(open_source(tmp_path).open("train").captions) == 10
    (tmp_path / "train_ims.npy").unlink()
    (tmp_path / "train_ims.npy").mkdir()
    assert "train_ims.npy: expected a file that can be read" in problems(tmp_path)
    with pytest.raises(ValueError, match="expected a dataset that can be read"):
        open_source(tmp_path / ("x" * 500))


def test_a_folder_where_a_file_is_to_be_written(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").mkdir()
    with pytest.raises(IsADirectoryError, match=r"vocab\.json: expected a file or nothing"):
        Vocabulary(()).save(tmp_path / "vocab.json")
    assert [path.name for path in tmp_path.iterdir()] == ["vocab.json"]


@pytest.mark.parametrize("limit", [0, -1])
def test_limits_below_one(tmp_path: Path, limit: int) -> None:
    (tmp_path / "captions.csv").write_text("image,caption,split\na,b,train\nc,d,train\n")
    with pytest.raises(ValueError, match=f"limit: expected at least 1 image or None, got {limit}"):
        open_source(tmp_path).open("train", limit)


@pytest.mark.parametrize(
    "line",
    [b"<html>", b"5\t10\t10\t0\tAAAA\tAAAA\n", b"5\t10\t10\t900\tAAAA\tAAAA\n", b"\x1f\x8b1"],
)
def test_region_tsv_that_is_none(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "a.tsv").write_bytes(line)
    with pytest.raises(ValueError, match=r"a\.tsv: "):
        RegionTsv.index([tmp_path / "a.tsv"])
