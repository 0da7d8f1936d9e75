"""Truth beyond the pairs: GoalWorld's files, and JSON as Crisscrossed Captions has it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import embeddings, evaluated, refused, save

import goal_kernels as gk
from goal_kernels.data import TruthRelation
from goal_kernels.data.goalworld.dataset import generate_goalworld
from goal_kernels.evaluate.truth_files import read_truth


def test_a_goalworld_folder_brings_truth_and_oracle(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "world"
    generate_goalworld(folder, preset="tiny", train=12, dev=12, test=32)
    image, text = embeddings(images=32, noise=1.5)
    file = save(tmp_path / "set.npz", image, text)
    record = evaluated(tmp_path, file, "--data.folder", folder)
    truth = TruthRelation.load(folder / "test_truth.npz")
    wanted = gk.relevance_metrics((image, text), truth, torch.arange(160) // 5)
    assert record["truth"] == wanted
    assert record["oracle"] == json.loads((folder / "oracle.json").read_text())["test"]
    shown = capsys.readouterr().out
    assert "oracle" in shown
    assert "errors that are true" in shown
    direct = evaluated(tmp_path, file, "--truth", folder / "test_truth.npz")
    assert direct["truth"] == wanted
    assert direct["oracle"] is None
    dev = refused(capsys, file, "--truth", folder / "dev_truth.npz")
    assert "expected a relation of 160 captions by 32 images, found (60, 12)" in dev


def pairs(truth: TruthRelation) -> set[tuple[int, int]]:
    return {(t, int(i)) for t in range(truth.shape[0]) for i in truth.images_of(t)}


def test_json_by_row_number(tmp_path: Path) -> None:
    file = tmp_path / "truth.json"
    file.write_text(json.dumps({"t2i": {"0": [0, [1, 4.5]], "3": []}, "i2t": {"1": [0, "2"]}}))
    assert pairs(read_truth(file, 4, 2)) == {(0, 0), (0, 1), (2, 1)}


def test_json_by_id(tmp_path: Path) -> None:
    """Ids in the file; pairs of other splits are left out."""
    file = tmp_path / "truth.json"
    record = {"t2i": {"c1": [["9", 5], ["77", 5]], "c9": ["9"]}, "image_ids": [8, 9]}
    file.write_text(json.dumps({**record, "caption_ids": ["c0", "c1", "c2"]}))
    assert pairs(read_truth(file, 3, 2)) == {(1, 1)}
    with pytest.raises(ValueError, match="expected 4 different caption_ids, found 3"):
        read_truth(file, 4, 2)


def test_crisscrossed_captions_as_they_come(tmp_path: Path) -> None:
    """Ids in files beside it, those of images once for each caption."""
    (tmp_path / "testall_ids.txt").write_text("391895\n391895\n60623\n60623\n")
    (tmp_path / "testall_capids.txt").write_text("11\n12\n13\n14\n")
    file = tmp_path / "cxc_it.json"
    record = {
        "t2i": {"11": [[391895, 5.0]], "13": [[60623, 5.0], [391895, 4.1]]},
        "i2t": {"391895": [[11, 5.0], [12, 5.0]], "60623": [[14, 5.0]]},
    }
    file.write_text(json.dumps(record))
    assert pairs(read_truth(file, 4, 2)) == {(0, 0), (1, 0), (2, 0), (2, 1), (3, 1)}
    image, text = embeddings(images=2, each=2)
    found = evaluated(tmp_path, save(tmp_path / "set.npz", image, text), "--truth", file)
    assert found["truth"]["t2i"]["mean_relevant"] == 5 / 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1", "expected JSON, found"),
        ("[1]", 'expected {"t2i"'),
        ('{"other": {}}', 'expected {"t2i"'),
        ('{"t2i": {"17": [0], "0": [0]}}', "give row numbers from 0"),
        ('{"t2i": {"2": [2]}}', "3 captions and 2 images"),
        ('{"t2i": {}}', "give row numbers from 0"),
    ],
)
def test_json_that_says_nothing(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "truth.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_truth(tmp_path / "truth.json", 3, 2)
    with pytest.raises(FileNotFoundError):
        read_truth(tmp_path / "missing.json", 3, 2)


def test_a_relation_that_is_no_relation(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    np.savez(tmp_path / "truth.npz", indptr=np.zeros(3))
    file = save(tmp_path / "set.npz", *embeddings())
    assert "lacks" in refused(capsys, file, "--truth", tmp_path / "truth.npz")
