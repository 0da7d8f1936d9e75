"""`goal-kernels mine`: what it reads, what it writes, and how it resumes."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from fresh_process import run_fresh
from top_k_literal import top_k_literally

from goal_kernels import cli
from goal_kernels.data import Split
from goal_kernels.dataset_mining import cli as mine_cli
from goal_kernels.dataset_mining.parts import Parts

IMAGES, EACH, WIDTH, K = 40, 3, 16, 4
OWNER = np.arange(IMAGES * EACH) // EACH


def unit(rows: int, seed: int) -> np.ndarray:
    made = np.random.default_rng(seed).standard_normal((rows, WIDTH)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", unit(IMAGES, 0))
    np.save("captions.npy", unit(IMAGES * EACH, 1))
    return tmp_path


def mine(*arguments: object) -> int:
    return cli.main(["mine", *map(str, arguments)])


def lines(path: str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def refused(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    assert mine(*arguments) == 2
    return capsys.readouterr().err


def truth(direction: str, k: int = K, max_score: torch.Tensor | None = None) -> list:
    image, text = (torch.from_numpy(np.load(f"{name}.npy")) for name in ("images", "captions"))
    owner = torch.from_numpy(OWNER)
    sides = (image, text, (torch.arange(IMAGES), owner))
    if direction == "t2i":
        sides = (text, image, (owner, torch.arange(IMAGES)))
    return top_k_literally(*sides[:2], k, sides[2], max_score)


def assert_holds(path: Path | str, prefix: str, expected: list) -> None:
    with np.load(path) as found:
        indices, scores = found[f"{prefix}indices"], found[f"{prefix}scores"]
        assert found[f"{prefix}counts"].tolist() == [len(row) for row in expected]
    for i, row in enumerate(expected):
        missing = indices.shape[1] - len(row)
        assert indices[i].tolist() == [j for _, j in row] + [-1] * missing
        np.testing.assert_allclose(scores[i, : len(row)], [s for s, _ in row], atol=1e-6)


@pytest.mark.parametrize("block", [7, 1000])
def test_both_directions_without_the_positives(folder, monkeypatch, block) -> None:
    monkeypatch.setattr(mine_cli, "CORPUS_BYTES", 11 * WIDTH * 4)
    assert mine("images.npy", "captions.npy", "-k", K, "--block", block, "--output", "n.npz") == 0
    for direction in ("i2t", "t2i"):
        assert_holds("n.npz", f"{direction}_", truth(direction))
    assert sorted(path.name for path in folder.iterdir()) == ["captions.npy", "images.npy", "n.npz"]


def test_saved_embeddings_and_owners_in_any_order(folder) -> None:
    shuffled = np.random.default_rng(2).permutation(len(OWNER))
    image, text = np.load("images.npy"), np.load("captions.npy")[shuffled]
    np.savez(
        "saved.npz", image_embeddings=image, text_embeddings=text, image_of_caption=OWNER[shuffled]
    )
    np.save("text.npy", text)
    np.save("owner.npy", OWNER[shuffled])
    assert mine("saved.npz", "-k", K, "--output", "a.npz") == 0
    assert (
        mine("images.npy", "text.npy", "--text-to-image", "owner.npy", "-k", K, "--output", "b.npz")
        == 0
    )
    with np.load("a.npz") as a, np.load("b.npz") as b:
        assert set(a) == set(b)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
        expected = truth("t2i")
        for row, caption in enumerate(shuffled):
            assert a["t2i_indices"][row].tolist() == [j for _, j in expected[caption]]


def test_nothing_of_the_own_group_is_mined(folder) -> None:
    """A caption without an image is of no group."""
    owner, groups = np.where(np.arange(len(OWNER)) == 3, -1, OWNER), np.arange(IMAGES) % 5 - 1
    image, text = np.load("images.npy"), np.load("captions.npy")
    sets = {"image_embeddings": image, "text_embeddings": text, "image_of_caption": owner}
    np.savez("saved.npz", **sets, groups=groups)
    assert mine("saved.npz", "-k", len(OWNER), "--output", "a.npz") == 0
    with np.load("a.npz") as found:
        for row, indices in enumerate(found["i2t_indices"]):
            wanted = (owner < 0) | (groups[owner] != groups[row])
            assert sorted(indices[indices >= 0]) == wanted.nonzero()[0].tolist()
        for row, indices in enumerate(found["t2i_indices"]):
            others = (groups != groups[owner[row]]) | (owner[row] < 0)
            assert sorted(indices[indices >= 0]) == others.nonzero()[0].tolist()


def test_the_margin_leaves_false_negatives_out(folder) -> None:
    image, text = (np.load(f"{n}.npy").astype(np.float64) for n in ("images", "captions"))
    own = (image[OWNER] * text).sum(axis=1)
    bounds = {"t2i": own, "i2t": own.reshape(IMAGES, EACH).max(axis=1)}
    margin = ("--false-negative-margin", 0.05, "--max-score", 0.3)
    assert mine("images.npy", "captions.npy", "-k", K, *margin, "--output", "n.npz") == 0
    for direction, positive in bounds.items():
        bound = torch.from_numpy(np.minimum(positive + 0.05, 0.3))
        expected = truth(direction, max_score=bound)
        assert expected != truth(direction)
        assert_holds("n.npz", f"{direction}_", expected)


def test_tuples_name_what_they_hold(folder) -> None:
    captions = [f"a caption, “{i}”" for i in range(len(OWNER))]
    Path("captions.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")
    names = ("--corpus-text", "captions.txt", "-k", 2)
    assert mine("images.npy", "captions.npy", *names, "--output", "n.jsonl", "--block", 9) == 0
    found = {direction: lines(f"n.{direction}.jsonl") for direction in ("i2t", "t2i")}
    expected = {direction: truth(direction, 2) for direction in found}
    for caption, row in enumerate(found["i2t"]):
        image = int(OWNER[caption])
        first, second = (j for _, j in expected["i2t"][image])
        assert list(row.items()) == [
            ("anchor", image),
            ("positive", captions[caption]),
            ("negative_1", captions[first]),
            ("negative_2", captions[second]),
        ]
    for caption, row in enumerate(found["t2i"]):
        negatives = [j for _, j in expected["t2i"][caption]]
        assert list(row.values()) == [captions[caption], int(OWNER[caption]), *negatives]


def test_pairs_without_k_negatives_are_left_out(folder, capsys) -> None:
    bound = ("--max-score", -0.1, "-k", 10, "--direction", "t2i")
    assert mine("images.npy", "captions.npy", *bound, "--output", "n.jsonl") == 0
    expected = truth("t2i", 10, torch.full((len(OWNER),), -0.1))
    full = [i for i, row in enumerate(expected) if len(row) == 10]
    rows = lines("n.jsonl")
    assert [row["anchor"] for row in rows] == full
    said = capsys.readouterr()
    assert f"n.jsonl: {len(full)} rows" in said.out
    left_out = len(OWNER) - len(full)
    assert full
    assert left_out
    assert f"{left_out} of 120 rows are left out, since fewer than 10 negatives" in said.err


def test_a_set_against_itself(folder) -> None:
    rows = torch.from_numpy(np.load("captions.npy"))
    labels = torch.from_numpy(OWNER)
    Path("labels.txt").write_text("\n".join(map(str, OWNER.tolist())))
    everyone = torch.arange(len(rows))
    assert mine("captions.npy", "-k", K, "--output", "a.npz") == 0
    assert_holds("a.npz", "", top_k_literally(rows, rows, K, (everyone, everyone)))
    assert mine("captions.npy", "-k", K, "--query-ids", "labels.txt", "--output", "b.npz") == 0
    assert_holds("b.npz", "", top_k_literally(rows, rows, K, (labels, labels)))


def test_parquet_has_the_same_columns(folder) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    common = ("images.npy", "captions.npy", "--direction", "i2t", "-k", 2, "--block", 11)
    assert mine(*common, "--output", "n.parquet") == 0
    assert mine(*common, "--output", "n.jsonl") == 0
    rows = lines("n.jsonl")
    assert parquet.read_table("n.parquet").to_pylist() == rows


def test_parquet_without_pyarrow_says_how(folder, capsys, monkeypatch) -> None:
    monkeypatch.setattr("goal_kernels.extras.find_spec", lambda _: None)
    message = refused(capsys, "images.npy", "captions.npy", "--output", "n.parquet")
    assert "needs pyarrow" in message
    assert "[parquet]" in message


KILLED = """
import os, signal, sys
from goal_kernels import cli
from goal_kernels.dataset_mining.parts import Parts
write, left = Parts.write, [int(sys.argv[1])]
def kill(self, *given):
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    write(self, *given)
Parts.write = kill
cli.main(sys.argv[2:])
"""


def test_a_killed_search_goes_on(folder, monkeypatch, capsys) -> None:
    command = [
        "mine",
        "images.npy",
        "captions.npy",
        "-k",
        f"{K}",
        "--block",
        "9",
        "--output",
        "n.npz",
    ]
    for done in (3, 1):
        killed = run_fresh(KILLED, f"{done}", *command)
        assert killed.returncode == -signal.SIGKILL
    assert not Path("n.npz").exists()
    searched = []
    monkeypatch.setattr(
        Parts, "write", lambda *given, write=Parts.write: (searched.append(given[2]), write(*given))
    )
    assert cli.main(command) == 0
    assert len(searched) == 5 - 4 + 14
    assert "i2t: 36 of 40 queries kept" in capsys.readouterr().err
    for direction in ("i2t", "t2i"):
        assert_holds("n.npz", f"{direction}_", truth(direction))
    assert not Path("n.npz.parts").exists()


@pytest.mark.parametrize("change", ["input", "ids", "option"])
def test_a_changed_search_is_refused(folder, monkeypatch, capsys, change) -> None:
    common = ("images.npy", "captions.npy", "--block", 9, "--output", "n.npz")
    with monkeypatch.context() as patch:
        patch.setattr(mine_cli, "write_output", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert mine(*common) == 130
    assert "goes on from here" in capsys.readouterr().err
    if change == "input":
        rows = np.load("captions.npy")
        rows[77, 3] = np.nextafter(rows[77, 3], np.float32(1))
        np.save("captions.npy", rows)
        assert "corpus differ" in refused(capsys, *common)
    elif change == "ids":
        np.save("owner.npy", OWNER[::-1].copy())
        message = refused(capsys, *common, "--text-to-image", "owner.npy")
        assert "corpus_ids differ" in message
    else:
        assert "k differ (k was 10, is 3)" in refused(capsys, *common, "-k", 3)
    assert not Path("n.npz").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["images.npy", "captions.npy", "--output", "n.csv"], "expected a name in .npz"),
        (["images.npy", "captions.npy", "-k", 0, "--output", "n.npz"], "k: expected at least 1"),
        (["images.npy"] * 3 + ["--output", "n.npz"], "expected two .npy files"),
        (["captions.npy", "images.npy", "--output", "n.npz"], "--image-of-caption"),
        (["images.npy", "gone.npy", "--output", "n.npz"], "no such file"),
        (["images.npy", "--false-negative-margin", 0, "--output", "n.npz"], "--max-score needs"),
        (
            ["images.npy", "--query-ids", "captions.npy", "--output", "n.npz"],
            "expected 40 integers",
        ),
        (
            ["images.npy", "captions.npy", "--text-to-image", "bad.npy", "--output", "n.npz"],
            "in [-1, 39]",
        ),
        (
            ["images.npy", "captions.npy", "--query-text", "one.txt", "--output", "n.npz"],
            "expected 40 lines, found 1",
        ),
        (["images.npy", "nan.npy", "--output", "n.npz"], "in 1 of 120 rows, first row 7"),
        (["nan.npy", "--output", "n.npz"], "found NaN, infinite or larger ones"),
    ],
    ids=lambda part: None if isinstance(part, str) else "-".join(map(str, part)),
)
def test_what_is_wrong_is_said_in_a_line(folder, capsys, arguments, words) -> None:
    np.save("bad.npy", OWNER + 1)
    Path("one.txt").write_text("one\n")
    broken = np.load("captions.npy")
    broken[7, 2] = np.nan
    np.save("nan.npy", broken)
    message = refused(capsys, *arguments)
    assert words in message
    assert message.count("\n") == 1


def test_a_run_is_encoded(folder, monkeypatch) -> None:
    """What the loader of `goal-kernels eval` gives for the train split is mined."""
    pytest.importorskip("pytorch_lightning")
    from goal_kernels.evaluate import checkpoints

    def encode(path: Path, options: dict[str, str], device: str) -> checkpoints.Encoded:
        assert (path, device) == (Path("runs/a"), "auto")
        assert options == {"folder": "here", "test_split": "train"}
        sides = (torch.from_numpy(np.load(f"{name}.npy")) for name in ("images", "captions"))
        captions, ids = [""] * len(OWNER), np.arange(OWNER.max() + 1)
        split = Split(
            folder=path, name="train", captions=captions, image_of_caption=OWNER, image_ids=ids
        )
        return checkpoints.Encoded(*sides, split)

    monkeypatch.setattr(checkpoints, "open_run", lambda *given: given)
    monkeypatch.setattr(checkpoints, "encode_split", lambda given: encode(*given))
    assert mine("runs/a", "--data", "folder=here", "-k", K, "--output", "n.npz") == 0
    assert_holds("n.npz", "i2t_", truth("i2t"))
