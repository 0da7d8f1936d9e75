"""What a run does when something goes wrong: it says so in a sentence and loses nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("pytorch_lightning")

from made_up_data import write_made_up_split
from run_cases import before_training_step, fit, interrupted_fit, resume

from goal_kernels.cli import main
from goal_kernels.extras import MissingPackageError, load_package
from goal_kernels.training.checkpoints import load_checkpoint, save_checkpoint
from goal_kernels.training.compare.runs import read_runs
from goal_kernels.training.lightning_module import RetrievalModule
from goal_kernels.training.run_folder import RunFolder

THREE_EPOCHS = ("--trainer.max_epochs", "3")


def spoil_weights_at(step: int):
    def spoil(module: RetrievalModule) -> None:
        if module.global_step == step:
            with torch.no_grad():
                next(module.parameters()).fill_(float("nan"))

    return before_training_step(spoil)


def test_a_loss_that_is_not_finite_fails_the_run_and_keeps_the_last_finite_resume_point(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with spoil_weights_at(7):
        assert fit(folder, tmp_path, *THREE_EPOCHS, "--run.not_finite_losses", "2") == 1
    said = capsys.readouterr().err
    assert "the loss has not been finite since step 8 (3 steps in a row" in said
    assert "training images" in said
    run = RunFolder(tmp_path / "run")
    assert not run.metrics.exists()
    for path in (run.last, run.best):
        weights = load_checkpoint(path)["state_dict"].values()
        assert all(bool(value.isfinite().all()) for value in weights)
    assert load_checkpoint(run.last)["global_step"] == 6
    (read,) = read_runs([run.path])
    assert read.ending.endswith(
        "whose features are finite; lower --model.lr or warm up longer (--model.warmup_steps)"
    )
    assert resume(run) == 0  # from the last finite step, without what spoiled the weights
    assert run.metrics.exists()


def test_a_training_that_ends_on_nan_has_failed_however_short(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with spoil_weights_at(3):
        assert fit(folder, tmp_path, "--trainer.max_epochs", "1") == 1
    assert "not been finite since step 4" in capsys.readouterr().err


def test_statistics_that_are_not_finite_end_a_run_whose_loss_is(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Training never reads the running statistics; every evaluation would."""

    def spoil(module: RetrievalModule) -> None:
        if module.global_step == 1:
            dict(module.named_buffers())["model.image_encoder.mlp.1.running_var"].fill_(torch.inf)

    with before_training_step(spoil):
        assert fit(folder, tmp_path, *THREE_EPOCHS) == 1
    said = capsys.readouterr().err
    assert "after step 4 the loss is finite" in said
    assert "running statistics model.image_encoder.mlp.1.running_var are not" in said


def test_features_that_are_not_finite_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """NaN that appears in the file while the run trains."""
    data = tmp_path / "data"
    for name, images in (("train", 24), ("dev", 12), ("test", 12)):
        write_made_up_split(data, name, images)
    features = np.load(data / "train_ims.npy", mmap_mode="r+")

    def spoil(module: RetrievalModule) -> None:
        if module.global_step == 4:
            features[5, 0, 0] = np.nan
            features.flush()

    with before_training_step(spoil):
        status = fit(
            *(data, tmp_path / "runs", *THREE_EPOCHS),
            *("--run.not_finite_losses", "0", "--data.min_count", "1"),
        )
    assert status == 1
    said = capsys.readouterr().err
    assert "not finite in float32: rows 5 of the training images" in said
    assert "data inspect" in said


def test_a_fit_that_is_refused_at_its_first_batch_leaves_no_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def fail(_: RetrievalModule) -> None:
        raise ValueError("model: cannot be trained")

    with before_training_step(fail):
        assert fit(folder, tmp_path) == 1
    assert "ValueError: model: cannot be trained" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_auto_after_a_kill_before_the_first_file_uses_the_name_once(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "slurm.out").write_text("scheduler")
    options = ("--run.resume", "auto", "--trainer.max_epochs", "1")
    assert fit(folder, tmp_path, *options) == 0
    trained = (tmp_path / "run" / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    assert fit(folder, tmp_path, *options) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").stat().st_mtime_ns == trained
    assert (tmp_path / "run" / "slurm.out").is_file()


def test_a_resume_point_whose_inside_is_wrong_is_refused_in_a_sentence(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = interrupted_fit(folder, tmp_path, 7)
    best = load_checkpoint(run.best)
    save_checkpoint({**best, "record": {"rsum": "high"}}, run.best)  # made anew, as if torn
    whole = load_checkpoint(run.last)
    for part in ("random", "history"):
        save_checkpoint({**whole, "resume": {**whole["resume"], part: [{}]}}, run.last)
        assert resume(run) == 2
        assert "last.ckpt: could not be restored (KeyError" in capsys.readouterr().err
    run.last.unlink()
    assert resume(run) == 0
    assert isinstance(load_checkpoint(run.best)["record"]["rsum"], float)


def test_a_log_with_a_hole_is_noticed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert fit(folder, tmp_path, "--trainer.max_epochs", "1") == 0
    run = RunFolder(tmp_path / "run")
    lines = run.history.read_text().splitlines(keepends=True)
    run.history.write_text("".join(lines[:2] + lines[4:]))
    run.metrics.unlink()
    run.environment.unlink()
    assert resume(run) == 0
    said = capsys.readouterr().out
    assert f"has {len(lines) - 3} of the {len(lines) - 1} rows" in said
    assert json.loads(run.environment.read_text())["sessions"][0]["ended"] == "finished"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--model.lrr", "1"), "did you mean --model.lr?"),
        (("--data.objective", "x"), "did you mean --model.objective?"),
        (("--config", "goalworl"), "did you mean goalworld?"),
        (("--model.lr", "abc"), 'key "model.lr"'),
        (("--model.objective_parameters", "[" * 50_000), "[...: more than 64 levels"),
        ((f"--trainer.plugins={'[' * 50_000}",), "more than 64 levels"),
        (("--trainer.accelerator", "gpu"), "accelerator"),
        (("--model.image.kind", "regionn"), "model.image.kind: expected"),
        (
            ("--model.fusion.heads", "3"),
            "error: model.fusion.heads: expected a divisor of width 64, got 3; change it or",
        ),
        (("--model.scores.kind", "latte"), "error: model.scores.kind: expected 'late' or"),
        (("--model.fusion.headss", "3"), "\"model.fusion\": Option 'headss' is not accepted; did"),
        (
            ("--model.scores.objective_parameters.tau", "x"),
            "\"model.scores.objective_parameters\": Expected a <class 'float'>. Got value: x (all",
        ),
        (("--run.threads", "x"), "\"run.threads\": Expected a <class 'int'>. Got value: x (all"),
        (
            ("--trainer.limit_val_batches", "x"),
            'key "trainer.limit_val_batches": Expected one of [<class',
        ),
        (
            ("--data.captions_per_image", "-1"),
            "data.captions_per_image: expected at least 1, 0 for",
        ),
        (
            ("--data.captions_per_image", "0", "--model.mask_same_image", "false"),
            "model.mask_same_image: expected true with data.captions_per_image",
        ),
        (
            ("--model.negatives", "semihard"),
            "error: model.negatives: expected hardest, semi_hard, skip:N, top:N",
        ),
    ],
)
def test_a_wrong_option_is_one_line(
    folder: Path, tmp_path: Path, given: tuple[str, ...], said: str, capsys: pytest.CaptureFixture
) -> None:
    assert fit(folder, tmp_path / "runs", *given) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "runs" / "run").exists()


def test_options_of_a_part_that_is_off_are_noticed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    given = ("--model.fusion.aligned", "true", "--model.fusion.pairs", "8")
    assert fit(folder, tmp_path, "--trainer.max_epochs", "1", *given) == 0
    said = capsys.readouterr().err
    assert said.count("no effect") == 1
    assert (
        "WARNING: model.fusion.aligned, model.fusion.pairs: no effect without model.fusion.layers, "
        "which is 0; switch it on, for instance with --model.fusion.layers 2, or leave"
    ) in said


def test_a_wrong_key_of_a_configuration_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = tmp_path / "own.yaml"
    config.write_text("model:\n  objectve: hinge/constant\n")
    assert main(["fit", "--config", str(config)]) == 2
    printed = capsys.readouterr().err
    assert "did you mean model.objective?" in printed
    assert printed.count("\n") == 1


def test_an_option_given_twice_is_not_lost(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = tmp_path / "own.yaml"
    config.write_text("model:\n  lr: 0.1\n  seed: 1\n  lr: 0.2\n")
    assert main(["fit", "--config", str(config)]) == 2
    printed = capsys.readouterr().err
    assert f"{config}, got lr twice, again in line 4" in printed
    assert printed.count("\n") == 1


def test_a_package_made_for_another_torch_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd_vision.py").write_text(
        "raise RuntimeError('operator odd::nms does not exist')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        MissingPackageError, match=r"model\.image: needs odd_vision.*nms.*this torch"
    ):
        load_package("odd_vision", "grid", "model.image")
