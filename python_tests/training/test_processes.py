"""`goal-kernels fit` in two processes against the same command in one."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import traceback
import types
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

pytest.importorskip("pytorch_lightning")

from pytorch_lightning.strategies.launchers import subprocess_script
from pytorch_lightning.utilities import rank_zero_only

from goal_kernels.cli import main
from goal_kernels.training.history import History, read_history

ROOT = Path(__file__).parents[2]
EPOCHS = 2
"""Of four steps: three of warm-up, two of blending, and three after them."""


def fit_arguments(folder: Path, root: Path, name: str) -> list[str]:
    return [
        *("fit", "--data.folder", str(folder), "--data.batch_size", "12"),
        *("--run.root", str(root), "--run.name", name, "--run.threads", "1"),
        *("--model.embed_dim", "16", "--model.text.word_dim", "8", "--model.lr", "0.002"),
        *(
            "--model.warmup_steps",
            "3",
            "--model.blend_steps",
            "2",
            "--model.hold_on_collapse",
            "true",
        ),
        *("--trainer.accelerator", "cpu", "--trainer.max_epochs", str(EPOCHS)),
        *("--trainer.log_every_n_steps", "1"),
    ]


class Forked:
    """What Lightning uses of a `Popen`, for a fork: it has imported what would be imported anew."""

    def __init__(self, command: list[str], env: dict[str, str], cwd: str | None) -> None:
        python, option, module, *arguments = command
        assert (python, option, cwd) == (sys.executable, "-m", None)
        self.pid = os.fork()
        self.returncode: int | None = None
        if self.pid == 0:
            os.environ.clear()
            os.environ |= env
            rank_zero_only.rank = int(env["LOCAL_RANK"])  # which Lightning reads when imported
            sys.argv = [module, *arguments]
            status = 1
            try:
                runpy.run_module(module, run_name="__main__")
            except SystemExit as end:
                status = end.code
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            os._exit(status)

    def poll(self) -> int | None:
        if self.returncode is None and (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.returncode = os.waitstatus_to_exitcode(ended[1])
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def command(arguments: list[str], printed: Path) -> None:
    """Be `python -m goal_kernels`, whose launcher starts the other process."""
    sys.stdout = sys.stderr = stream = printed.open("w", buffering=1)
    os.dup2(stream.fileno(), 1)
    os.dup2(stream.fileno(), 2)
    # pytest keeps warnings to itself; here they are part of what is printed.
    warnings.simplefilter("always")
    warnings.showwarning = lambda message, *_, **__: print(message)
    sys.modules["__main__"] = module = types.ModuleType("__main__")
    module.__spec__ = find_spec("goal_kernels.__main__")
    sys.argv = ["goal-kernels", *arguments]
    if not torch.cuda.is_available():
        subprocess_script.subprocess = types.SimpleNamespace(Popen=Forked)
    os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    sys.exit(main(arguments))


@pytest.fixture(scope="module")
def runs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of the run in one process and of the run in two."""
    root = tmp_path_factory.mktemp("runs")
    threads = torch.get_num_threads()
    assert main(fit_arguments(folder, root, "one")) == 0
    torch.set_num_threads(threads)
    several = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    printed = tmp_path_factory.mktemp("printed") / "output.txt"
    # A fork has imported everything; after a use of CUDA it could not train.
    context = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "fork")
    arguments = [*fit_arguments(folder, root, "two"), *several]
    first = context.Process(target=command, args=(arguments, printed))
    first.start()
    first.join(240)
    first.kill()  # where it has not ended
    output = printed.read_text()
    assert first.exitcode == 0, output
    assert output.count("metrics  ") == 1
    assert "sync_dist" not in output
    return root / "one", root / "two"


def history(run: Path) -> History:
    return read_history(next(run.rglob("metrics.csv")))


@pytest.mark.parametrize(
    "name", ["train/loss", "mining/mean_positive", "mining/mean_hardest_negative"]
)
def test_every_step_is_that_of_one_process(runs: tuple[Path, Path], name: str) -> None:
    one, two = (history(run).by_step(name) for run in runs)
    assert len(one) == len(two) == 4 * EPOCHS
    for (step, value), (same_step, other) in zip(one, two, strict=True):
        assert step == same_step
        assert other == pytest.approx(value, rel=1e-3, abs=1e-4)


def test_evaluation_counts_nothing_twice(runs: tuple[Path, Path]) -> None:
    one, two = (history(run).by_epoch("val/rsum") for run in runs)
    assert len(one) == len(two) == EPOCHS
    # Twelve images: one rank that differs by rounding is worth 8.3 of an rsum of 600.
    for (_, value), (_, other) in zip(one, two, strict=True):
        assert other == pytest.approx(value, abs=9)


def test_only_one_process_writes(runs: tuple[Path, Path]) -> None:
    assert sorted(path.name for path in runs[0].parent.iterdir()) == ["one", "two"]
