"""A whole run through the command: dataset, training, test, metrics.json, report.html."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("pytorch_lightning")

from goal_kernels.cli import main
from goal_kernels.data.goalworld import generate_goalworld
from goal_kernels.training.density import read_density

RECALLS = ("R@1", "R@5", "R@10")


@dataclass
class Run:
    """The folder of the finished run, the data it used, what it printed."""

    path: Path
    data: Path
    printed: str


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("whole")
    generate_goalworld(root / "data", preset="tiny", seed=0)
    threads = torch.get_num_threads()
    capture = pytest.MonkeyPatch()
    lines: list[str] = []
    capture.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
    status = main(
        [
            *("fit", "--config", "goalworld_tiny"),
            *("--data.folder", str(root / "data"), "--run.root", str(root / "runs")),
            *("--run.name", "a<b", "--trainer.max_epochs", "3", "--model.warmup_steps", "20"),
        ]
    )
    capture.undo()
    torch.set_num_threads(threads)
    assert status == 0
    return Run(root / "runs" / "a<b", root / "data", "\n".join(lines))


@pytest.fixture(scope="module")
def metrics(run: Run) -> dict:
    return json.loads((run.path / "metrics.json").read_text())


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    return (run.path / "report.html").read_text()


def test_the_run_folder_is_complete(run: Run) -> None:
    files = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    assert files >= {
        "config.yaml",
        "environment.json",
        "metrics.json",
        "report.html",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "metrics.csv",
        "pairs.json",
        "hardest.json",
    }
    assert not [name for name in files if name.endswith(".partial")]
    assert any("tfevents" in name for name in files)
    assert str(run.path / "report.html") in run.printed
    assert re.search(r"epoch 3/3 .* pairs/s, data wait", run.printed)
    assert "Seed set" not in run.printed
    header = (run.path / "metrics.csv").read_text().splitlines()[0].split(",")
    density = read_density(run.path / "pairs.json")
    assert list(density) == [1, 2, 3]
    assert {int(counts.sum()) for counts in density.values()} == {2 * 5 * 64}  # both anchors
    assert {"time/pairs_per_second", "time/data_wait_fraction", "val/rsum"} <= set(header)


def test_metrics_schema(metrics: dict) -> None:
    assert set(metrics) == {
        *("split", "i2t", "t2i", "ar", "ari", "rsum", "oracle", "chance", "siblings"),
        *("objective", "warmup_steps", "epochs", "seconds", "seed", "selected", "best", "last"),
    }
    assert metrics["selected"] == "best"
    assert metrics["rsum"] == metrics["best"]["rsum"]
    assert metrics["last"]["epoch"] == 3
    assert metrics["best"]["dev_rsum"] >= metrics["last"]["dev_rsum"]
    for record in (metrics, metrics["chance"]):
        for direction in ("i2t", "t2i"):
            assert set(record[direction]) == {*RECALLS, "median_rank", "mean_rank"}
        total = sum(record[d][recall] for d in ("i2t", "t2i") for recall in RECALLS)
        assert record["rsum"] == pytest.approx(total)
    assert metrics["split"] == "test"
    assert metrics["epochs"] == 3
    assert metrics["objective"]["name"] == "hinge/constant"
    assert metrics["oracle"]["rsum"] > metrics["chance"]["rsum"]


def test_the_model_learnt_the_tiny_set_by_heart(run: Run) -> None:
    """What 64 images can show: figures of the training split, which say that they are."""
    last = run.path / "checkpoints" / "last.ckpt"
    config = ("--config", str(run.path / "config.yaml"), "--run.name", "by_heart")
    given = ("--data.test_split", "train", "--ckpt_path", str(last))
    assert main(["test", *config, *given]) == 0
    folder = run.path.parent / "by_heart"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["split"] == "train"
    assert metrics["rsum"] > metrics["chance"]["rsum"] + 250
    page = (folder / "report.html").read_text()
    assert "among 64 images of the train split, on which it was trained" in page
    assert "<h2>Retrieval: train split, on which it was trained</h2>" in page
    assert page.count('<li class="match">') >= 5


def test_the_recorded_configuration_can_be_run_again(run: Run) -> None:
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == 3
    assert config["model"]["objective"] == "hinge/constant"
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["seed"] == 0
    assert environment["command"][:4] == ["goal-kernels", "fit", "--config", "goalworld_tiny"]
    assert [session["ended"] for session in environment["sessions"]] == ["finished"]


class Audit(HTMLParser):
    """Collects what a page refers to and checks that its elements are closed in order."""

    VOID = frozenset({"meta", "img", "link", "br", "rect", "line", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.images: list[dict] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        given = dict(attributes)
        self.references += [given[name] for name in ("src", "href") if name in given]
        if tag == "img":
            self.images.append(given)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_needs_nothing_else(page: str) -> None:
    audit = Audit()
    audit.feed(page)
    assert audit.open == []
    assert all(reference.startswith("data:") for reference in audit.references)
    assert not re.findall(r"https?://", page)
    assert "<script" not in page
    assert "@import" not in page
    assert "url(" not in page


def test_the_report_shows_what_was_found(page: str, metrics: dict) -> None:
    audit = Audit()
    audit.feed(page)
    mined = page[page.index("Hardest negatives, early and late") : page.index("<h2>Examples")]
    assert mined.count("<img") == 4 * (1 + 3) + 4
    examples = page[page.index("<h2>Examples") :]
    assert examples.count("<img") == 6 * 5 + examples.count("its image</span>") + 4
    assert len(audit.images) == mined.count("<img") + examples.count("<img")
    assert all(image["alt"] for image in audit.images)
    assert f"{metrics['t2i']['R@1']:.1f} %" in page
    assert "among 32 images of the test split (chance" in page
    for heading in ("Retrieval: test split", "Training", "Examples", "How it was made"):
        assert f"<h2>{heading}</h2>" in page
    assert page.count("<figure>") == 11 + 3 + 1  # maps, and the share of anchors in the wrong
    assert re.search(r"Collapsed: \d+ of \d+ logged steps\.", page)
    assert "Epoch 1: n above p for " in page
    assert "Epoch 3: n above p for " in page
    assert 'class="mark">✗ wrong' in page


def test_the_report_is_written_again_beside_another_run(run: Run, page: str, capsys) -> None:
    assert main(["report", str(run.path), "--output", str(run.data / "again.html")]) == 0
    assert (run.data / "again.html").read_text() == page
    other = run.path.parent / "other"
    shutil.copytree(run.path, other)
    log = other / "metrics.csv"
    rows = list(csv.DictReader(log.read_text().splitlines()))
    rows[-2]["train/loss"] = "1"
    with log.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    before = [int(row["step"]) for row in rows[:-2] if row["train/loss"]][-1]
    assert main(["report", str(run.path), "--beside", str(other)]) == 0
    beside = (run.path / "report.html").read_text()
    assert f"equal number for number up to step {before:,}:" in beside
    assert '<th scope="col">hardest' not in beside
    for name in ("hinge/constant (a&lt;b)", "hinge/constant (other)"):
        assert f'<th scope="col">{name}</th>' in beside
    assert beside.count("<figure>") == page.count("<figure>") + 4
    assert '<th scope="row">collapsed steps, %</th>' in beside
    capsys.readouterr()
    (other / "metrics.json").unlink()
    assert main(["report", str(run.path), "--beside", str(other)]) == 2
    assert "expected a finished run, found no metrics.json in it" in capsys.readouterr().err
    shutil.rmtree(other)


def test_the_report_escapes_names(page: str) -> None:
    assert "<h1>a&lt;b</h1>" in page
    assert "a<b" not in page


def test_testing_a_checkpoint_again_gives_the_same_metrics(run: Run, metrics: dict) -> None:
    status = main(
        [
            *("test", "--config", str(run.path / "config.yaml"), "--run.name", "again"),
            *("--ckpt_path", str(run.path / "checkpoints" / "best.ckpt")),
        ]
    )
    assert status == 0
    again = json.loads((run.path.parent / "again" / "metrics.json").read_text())
    for key in ("i2t", "t2i", "rsum", "chance"):
        assert again[key] == metrics[key]
    assert "<h2>Training</h2>" not in (run.path.parent / "again" / "report.html").read_text()
