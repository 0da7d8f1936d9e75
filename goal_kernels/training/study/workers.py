"""Runs jobs in stages, in this process or in several, and says how long the rest will take."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Protocol


class Work(Protocol):
    """A unit of work; one for other processes has to be picklable."""

    @property
    def name(self) -> str:
        """For people."""

    def run(self) -> str:
        """Do it. Returns: what came out, in a few words."""


Report = Callable[[int, int, str, float], None]
"""Called with jobs done, jobs in all, what was just done, and the expected seconds left."""

Outcomes = Iterator[tuple[Work, str]]
"""Jobs with what came out of them, in the order in which they finish."""


class WorkFailed(RuntimeError):
    """A job could not be done; its name and the reason. What was finished before is kept."""


def run_stages(stages: Sequence[Sequence[Work]], jobs: int, report: Report) -> None:
    """Run the stages one after the other, `jobs` processes at a time.

    Args:
        stages: lists of work; nothing of a stage begins before all of the one before is done.
        jobs: worker processes; 1 works in this process.
        report: told about every finished job.
    Raises: WorkFailed at the first job that fails. Those that run then are still finished.
    """
    total = sum(len(stage) for stage in stages)
    started, done = time.monotonic(), 0
    with _workers(jobs if total > 1 else 1) as run_stage:
        for stage in stages:
            for work, outcome in run_stage(stage):
                done += 1
                left = (time.monotonic() - started) / done * (total - done)
                report(done, total, f"{work.name}: {outcome}", left)


@contextmanager
def _workers(jobs: int) -> Iterator[Callable[[Sequence[Work]], Outcomes]]:
    """What runs the work of one stage, in this process or in `jobs` others."""
    if jobs == 1:
        yield lambda stage: ((work, _naming_faults(work, work.run)) for work in stage)
        return
    # A fresh interpreter each: forking a process that has started threads can deadlock.
    pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))

    def run_stage(stage: Sequence[Work]) -> Outcomes:
        waiting: dict[Future[str], Work] = {pool.submit(work.run): work for work in stage}
        for finished in as_completed(waiting):
            yield waiting[finished], _naming_faults(waiting[finished], finished.result)

    try:
        yield run_stage
    finally:
        # After a fault, jobs that run now are finished and kept; those that wait are dropped.
        pool.shutdown(cancel_futures=True)


def _naming_faults(work: Work, outcome: Callable[[], str]) -> str:
    """The outcome of a job; an error of it names the job."""
    try:
        return outcome()
    except Exception as error:
        raise WorkFailed(
            f"{work.name}: {type(error).__name__}: {error}; what was finished is kept, run the "
            "same command again to go on"
        ) from error
