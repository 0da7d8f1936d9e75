"""Checkpoint files: whole or not there, damage noticed, other models refused in words."""

from __future__ import annotations

import errno
import zipfile
from pathlib import Path

import pytest
import torch

from goal_kernels.training import checkpoints
from goal_kernels.training.checkpoints import (
    CheckpointError,
    check_tokenizer,
    check_weights,
    checksum_matches,
    load_checkpoint,
    look_into_checkpoint,
    save_checkpoint,
)

STATE = {"state_dict": {"weight": torch.arange(6.0)}, "global_step": 7, "note": ("a", None, [1.5])}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "last.ckpt"
    save_checkpoint(STATE, path)
    return path


def test_what_is_saved_is_loaded(saved: Path) -> None:
    assert checksum_matches(saved) is True
    for read in (load_checkpoint, look_into_checkpoint):
        loaded = read(saved)
        assert torch.equal(loaded["state_dict"]["weight"], STATE["state_dict"]["weight"])
        assert loaded["note"] == ("a", None, [1.5])
    assert list(saved.parent.iterdir()) == [saved]


def test_other_programs_read_it_too(saved: Path) -> None:
    assert torch.load(saved, weights_only=True)["global_step"] == 7
    with zipfile.ZipFile(saved) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"sha256:")


@pytest.mark.parametrize("place", [0, 100, -1, -80, -120])
def test_one_wrong_bit_is_noticed(saved: Path, place: int) -> None:
    data = bytearray(saved.read_bytes())
    data[place] ^= 4
    saved.write_bytes(data)
    assert not checksum_matches(saved)


@pytest.mark.parametrize("kept", [0, 1, 70, 500, -1, -71])
def test_a_torn_file_is_noticed(saved: Path, kept: int) -> None:
    saved.write_bytes(saved.read_bytes()[:kept])
    assert not checksum_matches(saved)
    if kept >= 0:  # what torch wrote is whole when only the comment behind it is torn
        with pytest.raises(CheckpointError, match=r"last\.ckpt: is (torn|damaged)"):
            load_checkpoint(saved)


def test_a_file_without_a_checksum_is_read_as_it_is(tmp_path: Path) -> None:
    torch.save({"global_step": 3}, tmp_path / "other.ckpt")
    assert checksum_matches(tmp_path / "other.ckpt") is None
    assert load_checkpoint(tmp_path / "other.ckpt") == {"global_step": 3}


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    torch.save({"objects": Path("x")}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="unpickling"):
        load_checkpoint(tmp_path / "other.ckpt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.ckpt"):
        load_checkpoint(tmp_path / "none.ckpt")


def test_the_file_before_is_kept(saved: Path) -> None:
    previous = saved.with_name("previous.ckpt")
    for step in (8, 9):
        save_checkpoint({"global_step": step}, saved, previous)
    assert load_checkpoint(saved)["global_step"] == 9
    assert load_checkpoint(previous)["global_step"] == 8


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_full_disk_leaves_what_was_there(
    saved: Path, monkeypatch: pytest.MonkeyPatch, wrapped: bool
) -> None:
    def fill_up(_: object, file: object) -> None:
        try:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            if not wrapped:
                raise
            raise RuntimeError("unexpected pos")  # noqa: B904  as torch's zip writer does

    monkeypatch.setattr(checkpoints.torch, "save", fill_up)
    with pytest.raises(CheckpointError, match=r"No space left.*untouched; free some space"):
        save_checkpoint({"global_step": 8}, saved, saved.with_name("previous.ckpt"))
    monkeypatch.undo()
    assert list(saved.parent.iterdir()) == [saved]
    assert load_checkpoint(saved)["global_step"] == 7


def test_weights_of_another_model_are_refused_in_words() -> None:
    expected = {"text.embedding.weight": torch.zeros(9, 4), "image.bias": torch.zeros(4)}
    check_weights(expected, {"state_dict": {k: v + 1 for k, v in expected.items()}})
    other = {**expected, "text.embedding.weight": torch.zeros(12, 4)}
    with pytest.raises(CheckpointError, match=r"\(12, 4\) instead of \(9, 4\).*--data\.vocabulary"):
        check_weights(expected, {"state_dict": other})
    renamed = {"text.embedding.weight": torch.zeros(9, 4), "conv.weight": torch.zeros(4)}
    with pytest.raises(
        CheckpointError, match=r"run\.weights.*missing: image\.bias; not of this model: conv"
    ):
        check_weights(expected, {"state_dict": renamed}, "run.weights")
    with pytest.raises(CheckpointError, match="expected weights under 'state_dict'"):
        check_weights(expected, {"model": expected})


def test_what_stands_where_a_weight_should_is_refused_by_name() -> None:
    expected = {"image.bias": torch.zeros(4)}
    with pytest.raises(CheckpointError, match=r"image\.bias str instead of \(4,\)"):
        check_weights(expected, {"state_dict": {"image.bias": "x"}})


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(2), {"record": "x", "state_dict": {}}])
def test_a_readable_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pt")
    for read in (load_checkpoint, look_into_checkpoint):
        with pytest.raises(CheckpointError, match=r"other\.pt: expected names with values"):
            read(tmp_path / "other.pt")


def test_words_of_another_vocabulary_are_refused() -> None:
    check_tokenizer("words (57 ids)", {"record": {"tokenizer": "words (57 ids)"}})
    check_tokenizer("words (57 ids)", {"state_dict": {}})
    with pytest.raises(CheckpointError, match=r"words \(60 ids\), got words \(57 ids\)"):
        check_tokenizer("words (57 ids)", {"record": {"tokenizer": "words (60 ids)"}})
