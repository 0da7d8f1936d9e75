"""The remaining jobs of a study: shared warm-ups, then cells."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from goal_kernels.training.lightning_options import quieten
from goal_kernels.training.study.recipe import Cell, canonical
from goal_kernels.training.study.results import is_finished, result_path, write_result
from goal_kernels.training.study.training import (
    Warmup,
    can_branch,
    steps_per_epoch,
    train_cell,
    train_warmup,
)


@dataclass(frozen=True)
class Job:
    """One unit of work: a warm-up when `target` is None, else a cell.

    Attributes:
        name: for people.
        cell: what to train.
        warmup: where its shared warm-up lies, None when it has none.
        target: result file of the cell.
        study: name of the study, for the result file.
    """

    name: str
    cell: Cell
    warmup: Warmup | None
    target: Path | None
    study: str

    def run(self) -> str:
        """Train and write. Returns: what came out, in a few words."""
        quieten()
        # Said of every objective that fails, which a study is about; it is in the results.
        warnings.filterwarnings("ignore", message="COLLAPSED.*")
        if self.target is None:
            assert self.warmup is not None  # a warm-up's job has a place for it
            train_warmup(self.cell, self.warmup)
            return "trained"
        trained = train_cell(self.cell, self.warmup)
        write_result(self.target, self.study, self.cell, trained)
        return f"rsum {trained.result['metrics']['rsum']:.1f}"


def plan(study: str, cells: Sequence[Cell], results: Path, work: Path) -> list[list[Job]]:
    """The jobs that are left, in stages: shared warm-ups first, then cells.

    A warm-up is shared when two cells or more need it, it ends with an epoch and the budget is one
    of epochs (`can_branch`); the cells of any other train from the start, with the same result.

    Args:
        study: its name.
        cells: all of the study.
        results: folder of result files.
        work: folder of warm-up checkpoints, which may be deleted at any time.
    Raises: ValueError when a result comes from another configuration.
    """
    shared = _shared_warmups(cells, work)
    left = [cell for cell in cells if not is_finished(results, cell)]
    jobs = [Job(c.name, c, shared.get(c.warmup_key), result_path(results, c), study) for c in left]
    warmups: dict[str, Job] = {}
    for job in jobs:
        if job.warmup is not None and not job.warmup.complete:
            name = f"warm-up, seed {job.cell.seed}"
            warmups.setdefault(job.cell.warmup_key, Job(name, job.cell, job.warmup, None, study))
    return [list(warmups.values()), jobs]


def _shared_warmups(cells: Sequence[Cell], work: Path) -> dict[str, Warmup]:
    """Where the warm-ups lie that cells share, by `Cell.warmup_key`."""
    count = Counter(cell.warmup_key for cell in cells if cell.warmup_steps and can_branch(cell))
    lengths: dict[str, int] = {}  # of an epoch, by what it depends on; never on the seed
    shared = {}
    for cell in cells:
        key = cell.warmup_key
        if count[key] < 2 or key in shared:
            continue
        decisive = canonical({part: cell.config[part] for part in ("data", "trainer")})
        if decisive not in lengths:
            lengths[decisive] = steps_per_epoch(cell)
        if cell.warmup_steps % lengths[decisive] == 0:
            shared[key] = Warmup(work / f"warmup-{key}.ckpt", work / f"warmup-{key}.json")
    return shared
