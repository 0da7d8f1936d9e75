"""The generated folder as a whole."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from literal_truth import holds
from made_folder import Made

from goal_kernels.data import TruthRelation, Vocabulary, load_split, tokenize
from goal_kernels.data.goalworld import PRESETS, generate_goalworld, lexicon
from goal_kernels.data.goalworld.scenes import Scene

SIZES = {"train": 64, "dev": 32, "test": 32}
FILES = {
    *(f"{split}_{name}" for split in SIZES
      for name in ("ims.npy", "caps.txt", "ids.txt", "truth.npz", "scenes.jsonl")),
    "vocab.json", "id_mapping.json", "oracle.json", "dataset.json",
}  # fmt: skip


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("split", SIZES)
def test_splits_load(tiny: Made, split: str) -> None:
    loaded = load_split(tiny.folder, split)
    images = SIZES[split]
    assert loaded.features.shape == (images, 12, 64)
    assert loaded.features.dtype == np.float32
    assert loaded.captions == tiny.captions(split)
    np.testing.assert_array_equal(loaded.image_of_caption, np.arange(5 * images) // 5)
    assert loaded.truth is not None
    assert loaded.truth.shape == (5 * images, images)
    assert loaded.scenes == tiny.scenes(split)


def test_the_folder_holds_all_files_and_nothing_else(tiny: Made) -> None:
    assert {path.name for path in tiny.folder.iterdir()} == FILES
    assert [path.name for path in tiny.folder.parent.iterdir()] == ["tiny"]


def test_ids_are_distinct_and_mapped(tiny: Made) -> None:
    mapping = tiny.json("id_mapping.json")
    ids = {split: load_split(tiny.folder, split).image_ids.tolist() for split in SIZES}
    assert mapping == {str(i): f"{split}/{i}.png" for split, rows in ids.items() for i in rows}
    assert len(mapping) == sum(SIZES.values())
    assert [scene["id"] for scene in tiny.scenes("dev")] == ids["dev"]


def test_truth_file_agrees_with_the_scenes_file(tiny: Made) -> None:
    scenes = tiny.scenes("dev")
    truth = TruthRelation.load(tiny.folder / "dev_truth.npz")
    for caption in range(0, truth.shape[0], 4):
        form = scenes[caption // 5]["captions"][caption % 5]
        expected = [row for row, scene in enumerate(scenes) if holds(form, scene)]
        assert truth.images_of(caption).tolist() == expected


def test_families_stay_together(tiny: Made) -> None:
    for split in SIZES:
        scenes = tiny.scenes(split)
        assert [scene["family"] for scene in scenes] == [row // 3 for row in range(len(scenes))]
        assert [scene["swap"] is None for scene in scenes] == [
            row % 3 == 0 for row in range(len(scenes))
        ]


def test_splits_do_not_share_scenes(tiny: Made) -> None:
    seen = {split: {str(Scene.from_json(s)) for s in tiny.scenes(split)} for split in SIZES}
    assert len(set.union(*seen.values())) == sum(SIZES.values())


def test_vocabulary_is_that_of_the_train_split(tiny: Made) -> None:
    vocabulary = Vocabulary.load(tiny.folder / "vocab.json")
    assert vocabulary == Vocabulary.from_captions(tiny.captions("train"))
    assert tiny.summary.vocabulary == len(vocabulary)


def test_manifest(tiny: Made) -> None:
    manifest = tiny.json("dataset.json")
    assert (manifest["name"], manifest["preset"], manifest["seed"]) == ("goalworld", "tiny", 11)
    assert set(manifest["files"]) == FILES - {"dataset.json"}
    for name, entry in manifest["files"].items():
        data = (tiny.folder / name).read_bytes()
        assert entry == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert manifest["counts"]["train"]["captions"] == 320
    assert manifest["parameters"]["siblings"] == 2
    assert tiny.summary.counts == manifest["counts"]
    assert tiny.summary.oracle == tiny.json("oracle.json")


def test_two_processes_give_the_same_bytes(tiny: Made, tmp_path: Path) -> None:
    stages: list[tuple[str, int, int]] = []
    generate_goalworld(
        tmp_path / "parallel",
        preset="tiny",
        seed=11,
        workers=2,
        progress=lambda *stage: stages.append(stage),
    )
    assert content(tmp_path / "parallel") == content(tiny.folder)
    assert ("train images", 64, 64) in stages
    assert ("test truth", 160, 160) in stages


def test_a_smaller_set_is_a_prefix(tiny: Made, tmp_path: Path) -> None:
    generate_goalworld(tmp_path / "small", preset="tiny", seed=11, train=20, dev=1, test=31)
    for split, images in {"train": 20, "dev": 1, "test": 31}.items():
        small = load_split(tmp_path / "small", split)
        large = load_split(tiny.folder, split, limit=images)
        np.testing.assert_array_equal(small.features, large.features)
        np.testing.assert_array_equal(small.image_ids, large.image_ids)
        assert small.captions == large.captions
        assert small.scenes == large.scenes
        assert small.truth is not None
        assert large.truth is not None
        np.testing.assert_array_equal(small.truth.indices, large.truth.indices)


def test_seed_and_split_matter(tiny: Made, tmp_path: Path) -> None:
    generate_goalworld(tmp_path / "other", preset="tiny", seed=12)
    assert tiny.captions("test") != tiny.captions("dev")
    other = load_split(tmp_path / "other", "test")
    assert other.captions != tiny.captions("test")
    assert not np.array_equal(other.features, load_split(tiny.folder, "test").features)


def test_feature_layout_is_configurable(tmp_path: Path) -> None:
    generate_goalworld(
        tmp_path / "wide", preset="tiny", train=4, dev=4, test=4, regions=36, dim=128,
        dtype="float16",
    )  # fmt: skip
    features = load_split(tmp_path / "wide", "dev").features
    assert features.shape == (4, 36, 128)
    assert features.dtype == np.float16


def test_the_same_request_changes_nothing(tiny: Made) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny.folder.iterdir()}
    summary = generate_goalworld(tiny.folder, preset="tiny", seed=11)
    assert not summary.created
    assert tiny.summary.created
    assert summary.oracle == tiny.summary.oracle
    assert {path: path.stat().st_mtime_ns for path in tiny.folder.iterdir()} == before


@pytest.fixture
def copy(tiny: Made, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny.folder, tmp_path / "copy"))


def request(folder: Path, **changes: object) -> bool:
    arguments = {"preset": "tiny", "seed": 11, **changes}
    return generate_goalworld(folder, **arguments).created


def test_another_data_set_is_not_replaced_unasked(copy: Path, tiny: Made) -> None:
    with pytest.raises(FileExistsError, match=r"noise 0.08 instead of 0.5.*--overwrite"):
        request(copy, noise=0.5)
    with pytest.raises(FileExistsError, match="seed 11 instead of 3"):
        request(copy, seed=3)
    assert content(copy) == content(tiny.folder)
    assert request(copy, noise=0.5, overwrite=True)
    assert content(copy)["test_ims.npy"] != content(tiny.folder)["test_ims.npy"]
    assert content(copy)["test_caps.txt"] == content(tiny.folder)["test_caps.txt"]


def test_torn_folders_are_noticed_and_can_be_replaced(copy: Path, tiny: Made) -> None:
    (copy / "dev_ids.txt").unlink()
    with pytest.raises(FileExistsError, match=r"dev_ids.txt is missing.*--overwrite"):
        request(copy)
    (copy / "dev_ids.txt").write_text("0\n")
    with pytest.raises(FileExistsError, match=r"dev_ids.txt has 2 bytes"):
        request(copy)
    (copy / "dataset.json").unlink()
    with pytest.raises(FileExistsError, match=r"dataset.json is missing"):
        request(copy)
    (copy / "dataset.json").write_text("{")
    with pytest.raises(FileExistsError, match=r"--overwrite"):
        request(copy)
    assert request(copy, overwrite=True)
    assert content(copy) == content(tiny.folder)


def test_foreign_files_are_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"thesis\.tex"):
        request(tmp_path, overwrite=True)
    with pytest.raises(FileExistsError, match="is a file"):
        request(tmp_path / "thesis.tex", overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "dev images":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_goalworld(tmp_path / "new", preset="tiny", progress=interrupt)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"preset": "huge"}, ValueError, r"preset: expected one of .*'huge'"),
        ({"colours": 3}, TypeError, r"\['colours'\]"),
        ({"train": 0}, ValueError, "train: expected 1"),
        ({"train": 2.5}, TypeError, "train: expected int"),
        ({"regions": 6}, ValueError, "regions: expected 7"),
        ({"dim": 8}, ValueError, "dim: expected 16"),
        ({"detail": 1.5}, ValueError, "detail: expected 0.0 to 1.0"),
        ({"min_objects": 6, "max_objects": 4}, ValueError, "max_objects: expected 6"),
        ({"dtype": "bfloat16"}, ValueError, "dtype"),
        ({"workers": 0}, ValueError, "workers"),
        ({"seed": -1}, ValueError, "seed"),
    ],
)
def test_bad_arguments(
    tmp_path: Path, changes: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        request(tmp_path / "never", **changes)
    assert not (tmp_path / "never").exists()


@pytest.fixture(scope="module")
def demo_part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The beginning of the demo's other splits, and its whole test split; features that no
    test looks at are small."""
    folder = tmp_path_factory.mktemp("part") / "demo"
    generate_goalworld(folder, preset="demo", train=1, dev=1, regions=7, dim=16)
    return folder


def lexicon_words() -> set[str]:
    """Every word in the tables of the lexicon, and those that the grammar supplies itself."""

    def strings(value: object) -> list[str]:
        if isinstance(value, str):
            return [value]
        if isinstance(value, dict):
            return [text for item in value.values() for text in strings(item)]
        return [t for item in value for t in strings(item)] if isinstance(value, tuple) else []

    tables = (
        value for name, value in vars(lexicon).items() if name.isupper() and name[0] != "_"
        if name != "CONVERSES"
    )  # fmt: skip
    texts = [text for table in tables for text in strings(table)]
    words = {word for text in texts for word in tokenize(re.sub(r"{\w*}", " ", text))}
    return words | {"a", "an", "and", "are", "is", "which", "that"}


def test_vocabulary_of_the_demo(demo_part: Path) -> None:
    """What the test split uses and what the lexicon offers bracket the train split's words."""
    used = set(Vocabulary.from_captions(load_split(demo_part, "test").captions).words[4:])
    offered = lexicon_words()
    assert 250 <= len(used) <= len(offered) + 4 <= 400
    # "one" would only be said of a total or an exact number, which are two at least.
    assert offered - used <= {"one"}
    assert used <= offered


def test_oracle_of_the_demo(demo_part: Path) -> None:
    test = json.loads((demo_part / "oracle.json").read_text())["test"]
    assert PRESETS["demo"].test == 1000
    assert 70 <= test["t2i"]["R@1"] <= 80
    assert test["i2t"]["R@1"] > 55
    assert 95 <= test["t2i"]["R@10"] < 100
