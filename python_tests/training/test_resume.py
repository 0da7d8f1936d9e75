"""A run that was cut off and resumed equals, bit for bit, one that never stopped."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

pytest.importorskip("pytorch_lightning")

from run_cases import assert_same_run, before_training_step, fit, interrupted_fit, resume

from goal_kernels.training.run_folder import RunFolder

VARIANTS = {
    "plain": (),
    "accumulation": ("--trainer.accumulate_grad_batches", "2", "--run.save_every_steps", "1"),
    "drawn captions and negatives": (  # two batches an epoch, each image once in them
        *("--data.captions_per_image", "1", "--trainer.max_epochs", "3"),
        *("--model.warmup_steps", "0"),
        *("--model.negatives", "sampled:0.1", "--model.false_negative_margin", "0.2"),
    ),
    "workers": ("--data.num_workers", "1"),
    "memory, validation inside epochs": (
        *("--model.negative_memory", "20", "--model.memory_momentum", "0.9"),
        *("--trainer.val_check_interval", "2"),
    ),
    "steps": (
        *("--trainer.max_steps", "11", "--trainer.max_epochs", "-1"),
        *("--trainer.check_val_every_n_epoch", "null", "--trainer.val_check_interval", "5"),
    ),
}


INTERRUPTIONS = [  # after so many batches
    *(("plain", batches) for batches in (1, 4)),  # before any save, at an epoch
    ("accumulation", 7),
    ("drawn captions and negatives", 3),
    ("workers", 6),
    ("memory, validation inside epochs", 6),  # a validation has just run
    ("memory, validation inside epochs", 7),
    ("steps", 5),
    ("steps", 8),  # an epoch has just ended, between two validations
]


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RunFolder]:
    """Runs that never stopped, each made when it is first asked for: workers share the tests.

    Beside a run lie copies of its folder, named by the batches that had been trained with: what
    would be left had the power failed then.
    """

    @functools.cache
    def run(variant: str) -> RunFolder:
        root = tmp_path_factory.mktemp("whole")
        moments = {batches for name, batches in INTERRUPTIONS if name == variant}
        trained = count()

        def keep(_: object) -> None:
            if (batches := next(trained)) in moments:
                shutil.copytree(root / "run", root / str(batches))

        with before_training_step(keep):
            assert fit(folder, root, *VARIANTS[variant]) == 0
        return RunFolder(root / "run")

    return run


@pytest.mark.parametrize(("variant", "batches"), INTERRUPTIONS)
def test_resumed_equals_uninterrupted(
    whole: Callable[[str], RunFolder], variant: str, batches: int
) -> None:
    run = RunFolder(whole(variant).path.parent / str(batches))
    assert not run.metrics.exists()
    assert resume(run) == 0
    assert_same_run(whole(variant), run)


def test_resumed_after_an_error_equals_uninterrupted(
    whole: Callable[[str], RunFolder], folder: Path, tmp_path: Path
) -> None:
    run = interrupted_fit(folder, tmp_path, 7, *VARIANTS["plain"])
    assert resume(run) == 0
    assert_same_run(whole("plain"), run)
