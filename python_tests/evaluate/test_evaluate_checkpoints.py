"""`goal-kernels eval` on what `goal-kernels fit` leaves."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import evaluated, refused

from goal_kernels import cli, extras
from goal_kernels.data.goalworld.dataset import generate_goalworld

pytest.importorskip("pytorch_lightning")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a few steps on the smallest GoalWorld."""
    root = tmp_path_factory.mktemp("fit")
    generate_goalworld(root / "world", preset="tiny", train=24, dev=12, test=16)
    arguments = ["fit", "--config", "goalworld_tiny", "--trainer.max_epochs", "1"]
    arguments += ["--data.folder", str(root / "world"), "--run.root", str(root / "runs")]
    arguments += ["--data.test_split", "test", "--model.embed_dim", "16"]
    assert cli.main(arguments) == 0
    return root / "runs" / "goalworld_tiny"


def test_a_run_is_evaluated_as_its_own_test_did(run: Path, tmp_path: Path) -> None:
    import json

    wanted = json.loads((run / "metrics.json").read_text())
    record = evaluated(tmp_path, run)
    plain = record["protocols"]["plain"]
    for direction in ("i2t", "t2i"):
        assert plain["mean"][direction] == pytest.approx(wanted[direction])
        assert plain["chance"][direction] == pytest.approx(wanted["chance"][direction])
    assert record["oracle"] == wanted["oracle"]
    assert record["siblings"] == {
        f"{run}, split test": pytest.approx(wanted["siblings"]["dual"]),
        "chance": {"i2t": pytest.approx(100 / 3), "t2i": pytest.approx(100 / 3)},
    }
    assert record["truth"]["t2i"]["queries"] == 80
    assert record["inputs"] == [f"{run}, split test"]
    again = evaluated(tmp_path, run / "checkpoints" / "best.ckpt", "--device", "cpu")
    assert again["protocols"] == record["protocols"]


def test_saved_embeddings_replace_model_and_data(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "saved.npz"
    record = evaluated(tmp_path, run, "--split", "dev", "--save-embeddings", file)
    assert record["images"] == 12
    with np.load(file, allow_pickle=False) as stored:
        shapes = {name: stored[name].shape for name in stored.files}
    assert shapes == {
        "image_embeddings": (12, 16),
        "text_embeddings": (60, 16),
        "image_of_caption": (60,),
    }
    saved = evaluated(tmp_path, file)
    assert saved["protocols"] == record["protocols"]
    both = evaluated(tmp_path, file, run, "--split", "dev")
    assert both["protocols"] == record["protocols"], "the mean of a model and itself"


def test_groups_of_the_data_count_and_are_saved(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Every image of a caption's group is right, from the run and from what it saved."""
    world, file = tmp_path / "world", tmp_path / "saved.npz"
    shutil.copytree(run.parent.parent / "world", world)
    (world / "test_groups.txt").write_text("".join(f"{row // 4}\n" for row in range(16)))
    record = evaluated(tmp_path, run, "--data.folder", world, "--save-embeddings", file)
    assert "16 images of 4 groups" in " ".join(record["notes"])
    with np.load(file, allow_pickle=False) as stored:
        assert stored["groups"].tolist() == [row // 4 for row in range(16)]
        sides = stored["image_embeddings"], stored["text_embeddings"]
    assert evaluated(tmp_path, file)["protocols"] == record["protocols"]
    assert evaluated(tmp_path, file, file)["protocols"] == record["protocols"]
    plain = record["protocols"]["plain"]
    right = np.arange(16)[:, None] // 4 == np.arange(80) // 20
    best = np.where(right, sides[0] @ sides[1].T, -9).max(axis=0)
    hits = (np.where(right, -9, sides[0] @ sides[1].T).max(axis=0) < best).mean()
    assert plain["mean"]["t2i"]["R@1"] == pytest.approx(100 * hits)
    assert plain["chance"]["t2i"]["R@1"] == pytest.approx(25)
    np.savez(tmp_path / "a.npz", image_embeddings=sides[0], text_embeddings=sides[1])
    for wrong, words in ((np.ones(16), "an integer an image"), (np.arange(15), "shape [16]")):
        kept = {"image_embeddings": sides[0], "text_embeddings": sides[1], "groups": wrong}
        np.savez(tmp_path / "wrong.npz", **kept)
        assert words in refused(capsys, tmp_path / "wrong.npz")
    other = evaluated(tmp_path, tmp_path / "a.npz", "--data.folder", world)
    assert other["protocols"] == record["protocols"]


def test_other_data_of_the_same_kind(run: Path, tmp_path: Path) -> None:
    world = run.parent.parent / "world"
    moved = tmp_path / "moved"
    world.rename(moved)
    try:
        told = refused_words(run, tmp_path)
        record = evaluated(tmp_path, run, "--data.folder", moved, "--data", "batch_size=7")
    finally:
        moved.rename(world)
    assert "data.folder: expected a dataset" in told
    assert record["protocols"] == evaluated(tmp_path, run)["protocols"]


def refused_words(run: Path, tmp_path: Path) -> str:
    from contextlib import redirect_stderr
    from io import StringIO

    with redirect_stderr(StringIO()) as said:
        assert cli.main(["eval", str(run)]) == 2
    return said.getvalue()


def test_models_that_cannot_be_evaluated(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = tmp_path / "other"
    generate_goalworld(other, preset="tiny", train=24, dev=12, test=16, dim=20)
    torn = tmp_path / "torn.ckpt"
    torn.write_bytes((run / "checkpoints" / "best.ckpt").read_bytes()[:2000])
    strange = tmp_path / "strange.ckpt"
    torch.save({"model": torch.zeros(2)}, strange)
    unsafe = tmp_path / "unsafe.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": Path("x")}, unsafe)
    for words, arguments in {
        "was made for data of other sizes": [run, "--data.folder", other],
        "is torn or not a checkpoint": [torn],
        "it has no hyper-parameters": [strange],
        "unpickling them could run code": [unsafe],
        "expected a run folder with": [tmp_path],
        "it has ['train', 'dev', 'test']": [run, "--split", "sideways"],
        "expected NAME=VALUE": [run, "--data", "batch_size"],
        "batch_size": [run, "--data", "batch_size=many"],
        "colour": [run, "--data", "colour=red"],
        "'tpu9' cannot be used here": [run, "--device", "tpu9"],
    }.items():
        assert words in refused(capsys, *arguments), words


def test_a_missing_extra_names_the_remedy(
    run: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    assert f"a model needs pytorch_lightning, jsonargparse: {extras.install('train')}" in refused(
        capsys, run
    )


@pytest.fixture(scope="module")
def scored(run: Path) -> Path:
    """The run folder of a model that scores pairs and matches them, on the data of `run`."""
    root = run.parents[1]
    arguments = ["fit", "--config", "goalworld_tiny", "--trainer.max_epochs", "1"]
    arguments += ["--data.folder", str(root / "world"), "--run.root", str(root / "runs")]
    arguments += ["--model.embed_dim", "16", "--run.name", "late"]
    arguments += ["--model.scores.kind", "late", "--model.scores.rerank", "3"]
    arguments += ["--model.fusion.layers", "1", "--model.fusion.aligned", "true"]
    arguments += ["--model.fusion.width", "8", "--model.fusion.rerank", "2"]
    assert cli.main(arguments) == 0
    return root / "runs" / "late"


def test_a_model_that_scores_pairs_shows_its_rankings(scored: Path, tmp_path: Path) -> None:
    import json

    wanted = json.loads((scored / "metrics.json").read_text())
    matrix = tmp_path / "scores.npy"
    record = evaluated(tmp_path, scored, "--save-scores", matrix)
    found = record["rankings"]["plain"]
    assert list(found) == list(wanted["rankings"]) == ["dual", "reranked", "full", "matched"]
    for name, metrics in found.items():
        assert metrics["t2i"] == pytest.approx(wanted["rankings"][name]["t2i"])
    assert wanted["t2i"] == wanted["rankings"]["matched"]["t2i"]
    assert record["scoring"]["scores"]["pairs"] == 16 * 80 + 3 * (16 + 80)
    assert record["scoring"]["matching"]["pairs"] == 2 * (16 + 80)
    assert record["protocols"]["plain"]["mean"] == found["matched"]
    assert "truth" not in record or not record["truth"]
    full = evaluated(tmp_path, scored, "--ranking", "full")
    assert full["protocols"]["plain"]["mean"] == found["full"]
    saved = evaluated(tmp_path, matrix, "--captions-per-image", "5")
    assert saved["protocols"] == full["protocols"], "saved scores are the model's"
    assert full["truth"]["t2i"]["queries"] == 80


def test_scores_that_were_stopped_go_on(
    scored: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture
) -> None:
    from goal_kernels.data.part_folder import PartFolder

    whole, stopped = tmp_path / "whole.npy", tmp_path / "stopped.npy"
    parts = tmp_path / "stopped.npy.parts"
    monkeypatch.setattr("goal_kernels.training.rankings.IMAGE_BLOCK", 5)
    monkeypatch.setattr("goal_kernels.evaluate.pair_rankings.IMAGE_BLOCK", 5)
    evaluated(tmp_path, scored, "--save-scores", whole)
    keep, left = PartFolder.keep, [2]

    def stop(self, path, **arrays) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        keep(self, path, **arrays)

    monkeypatch.setattr(PartFolder, "keep", stop)
    arguments = ["eval", str(scored), "--save-scores", str(stopped)]
    assert cli.main(arguments) == 130
    assert len(list(parts.glob("rows-*.npz"))) == 2
    monkeypatch.setattr(PartFolder, "keep", keep)
    other = refused(capsys, scored, "--save-scores", stopped, "--split", "dev")
    assert "found those of another" in other
    features = scored.parents[1] / "world" / "test_ims.npy"
    before = features.read_bytes()
    np.save(features, np.load(features)[::-1])
    assert "images differ" in refused(capsys, scored, "--save-scores", stopped)
    features.write_bytes(before)
    damaged = next(parts.glob("rows-*.npz"))
    content = damaged.read_bytes()
    with damaged.open("wb") as stream:
        np.savez(stream, scores=np.zeros((1, 1)))
    assert "delete it" in refused(capsys, scored, "--save-scores", stopped)
    damaged.write_bytes(content)
    record = evaluated(tmp_path, scored, "--save-scores", stopped)
    assert record["scoring"]["scores"]["pairs"] == 6 * 80 + 3 * (16 + 80)
    assert np.array_equal(np.load(stopped), np.load(whole))
    assert not parts.exists()


def test_rankings_that_are_cheaper_score_less(scored: Path, tmp_path: Path) -> None:
    full = evaluated(tmp_path, scored, "--ranking", "full")["rankings"]["plain"]
    reranked = evaluated(tmp_path, scored, "--ranking", "reranked")
    assert reranked["protocols"]["plain"]["mean"] == full["reranked"]
    assert reranked["scoring"]["scores"]["pairs"] == 3 * (16 + 80)
    dual = evaluated(tmp_path, scored, "--ranking", "dual")
    assert dual["protocols"]["plain"]["mean"] == full["dual"]
    assert dual["scoring"] == {}
    every = evaluated(tmp_path, scored, "--ranking", "reranked", "--rerank", "100")
    assert every["protocols"]["plain"]["mean"]["t2i"] == pytest.approx(full["full"]["t2i"])
    sorted_ties = evaluated(tmp_path, scored, "--ties", "argsort")
    assert list(sorted_ties["rankings"]["plain"]) == ["dual", "full"]


def test_scores_are_refused_where_there_are_none(
    run: Path, scored: Path, capsys: pytest.CaptureFixture
) -> None:
    assert "embeddings alone" in refused(capsys, run, "--ranking", "full")
    assert "--save-scores: expected" in refused(
        capsys, scored, "--ranking", "dual", "--save-scores", "x.npy"
    )
    assert "--rerank" in refused(capsys, scored, "--rerank", "0")


def test_what_cannot_be_ranked_is_refused_before_pairs_are_scored(
    run: Path, scored: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture
) -> None:
    from goal_kernels.training.rankings import PairScores

    late = tmp_path / "late"
    arguments = ["fit", "--config", "goalworld_tiny", "--trainer.max_epochs", "1"]
    arguments += ["--data.folder", str(run.parents[1] / "world"), "--run.root", str(tmp_path)]
    arguments += ["--model.embed_dim", "16", "--run.name", "late", "--model.scores.kind", "late"]
    assert cli.main(arguments) == 0
    monkeypatch.setattr(PairScores, "matrix", None)
    monkeypatch.setattr(PairScores, "of", None)
    wrong = refused(capsys, late, "--ranking", "matched", "--save-scores", tmp_path / "x.npy")
    assert "expected one of dual, reranked, full, which" in wrong
    assert not list(tmp_path.glob("x.npy*"))
    assert "do not divide into 3" in refused(capsys, late, "--folds", "3")
    assert "choose --ranking dual or full" in refused(capsys, scored, scored)


def test_a_model_that_matches_alone_says_what_it_can_do(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["fit", "--config", "goalworld_tiny", "--trainer.max_epochs", "1"]
    arguments += ["--data.folder", str(run.parents[1] / "world"), "--run.root", str(tmp_path)]
    arguments += ["--model.embed_dim", "16", "--run.name", "head", "--model.fusion.layers", "1"]
    assert cli.main([*arguments, "--model.fusion.width", "8"]) == 0
    head = tmp_path / "head"
    assert "expected one of dual, matched, which" in refused(capsys, head, "--ranking", "full")
    assert "matches pairs alone" in refused(capsys, head, "--save-scores", tmp_path / "x.npy")
    assert "choose --ranking dual" in refused(capsys, head, head)


def test_options_of_models_are_refused_for_what_they_do_not_change(
    scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    matrix = tmp_path / "saved.npy"
    np.save(matrix, np.eye(4, dtype=np.float32))
    for option, value in (("--rerank", "2"), ("--ranking", "dual"), ("--save-scores", "t.npy")):
        assert "not saved arrays" in refused(capsys, matrix, option, value)
    for option, value in (("--rerank", "2"), ("--save-scores", "both.npy")):
        wrong = refused(capsys, scored, scored, "--ranking", "full", option, value)
        assert "expected one model as the only INPUT, got 2 inputs" in wrong
