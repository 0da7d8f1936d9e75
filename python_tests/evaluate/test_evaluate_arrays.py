"""`goal-kernels eval` on saved embeddings and matrices: figures, protocols, files, errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import embeddings, evaluated, refused, save

import goal_kernels as gk


def figures(image: np.ndarray, text: np.ndarray, index: np.ndarray, ties: str = "expected") -> dict:
    found = gk.similarity_ranks((image, text), torch.from_numpy(index), ties=ties)
    return gk.retrieval_metrics(found)


INDEX = np.arange(150) // 5


@pytest.mark.parametrize("ties", ["expected", "optimistic", "pessimistic", "argsort"])
def test_embeddings_and_matrices_give_the_same_table(tmp_path: Path, ties: str) -> None:
    image, text = embeddings()
    products = image.astype(np.float64) @ text.astype(np.float64).T
    np.save(tmp_path / "matrix.npy", products)
    np.save(tmp_path / "captions_first.npy", products.T)
    np.savez(tmp_path / "matrix.npz", sims=products)
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "text.npy", text)
    both = save(tmp_path / "both.npz", image, text)
    wanted = figures(image, text, INDEX, ties)
    for given in (
        [both],
        ["--embeddings", tmp_path / "image.npy", tmp_path / "text.npy"],
        [tmp_path / "matrix.npy"],
        [tmp_path / "matrix.npz", "--captions-per-image", 5],
        [tmp_path / "captions_first.npy", "--transpose"],
    ):
        record = evaluated(tmp_path, *given, "--ties", ties)
        assert record["protocols"]["plain"]["mean"] == wanted
        assert (record["images"], record["captions"], record["notes"]) == (30, 150, [])


def test_an_ensemble_of_files_is_the_mean_of_similarities(tmp_path: Path) -> None:
    sets = [embeddings(noise=2.0, seed=seed) for seed in range(3)]
    files = [save(tmp_path / f"{i}.npz", *pair) for i, pair in enumerate(sets)]
    products = [image.astype(np.float64) @ text.astype(np.float64).T for image, text in sets]
    np.save(tmp_path / "2.npy", products[2])
    np.save(tmp_path / "mean.npy", np.mean(products, axis=0).astype(np.float32))
    wanted = evaluated(tmp_path, tmp_path / "mean.npy")["protocols"]
    wide = evaluated(tmp_path, *files)
    mixed = evaluated(tmp_path, *files[:2], tmp_path / "2.npy")
    assert wide["protocols"] == mixed["protocols"] == wanted
    assert wide["inputs"] == [str(file) for file in files]
    alone = evaluated(tmp_path, files[0])["protocols"]
    assert alone["plain"]["mean"]["rsum"] != wanted["plain"]["mean"]["rsum"]


def test_repeated_image_rows_are_found_and_explained(tmp_path: Path) -> None:
    """As the lineage saves them: one row a caption, equal up to rounding."""
    image, text = embeddings()
    rows = np.repeat(image, 5, axis=0)
    rows *= 1 + 1e-6 * np.random.default_rng(0).normal(size=rows.shape).astype(np.float32)
    record = evaluated(tmp_path, save(tmp_path / "rows.npz", rows, text))
    assert record["images"] == 30
    assert "150 image rows are 30 images, each 5 times in a row" in record["notes"][0]
    assert record["protocols"]["plain"]["mean"] == figures(rows[::5], text, INDEX)
    said = evaluated(tmp_path, tmp_path / "rows.npz", "--captions-per-image", 5)
    assert said["protocols"] == record["protocols"]
    single = evaluated(tmp_path, tmp_path / "rows.npz", "--captions-per-image", 1)
    assert single["images"] == 150


def test_one_caption_an_image(tmp_path: Path) -> None:
    image, text = embeddings(each=1)
    image[4] = image[3]  # two images alike are no repetition
    record = evaluated(tmp_path, save(tmp_path / "pairs.npz", image, text))
    assert record["notes"] == ["as many captions as images: one caption an image"]
    assert record["captions_per_image"] == {"least": 1, "most": 1}


def test_ragged_captions(tmp_path: Path) -> None:
    image, text = embeddings()
    index = np.sort(np.random.default_rng(0).integers(0, 30, size=150))
    wanted = figures(image, text, index)
    np.save(tmp_path / "index.npy", index)
    (tmp_path / "index.txt").write_text("".join(f"{row}\n" for row in index))
    file = save(tmp_path / "ragged.npz", image, text, image_of_caption=index)
    for given in (
        [file],
        [save(tmp_path / "bare.npz", image, text), "--image-of-caption", tmp_path / "index.npy"],
        [tmp_path / "bare.npz", "--image-of-caption", tmp_path / "index.txt"],
        [tmp_path / "bare.npz", "--image-of-caption", file],
    ):
        assert evaluated(tmp_path, *given)["protocols"]["plain"]["mean"] == wanted


def test_protocols(tmp_path: Path) -> None:
    image, text = embeddings(noise=2.0)
    file = save(tmp_path / "set.npz", image, text)
    everything = evaluated(tmp_path, file, "--protocol", "all")
    folds = everything["protocols"]["coco-1k"]
    hand = [
        figures(image[6 * f : 6 * f + 6], text[30 * f : 30 * f + 30], INDEX[:30]) for f in range(5)
    ]
    assert folds["every_fold"] == hand
    sums = [table["rsum"] for table in hand]
    assert folds["mean"]["rsum"] == pytest.approx(np.mean(sums))
    assert folds["std"]["rsum"] == pytest.approx(np.std(sums, ddof=1))
    assert folds["chance"]["t2i"]["R@1"] == pytest.approx(100 / 6)
    assert sum(folds["histogram"]["t2i"]["queries"]) == 150
    assert everything["protocols"]["plain"]["mean"] == figures(image, text, INDEX)
    assert "published on 5,000 images and 25,000 captions" in everything["notes"][0]
    three = evaluated(tmp_path, file, "--folds", 3)["protocols"]["3 folds"]
    assert three["folds"] == len(three["every_fold"]) == 3
    whole = evaluated(tmp_path, file, "--protocol", "f30k")
    assert whole["protocols"]["f30k"]["mean"] == figures(image, text, INDEX)


def test_published_sizes_are_known() -> None:
    from goal_kernels.evaluate.protocols import choose_protocols, protocol_notes

    named = {size: [p.name for p in choose_protocols("all", None, size)] for size in (1000, 5000)}
    assert named == {1000: ["f30k"], 5000: ["coco-1k", "coco-5k"]}
    assert protocol_notes(choose_protocols("coco-1k", None, 5000)[0], 5000, 25000) == []
    assert [p.name for p in choose_protocols("all", None, 7)] == ["plain"]


def test_files_and_text(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("matplotlib")
    file = save(tmp_path / "set.npz", *embeddings(noise=2.0))
    record = evaluated(tmp_path, file, "--protocol", "all", "--output", tmp_path / "out")
    shown = capsys.readouterr().out
    rsum = f"{record['protocols']['plain']['mean']['rsum']:.1f}"
    for words in (rsum, "coco-1k, mean", "std of 5 folds", "chance", "share of queries by rank"):
        assert words in shown
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == {
        **record,
        "seconds": json.loads((tmp_path / "out" / "metrics.json").read_text())["seconds"],
    }
    assert f"| {rsum} |" in (tmp_path / "out" / "metrics.md").read_text()
    assert (tmp_path / "out" / "ranks.png").read_bytes().startswith(b"\x89PNG")
    assert record["seconds"] < 60


def test_markdown(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    record = evaluated(tmp_path, save(tmp_path / "set.npz", *embeddings()), "--markdown")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| | i2t R@1 |")
    mean = record["protocols"]["plain"]["mean"]
    assert lines[2].startswith(f"| plain | {mean['i2t']['R@1']:.1f} |")


def test_normalizing(tmp_path: Path) -> None:
    image, text = embeddings()
    scaled = text * np.linspace(0.1, 9, len(text), dtype=np.float32)[:, None]
    file = save(tmp_path / "set.npz", image, scaled)
    raw = evaluated(tmp_path, file)
    assert "rows have lengths from 0.1 to 9" in raw["notes"][0]
    cosine = evaluated(tmp_path, file, "--normalize")
    assert cosine["notes"] == []
    wanted = figures(image, text, INDEX)["rsum"]
    assert cosine["protocols"]["plain"]["mean"]["rsum"] == pytest.approx(wanted)
    assert raw["protocols"]["plain"]["mean"]["rsum"] < wanted


def test_nan_is_told_counted_and_refused_when_strict(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    image, text = embeddings()
    text[7] = np.nan
    file = save(tmp_path / "set.npz", image, text)
    record = evaluated(tmp_path, file)
    assert "WARNING: NaN or infinity in 1 of the text embeddings" in capsys.readouterr().err
    assert record["broken"] == {"text embeddings": 1}
    assert record["protocols"]["plain"]["nan_queries"] == 1
    assert "--strict allows none" in refused(capsys, file, "--strict")
    matrix = image @ text.T
    np.save(tmp_path / "matrix.npy", matrix)
    assert evaluated(tmp_path, tmp_path / "matrix.npy")["broken"] == {"scores": 30}
    evaluated(tmp_path, tmp_path / "matrix.npy", "--ties", "argsort")
    assert "NaN ranks first" in capsys.readouterr().err


def test_a_collapsed_model_scores_chance(tmp_path: Path) -> None:
    ones = np.ones((30, 4), dtype=np.float32) / 2
    file = save(tmp_path / "set.npz", ones, np.repeat(ones, 5, axis=0))
    part = evaluated(tmp_path, file)["protocols"]["plain"]
    assert part["mean"] == part["chance"]
    assert part["tie_fraction"] == 1


def broken_files(folder: Path) -> dict[str, list[object]]:
    """Calls that cannot be served, by words of the message."""
    image, text = embeddings()
    np.save(folder / "tall.npy", text @ image.T)
    np.save(folder / "odd.npy", (image @ text.T)[:, :149])
    np.save(folder / "ints.npy", np.zeros((3, 6), dtype=int))
    np.save(folder / "deep.npy", np.zeros((3, 6, 2)))
    np.save(folder / "pickled.npy", {"npts": 3, "sims": image}, allow_pickle=True)
    np.savez(folder / "other.npz", a=image, b=text)
    np.savez(folder / "pickled.npz", similarity=np.array([{}, 1], dtype=object))
    (folder / "torn.npz").write_bytes(b"PK\x03\x04 and no more")
    (folder / "index.txt").write_text("0\n1\nx\n")
    np.save(folder / "short.npy", INDEX[:-1])
    np.save(folder / "ids.npy", INDEX + 100)
    swapped = save(folder / "swapped.npz", text, image)
    good = save(folder / "good.npz", image, text)
    narrow = save(folder / "narrow.npz", image, text[:, :7])
    fewer = save(folder / "fewer.npz", image[:29], text[:145])
    alike = save(folder / "alike.npz", np.ones((20, 4)), np.ones((20, 4)))
    unequal = save(folder / "unequal.npz", np.repeat(image, 3, axis=0), text[:90])
    ragged = save(folder / "ragged.npz", image, text, image_of_caption=np.minimum(INDEX, 28))
    return {
        "seem to be swapped": [folder / "tall.npy"],
        "expected 30 images by 150 captions; --transpose does it": [folder / "tall.npy"],
        "150 images (rows) and 30 captions: images and captions seem": [swapped],
        "4.967 captions an image is no whole number": [folder / "odd.npy"],
        "--captions-per-image 4 expects 120 captions": [good, "--captions-per-image", 4],
        "--captions-per-image: expected at least 1": [good, "--captions-per-image", 0],
        "within such groups rows differ": [unequal, "--captions-per-image", 5],
        "has the model collapsed?": [alike],
        "got int64 of shape (3, 6)": [folder / "ints.npy"],
        "matrix, got float64 of shape (3, 6, 2)": [folder / "deep.npy"],
        "found pickled Python objects": [folder / "pickled.npy"],
        "np.save(path, sims) instead": [folder / "pickled.npz"],
        "found a damaged archive": [folder / "torn.npz"],
        "found ['a', 'b']": [folder / "other.npz"],
        "expected the width of image_embeddings": [narrow],
        "150 captions like": [good, fewer],
        "belong to other images": [good, ragged],
        "expected one integer a line": [good, "--image-of-caption", folder / "index.txt"],
        "expected 150 integers, the image row": [good, "--image-of-caption", folder / "short.npy"],
        "caption 0 says 100 (150 such captions)": [good, "--image-of-caption", folder / "ids.npy"],
        "expected an array image_of_caption": [good, "--image-of-caption", good],
        "no such file": [folder / "missing.npy"],
        "no such file or run folder": [folder / "missing.ckpt"],
        "30 images do not divide into 4": [good, "--folds", 4],
        "--folds: f30k has 1": [good, "--protocol", "f30k", "--folds", 3],
        "--save-embeddings: expected one model": [good, "--save-embeddings", folder / "x.npz"],
        "--split: expected a model": [good, "--split", "dev"],
        "INPUT: expected a run": [],
        "backend: expected": [good, "--backend", "abacus"],
        "expected train_ims.npy": [good, "--data.folder", folder, "--split", "train"],
    }


def test_errors_that_a_person_understands(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for words, arguments in broken_files(tmp_path).items():
        assert words in refused(capsys, *arguments), words
    assert not list(tmp_path.glob("x.npz"))


def test_help_teaches(capsys: pytest.CaptureFixture) -> None:
    from goal_kernels import cli

    with pytest.raises(SystemExit) as stopped:
        cli.main(["eval", "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for words in ("coco-1k", "argsort", "ensemble", "image_embeddings [N, D]", "--save-embeddings"):
        assert words in shown
