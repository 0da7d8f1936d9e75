"""A run that was cut off and resumed equals, bit for bit, one that never stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pytorch_lightning")

from run_cases import assert_same_run, fit, interrupted_fit, resume

from goal_kernels.training.run_folder import RunFolder

VARIANTS = {
    "plain": (),
    "accumulation": ("--trainer.accumulate_grad_batches", "2", "--run.save_every_steps", "1"),
    "workers": ("--data.num_workers", "2"),
    "validation inside epochs": ("--trainer.val_check_interval", "2"),
    "steps": (
        *("--trainer.max_steps", "14", "--trainer.max_epochs", "-1"),
        *("--trainer.check_val_every_n_epoch", "null", "--trainer.val_check_interval", "5"),
    ),
}


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    """Runs that never stopped."""
    runs = {}
    for name, options in VARIANTS.items():
        root = tmp_path_factory.mktemp("whole")
        assert fit(folder, root, *options) == 0
        runs[name] = RunFolder(root / "run")
    return runs


@pytest.mark.parametrize(
    ("variant", "batches"),
    [
        *(("plain", batches) for batches in (1, 7, 8)),  # before any save, inside and at an epoch
        ("accumulation", 7),
        ("workers", 10),
        ("validation inside epochs", 6),  # a validation has just run
        ("steps", 5),
        ("steps", 12),
    ],
)
def test_resumed_equals_uninterrupted(
    whole: dict[str, RunFolder], folder: Path, tmp_path: Path, variant: str, batches: int
) -> None:
    run = interrupted_fit(folder, tmp_path, batches, *VARIANTS[variant])
    assert resume(run) == 0
    assert_same_run(whole[variant], run)
