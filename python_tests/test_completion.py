"""`goal-kernels completion`: its script completes in a real shell what the parsers take."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from goal_kernels import cli


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("shtab")
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    path = tmp_path_factory.mktemp("completion") / "goal-kernels.bash"
    with pytest.MonkeyPatch.context() as patch, path.open("w") as stream:
        patch.setattr("sys.stdout", stream)
        assert cli.main(["completion", "bash"]) == 0
    return path


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["ev"], ["eval"]),
        (["data", "in"], ["inspect"]),
        (["eval", "--proto"], ["--protocol"]),
        (["eval", "--protocol", "coco"], ["coco-1k", "coco-5k"]),
        (["fit", "--config", "goalworld_l"], ["goalworld_late"]),
        (["mine", "my_f"], ["my_file.npy"]),
    ],
    ids=lambda words: " ".join(words),
)
def test_bash_completes(
    typed: list[str], expected: list[str], script: Path, tmp_path: Path
) -> None:
    (tmp_path / "my_file.npy").touch()
    words = " ".join(["goal-kernels", *typed])
    program = f"""
        source {script}
        COMP_WORDS=({words}); COMP_CWORD={len(typed)}
        _shtab_goal_kernels
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert sorted(done.stdout.split()) == expected


def test_without_shtab_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("goal_kernels.extras.find_spec", lambda name: None)
    assert cli.main(["completion", "zsh"]) == 2
    assert "completion needs shtab: pip install" in capsys.readouterr().err
