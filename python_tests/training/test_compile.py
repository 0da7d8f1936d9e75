"""`run.compile`: a compiled run trains as any other, and its checkpoints are any run's."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

pytest.importorskip("pytorch_lightning")

from run_cases import fit, resume, rows

from goal_kernels.training.run_folder import RunFolder


def test_a_compiled_run_trains_as_any_other(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled, compile_module = [], nn.Module.compile

    def traced(module: nn.Module) -> None:
        """Without the C++ compiler, which would take a minute."""
        compiled.append(type(module).__name__)
        compile_module(module, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", traced)
    losses = {}
    for name in ("plain", "compiled"):
        options = ["--trainer.max_epochs", "1", "--run.name", name]
        options += ["--run.compile", "true"] if name == "compiled" else []
        assert fit(folder, tmp_path, *options) == 0
        logged = rows(RunFolder(tmp_path / name))
        losses[name] = [float(row["train/loss"]) for row in logged if row["train/loss"]]
    assert compiled == ["VSE"]
    assert losses["compiled"] == pytest.approx(losses["plain"], rel=1e-5)
    run = RunFolder(tmp_path / "compiled")
    assert resume(run, "--run.compile", "false", "--trainer.max_epochs", "2") == 0
    assert compiled == ["VSE"]
