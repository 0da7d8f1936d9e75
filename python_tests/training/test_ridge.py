"""Ridge regression beside a result: against dense numpy, on regions, pixels and groups."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_cases import fit

from goal_kernels.cli import main
from goal_kernels.data.split import Split
from goal_kernels.training.data_module import RetrievalDataModule
from goal_kernels.training.ridge import PIXELS, STRENGTHS, ridge_metrics


def bags(data: RetrievalDataModule, split: Split, rarity: np.ndarray | None = None) -> np.ndarray:
    """Dense [M, V] counts of words; with weights, in unit rows."""
    counts = np.zeros((len(split.captions), len(data.tokenizer)))
    for row, caption in enumerate(split.captions):
        for word in data.tokenizer.encode(caption).ids[1:-1]:
            counts[row, word] += word >= data.tokenizer.first_word_id
    if rarity is None:
        return counts
    weighted = counts * rarity
    return weighted / np.maximum(np.linalg.norm(weighted, axis=1, keepdims=True), 1e-12)


def literal(data: RetrievalDataModule, features: dict[str, np.ndarray], s: float) -> dict:
    """Scores [n, m] of dev and test by the formula, solved densely, Y centred literally."""
    train = data.split("train")
    counts = bags(data, train)
    used = np.maximum((counts > 0).sum(0), 1)
    rarity = np.log(np.where((counts > 0).any(0), len(counts) / used, 1))
    captions = bags(data, train, rarity)
    y = np.stack(
        [captions[train.image_of_caption == i].mean(0) for i in range(len(train.image_ids))]
    )
    mean, scale = features["train"].mean(0), np.maximum(features["train"].std(0, ddof=1), 1e-9)
    x = (features["train"] - mean) / scale
    gram = x.T @ x
    strength = s * np.trace(gram) / len(gram)
    w = np.linalg.solve(gram + strength * np.eye(len(gram)), x.T @ (y - y.mean(0)))
    scores = {}
    for name in ("dev", "test"):
        found = (features[name] - mean) / scale @ w
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        scores[name] = found @ bags(data, data.split(name), rarity).T
    return scores


def rsum(scores: np.ndarray, split: Split) -> float:
    """By sorting; no ties here."""
    groups = np.arange(len(scores)) if split.groups is None else split.groups
    right = groups[:, None] == groups[split.image_of_caption]
    total = 0.0
    for s, r in ((scores, right), (scores.T, right.T)):
        best = np.where(r, s, -np.inf).max(1, keepdims=True)
        ranks = ((s > best) & ~r).sum(1)
        total += sum(100 * float((ranks < k).mean()) for k in (1, 5, 10))
    return total


def regions(split: Split) -> np.ndarray:
    """The mean of the first two of three regions: the third is padding."""
    return np.asarray(split.features, dtype=np.float64)[:, :2].mean(1)


@pytest.mark.parametrize("grouped", [False, True])
def test_regions_against_dense_algebra(folder: Path, tmp_path: Path, grouped: bool) -> None:
    copy = shutil.copytree(folder, tmp_path / "data")
    rng = np.random.default_rng(0)
    for name in ("train", "dev", "test"):  # noise, so that not everything is found
        stored = np.load(copy / f"{name}_ims.npy")
        stored[:, :2] += 0.6 * rng.normal(size=stored[:, :2].shape).astype(np.float32)
        np.save(copy / f"{name}_ims.npy", stored)
    if grouped:
        (copy / "test_groups.txt").write_text("".join(f"{i % 4}\n" for i in range(12)))
    data = RetrievalDataModule(str(copy))
    features = {name: regions(data.split(name)) for name in ("train", "dev", "test")}
    found = [literal(data, features, s) for s in STRENGTHS]
    best = max(found, key=lambda scores: rsum(scores["dev"], data.split("dev")))
    expected = rsum(best["test"], data.split("test"))
    assert ridge_metrics(data)["rsum"] == pytest.approx(expected)
    assert 100 < expected < 600


def test_pixels_of_pictures(tmp_path: Path) -> None:
    """Plain colours: a caption is found by its colour's name, whatever the picture's size."""
    shades = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250), "white": (250,) * 3}
    for name, copies in (("train", 6), ("dev", 1), ("test", 1)):
        entries = []
        for number in range(copies):
            for colour, shade in shades.items():
                file = f"{name}_{colour}_{number}.png"
                made = tuple(max(0, channel - 3 * number) for channel in shade)
                Image.new("RGB", (PIXELS + number, PIXELS), made).save(tmp_path / file)
                entries.append({"image": file, "caption": ["it is", f"it is {colour}"]})
        (tmp_path / f"{name}.json").write_text(json.dumps(entries))
    metrics = ridge_metrics(RetrievalDataModule(str(tmp_path)))
    assert metrics["i2t"]["R@1"] == 100
    assert metrics["t2i"]["R@1"] == pytest.approx(62.5)  # "it is" ties with everything


def test_it_stands_beside_the_result(folder: Path, tmp_path: Path, capsys) -> None:
    assert fit(folder, tmp_path, "--run.ridge", "true") == 0
    assert "ridge" in capsys.readouterr().out
    record = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert record["ridge"]["rsum"] > record["chance"]["rsum"] + 100
    head = '<th scope="col">chance</th><th scope="col">ridge</th>'
    assert head in (tmp_path / "run" / "report.html").read_text()
    assert main(["report", str(tmp_path / "run")]) == 0
    assert head in (tmp_path / "run" / "report.html").read_text()
    table = tmp_path / "table.md"
    assert main(["compare", str(tmp_path / "run"), "--markdown", str(table)]) == 0
    rows = [line.split("|")[1].strip() for line in table.read_text().splitlines() if "|" in line]
    assert rows[-2:] == ["chance", "ridge"]
