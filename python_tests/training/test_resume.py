"""A run that was cut off and resumed equals, bit for bit, one that never stopped."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("pytorch_lightning")

from run_cases import assert_same_run, fit, interrupted_fit, resume

from goal_kernels.training.run_folder import RunFolder

THREE_EPOCHS = ("--trainer.max_epochs", "3")  # of four batches
VARIANTS = {
    "plain": THREE_EPOCHS,
    "accumulation": (
        *THREE_EPOCHS,
        *("--trainer.accumulate_grad_batches", "2", "--run.save_every_steps", "1"),
    ),
    "drawn captions and negatives": (  # two batches an epoch, each image once in them
        *(*THREE_EPOCHS, "--data.captions_per_image", "1", "--model.warmup_steps", "0"),
        *("--model.negatives", "sampled:0.1", "--model.false_negative_margin", "0.2"),
    ),
    "negative memory": (*THREE_EPOCHS, "--model.negative_memory", "20"),
    "negative memory of images": (  # warm-up included, whose first steps fill it
        *(*THREE_EPOCHS, "--data.captions_per_image", "0", "--model.negative_memory", "30"),
        *("--model.warmup_steps", "2", "--model.negatives", "top:2"),
    ),
    "workers": (*THREE_EPOCHS, "--data.num_workers", "2"),
    "validation inside epochs": (*THREE_EPOCHS, "--trainer.val_check_interval", "2"),
    "steps": (
        *("--trainer.max_steps", "11", "--trainer.max_epochs", "-1"),
        *("--trainer.check_val_every_n_epoch", "null", "--trainer.val_check_interval", "5"),
    ),
}


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RunFolder]:
    """Runs that never stopped, each made when it is first asked for: workers share the tests."""

    @functools.cache
    def run(variant: str) -> RunFolder:
        root = tmp_path_factory.mktemp("whole")
        assert fit(folder, root, *VARIANTS[variant]) == 0
        return RunFolder(root / "run")

    return run


@pytest.mark.parametrize(
    ("variant", "batches"),
    [
        *(("plain", batches) for batches in (1, 7, 8)),  # before any save, inside and at an epoch
        ("accumulation", 7),
        ("drawn captions and negatives", 3),
        ("negative memory", 7),
        ("negative memory of images", 4),
        ("workers", 10),
        ("validation inside epochs", 6),  # a validation has just run
        ("steps", 5),
        ("steps", 8),  # an epoch has just ended, between two validations
    ],
)
def test_resumed_equals_uninterrupted(
    whole: Callable[[str], RunFolder], folder: Path, tmp_path: Path, variant: str, batches: int
) -> None:
    run = interrupted_fit(folder, tmp_path, batches, *VARIANTS[variant])
    assert resume(run) == 0
    assert_same_run(whole(variant), run)
