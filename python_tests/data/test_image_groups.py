"""Several pictures of one thing: the column, key or file that says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from goal_kernels.data import open_source, write_split
from goal_kernels.data.conversion import convert
from goal_kernels.data.inspection import inspect_source
from goal_kernels.data.inspection.findings import describe
from goal_kernels.data.sources import SourceOptions
from goal_kernels.data.split import Split

CATS = [("a.png", "cat", 7), ("b.png", "a cat", "7"), ("c.png", "dog", " the  dog ")]
"""Images with a caption and a group: 7 and "7" are one."""


def write_karpathy(folder: Path, rows: list) -> Path:
    images = [
        {"split": "train", "filename": image, "sentences": [{"raw": text}], "group": group}
        for image, text, group in rows
    ]
    path = folder / "dataset_mine.json"
    path.write_text(json.dumps({"images": images}))
    return path


def write_list(folder: Path, rows: list, split: str = "train") -> Path:
    path = folder / f"my_{split}.json"
    entries = [{"image": image, "caption": text, "group": g} for image, text, g in rows]
    path.write_text(json.dumps(entries))
    return path


def write_table(folder: Path, rows: list) -> Path:
    path = folder / "captions.tsv"
    lines = ["\t".join(map(str, (*row, "train"))) for row in rows]
    path.write_text("\n".join(["image\tcaption\tgroup\tsplit", *lines]) + "\n")
    return path


def write_features(folder: Path, rows: list) -> Path:
    write_split(folder, "train", np.eye(len(rows)), [text for _, text, _ in rows])
    lines = [f"{group}\n" for _, _, group in rows]
    (folder / "train_groups.txt").write_text("".join(lines))
    return folder


WRITERS = [write_karpathy, write_list, write_table, write_features]
formats = pytest.mark.parametrize("write", WRITERS, ids=["karpathy", "list", "table", "features"])


@formats
def test_groups_are_compared_as_text(tmp_path: Path, write) -> None:
    source = open_source(write(tmp_path, CATS))
    split = source.open("train")
    assert split.groups is not None
    assert split.groups.dtype == np.int64
    assert split.groups.tolist() == [0, 0, 1]
    assert list(split.group_names or ()) == ["7", "7", "the dog"]
    assert source.open("train", limit=2).groups.tolist() == [0, 0]
    inspection = inspect_source(source)
    assert inspection.record()["splits"][0]["groups"] == 2
    assert "train: 3 images of 2 groups" in describe(inspection)


@formats
def test_a_group_that_only_some_images_have_is_refused(tmp_path: Path, write) -> None:
    rows = [*CATS[:2], ("c.png", "dog", "")]
    source = open_source(write(tmp_path, rows))
    with pytest.raises(ValueError, match=r"of every image or of none, found 2 for 3 .*(c\.png|2;)"):
        source.open("train")
    none = open_source(write(tmp_path, [(image, text, "") for image, text, _ in rows]))
    assert none.open("train").groups is None
    assert inspect_source(none).record()["splits"][0]["groups"] is None


@pytest.mark.parametrize(("write", "place"), [(write_list, "entry 3"), (write_table, "line 4")])
def test_all_rows_of_an_image_have_its_group(tmp_path: Path, write, place: str) -> None:
    source = open_source(write(tmp_path, [*CATS[:2], ("a.png", "another", 8)]))
    with pytest.raises(ValueError, match=rf"{place}: image 'a.png': expected one group, got 7 and"):
        source.open("train")


@pytest.mark.parametrize("group", [True, 1.5, [1]])
def test_a_group_is_an_integer_or_a_text(tmp_path: Path, group: object) -> None:
    with pytest.raises(ValueError, match="entry 1: group: expected an integer or a text"):
        open_source(write_list(tmp_path, [("a.png", "cat", group)])).open("train")


def test_groups_of_features_may_be_repeated_for_every_caption(tmp_path: Path) -> None:
    """As the rows and the ids are in some files; another number of lines is refused."""
    write_split(tmp_path, "train", np.eye(2), list("abcd"), groups=["x", "y"])
    assert open_source(tmp_path).open("train").group_names == ["x", "y"]
    np.save(tmp_path / "train_ims.npy", np.eye(2).repeat(2, axis=0))
    (tmp_path / "train_ids.txt").unlink()
    (tmp_path / "train_groups.txt").write_text("x\nx\ny\ny\n")
    assert open_source(tmp_path).open("train").group_names == ["x", "y"]
    (tmp_path / "train_groups.txt").write_text("x\nx\ny\n")
    with pytest.raises(ValueError, match=r"train_groups\.txt: expected 4 groups.*found 3"):
        open_source(tmp_path).open("train")
    write_split(tmp_path, "train", np.eye(2), list("abcd"))
    assert open_source(tmp_path).open("train").groups is None
    with pytest.raises(ValueError, match="groups: expected 2 texts or integers"):
        write_split(tmp_path, "train", np.eye(2), list("abcd"), groups=["x"])


@pytest.mark.parametrize("write", [write_list, write_features], ids=["list", "features"])
def test_a_conversion_keeps_groups(tmp_path: Path, write) -> None:
    (tmp_path / "given").mkdir()
    convert(open_source(write(tmp_path / "given", CATS)), tmp_path / "made")
    assert open_source(tmp_path / "made").open("train").group_names == ["7", "7", "the dog"]


def test_a_group_in_two_splits_is_leakage(tmp_path: Path) -> None:
    write_list(tmp_path, CATS)
    write_list(tmp_path, [("d.png", "black cat", 7), ("e.png", "cow", 9)], "test")
    found = [finding.text for finding in inspect_source(open_source(tmp_path)).findings]
    assert any("1 groups are in train too, by group: 7;" in text for text in found)


@pytest.mark.parametrize("things", [20, 400])
def test_images_of_a_group_are_dealt_into_one_split(tmp_path: Path, things: int) -> None:
    """Of a table without a column of splits, few images or many."""
    rows = [f"{thing}_{k}.png,text,thing {thing}" for thing in range(things) for k in (0, 1)]
    (tmp_path / "captions.csv").write_text("\n".join(["image,caption,group", *rows]) + "\n")
    options = SourceOptions(dev_share=0.2, test_share=0.2)
    source = open_source(tmp_path, options=options)
    splits: list[Split] = [source.open(name) for name in ("train", "dev", "test")]
    names = [set(split.group_names or ()) for split in splits]
    assert sum(map(len, names)) == len(set.union(*names)) == things
    assert [len(split.image_ids) for split in splits] == [2 * len(own) for own in names]
    assert min(map(len, names)) >= 0.1 * things
