"""Reading, checking and writing the precomputed-feature layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from goal_kernels.data import TruthRelation, feature_rows, load_split, write_split

IMAGES, REGIONS, DIM = 6, 3, 4


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(5).random((IMAGES, REGIONS, DIM), dtype=np.float32)


def put(folder: Path, split: str, features: np.ndarray, captions: int) -> Path:
    """Write the two necessary files by hand, as other projects do."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{split}_ims.npy", features)
    lines = [f"caption {index}" for index in range(captions)]
    (folder / f"{split}_caps.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("ratio", [1, 2, 5])
def test_index_from_the_ratio(tmp_path: Path, features: np.ndarray, ratio: int) -> None:
    split = load_split(put(tmp_path, "dev", features, ratio * IMAGES), "dev")
    assert split.features.shape == features.shape
    assert isinstance(split.features, np.memmap)
    np.testing.assert_array_equal(split.features, features)
    np.testing.assert_array_equal(split.image_of_caption, np.arange(ratio * IMAGES) // ratio)
    np.testing.assert_array_equal(split.image_ids, np.arange(IMAGES))
    assert split.image_of_caption.dtype == split.image_ids.dtype == np.int64
    assert split.captions[ratio] == f"caption {ratio}"
    assert split.truth is None
    assert split.scenes is None


def test_parent_of_a_precomp_folder(tmp_path: Path, features: np.ndarray) -> None:
    put(tmp_path / "precomp", "test", features, IMAGES)
    assert load_split(tmp_path, "test").folder == tmp_path / "precomp"


def test_limit_keeps_whole_images(tmp_path: Path, features: np.ndarray) -> None:
    put(tmp_path, "dev", features, 5 * IMAGES)
    split = load_split(tmp_path, "dev", limit=2)
    assert split.features.shape == (2, REGIONS, DIM)
    assert len(split.captions) == len(split.image_of_caption) == 10
    assert len(load_split(tmp_path, "dev", limit=100).captions) == 5 * IMAGES
    with pytest.raises(ValueError, match="limit"):
        load_split(tmp_path, "dev", limit=0)


def test_repeated_rows_become_one_image(tmp_path: Path, features: np.ndarray) -> None:
    put(tmp_path, "dev", features.repeat(5, axis=0), 5 * IMAGES)
    ids = np.arange(100, 100 + IMAGES).repeat(5)
    (tmp_path / "dev_ids.txt").write_text("\n".join(map(str, ids)), encoding="utf-8")
    split = load_split(tmp_path, "dev")
    assert isinstance(split.features, np.memmap)
    np.testing.assert_array_equal(split.features, features)
    np.testing.assert_array_equal(split.image_of_caption, np.arange(5 * IMAGES) // 5)
    np.testing.assert_array_equal(split.image_ids, np.arange(100, 100 + IMAGES))


def test_unevenly_repeated_rows(tmp_path: Path, features: np.ndarray) -> None:
    times = np.array([2, 1, 3, 1, 1, 2])
    put(tmp_path, "dev", features.repeat(times, axis=0), times.sum())
    split = load_split(tmp_path, "dev")
    np.testing.assert_array_equal(split.image_of_caption, np.arange(IMAGES).repeat(times))
    assert split.features.shape == features.shape
    assert split.features.dtype == features.dtype
    assert len(split.features) == IMAGES
    np.testing.assert_array_equal(np.asarray(split.features), features)
    np.testing.assert_array_equal(split.features[[4, 0]], features[[4, 0]])
    np.testing.assert_array_equal(split.features[2], features[2])
    np.testing.assert_array_equal(split.features[2, 1], features[2, 1])
    np.testing.assert_array_equal(split.features[1:3], features[1:3])


def test_rows_that_agree_only_at_the_start_stay_apart(tmp_path: Path) -> None:
    features = np.zeros((2, 2, 12), dtype=np.float32)
    features[1, 1, 11] = 1
    assert len(load_split(put(tmp_path, "dev", features, 2), "dev").features) == 2


def test_flat_features_have_one_region(tmp_path: Path, features: np.ndarray) -> None:
    put(tmp_path, "dev", features[:, 0], IMAGES)
    assert load_split(tmp_path, "dev").features.shape == (IMAGES, 1, DIM)


def test_lines_end_at_line_feeds_only(tmp_path: Path, features: np.ndarray) -> None:
    put(tmp_path, "dev", features, IMAGES)
    lines = ["a\u2028b", "  padded \r", "", "x\x0cy", "five", "six"]
    (tmp_path / "dev_caps.txt").write_bytes("\n".join(lines).encode())
    captions = load_split(tmp_path, "dev").captions
    assert captions == ["a\u2028b", "padded", "", "x\x0cy", "five", "six"]


def test_missing_files_are_named(tmp_path: Path, features: np.ndarray) -> None:
    with pytest.raises(FileNotFoundError, match=r"no \*_ims.npy"):
        load_split(tmp_path, "train")
    put(tmp_path, "dev", features, IMAGES)
    with pytest.raises(FileNotFoundError, match=r"train_ims.npy.*\['dev'\]"):
        load_split(tmp_path, "train")
    (tmp_path / "dev_caps.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"dev_caps\.txt"):
        load_split(tmp_path, "dev")


@pytest.mark.parametrize("captions", [4, 13])
def test_uneven_ratio(tmp_path: Path, features: np.ndarray, captions: int) -> None:
    put(tmp_path, "dev", features, captions)
    with pytest.raises(ValueError, match=f"6 feature rows, got {captions} captions"):
        load_split(tmp_path, "dev")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_features_are_counted(tmp_path: Path, features: np.ndarray, value: float) -> None:
    features[2, 0, 1] = features[4, 2, 3] = value
    put(tmp_path, "dev", features, IMAGES)
    with pytest.raises(ValueError, match=r"dev_ims\.npy: .*in 2 images, first image 2"):
        load_split(tmp_path, "dev")
    assert len(load_split(tmp_path, "dev", limit=2).features) == 2


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8"])
def test_every_row_of_many_blocks_is_read(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    features = np.ones((101, 2, 3), dtype=dtype)
    monkeypatch.setattr(feature_rows, "_BLOCK_BYTES", 4 * features[0].nbytes)
    features[[1, 50, 51], 1, 2] = np.nan, np.inf, -np.inf
    features[[7, 100]] = 0
    features[9, 0] = 0  # a region of padding
    seen: list[tuple[int, int]] = []
    broken, zero = feature_rows.row_faults(features, lambda *done: seen.append(done))
    np.testing.assert_array_equal(broken, [1, 50, 51])
    np.testing.assert_array_equal(zero, [7, 100])
    assert seen[0] == (4, 101)
    assert seen[-1] == (101, 101)


@pytest.mark.parametrize(
    ("dtype", "value", "fits"),
    [("f8", 1e300, False), ("f8", 3e38, True), ("f4", 3e38, True), ("f2", 6e4, True)],
)
def test_features_have_to_fit_float32(
    tmp_path: Path, features: np.ndarray, dtype: str, value: float, fits: bool
) -> None:
    features = features.astype(dtype)
    features[5, 2, 3] = value
    put(tmp_path, "dev", features, IMAGES)
    if fits:
        assert load_split(tmp_path, "dev").features[5, 2, 3] == features[5, 2, 3]
        return
    with pytest.raises(ValueError, match=r"dev_ims\.npy: .* within float32, .*first image 5"):
        load_split(tmp_path, "dev")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1\n2\n3", "6 ids.*found 3"),
        ("1\n2\n3\n4\nx\n6", r"dev_ids\.txt: line 5: expected an integer"),
    ],
)
def test_bad_ids(tmp_path: Path, features: np.ndarray, content: str, message: str) -> None:
    put(tmp_path, "dev", features, IMAGES)
    (tmp_path / "dev_ids.txt").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_split(tmp_path, "dev")


def test_wrong_arrays_are_refused(tmp_path: Path, features: np.ndarray) -> None:
    put(tmp_path, "dev", features.astype(int), IMAGES)
    with pytest.raises(ValueError, match="floating-point"):
        load_split(tmp_path, "dev")
    np.save(tmp_path / "dev_ims.npy", np.array([{}] * IMAGES, dtype=object))
    with pytest.raises(ValueError, match=r"[Oo]bject"):
        load_split(tmp_path, "dev")


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_write_then_read(tmp_path: Path, features: np.ndarray, dtype: type) -> None:
    features = features.astype(dtype)
    captions = [f"line {index}\nbroken" for index in range(2 * IMAGES)]
    truth = TruthRelation.from_rows([[row // 2] for row in range(2 * IMAGES)], IMAGES)
    write_split(tmp_path / "new", "train", features, captions, image_ids=range(7, 13), truth=truth)
    split = load_split(tmp_path / "new", "train", limit=4)
    assert split.features.dtype == dtype
    np.testing.assert_array_equal(split.features, features[:4])
    assert split.captions == [f"line {index} broken" for index in range(8)]
    np.testing.assert_array_equal(split.image_ids, range(7, 11))
    assert split.truth is not None
    assert split.truth.shape == (8, 4)
    assert not list((tmp_path / "new").glob(".*"))


def test_write_refuses_what_does_not_fit(tmp_path: Path, features: np.ndarray) -> None:
    captions = ["x"] * IMAGES
    with pytest.raises(TypeError, match="floating point"):
        write_split(tmp_path, "a", features.astype(int), captions)
    with pytest.raises(ValueError, match="6 feature rows, got 5"):
        write_split(tmp_path, "a", features, captions[:-1])
    with pytest.raises(ValueError, match="6 integers"):
        write_split(tmp_path, "a", features, captions, image_ids=[1, 2])
    truth = TruthRelation.from_rows([[0]], 1)
    with pytest.raises(ValueError, match="truth"):
        write_split(tmp_path, "a", features, captions, truth=truth)
    with pytest.raises(ValueError, match="N, K, D"):
        write_split(tmp_path, "a", features[None], captions)
    features[3] = np.inf
    with pytest.raises(ValueError, match="first row 3"):
        write_split(tmp_path, "a", features, captions)
    assert not list(tmp_path.iterdir())


def test_truth_of_another_shape_is_refused(tmp_path: Path, features: np.ndarray) -> None:
    put(tmp_path, "dev", features, IMAGES)
    TruthRelation.from_rows([[0]], 1).save(tmp_path / "dev_truth.npz")
    with pytest.raises(ValueError, match="6 captions by 6 images"):
        load_split(tmp_path, "dev")
