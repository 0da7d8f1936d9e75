"""The command line of the data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from goal_kernels.cli import main


def run(*arguments: str) -> int:
    return main(["data", "synth", *arguments])


SMALL = ("--preset", "tiny", "--train", "6", "--dev", "6", "--test", "6")


def test_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "out")
    assert run("--folder", folder, *SMALL, "--min-objects", "4", "--dtype", "float16") == 0
    printed = capsys.readouterr()
    for part in ("made in", "train", "oracle", "t2i R@1", "rsum", "vocabulary:", folder):
        assert part in printed.out
    captions = (tmp_path / "out" / "test_caps.txt").read_text().splitlines()
    assert sum(caption in printed.out for caption in captions) >= 3
    assert "train images: 6" in printed.err
    assert run("--folder", folder, *SMALL, "--min-objects", "4", "--dtype", "float16") == 0
    assert "there already" in capsys.readouterr().out


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "out")
    assert run("--folder", folder, *SMALL, "--dim", "3") == 2
    assert "dim: expected 16" in capsys.readouterr().err
    assert run("--folder", folder, *SMALL) == 0
    assert run("--folder", folder, *SMALL, "--seed", "1") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run("--folder", folder, *SMALL, "--seed", "1", "--overwrite") == 0


def test_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*SMALL) == 0
    assert (tmp_path / "data" / "goalworld_tiny" / "dataset.json").is_file()


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    text = capsys.readouterr().out
    for part in ("{split}_ims.npy", "medium", "Examples", "--contrast", "oracle", "SHA-256"):
        assert part in text
    assert max(len(line) for line in text.splitlines()) <= 100
