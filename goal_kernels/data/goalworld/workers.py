"""Running tasks in order, in this process or in several."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

# Tasks in flight for each process: enough to keep it busy, few enough to keep memory bounded.
_AHEAD = 2


class TaskRunner(Protocol):
    """Applies a module-level function to tasks and yields the results in the order of the tasks."""

    def __call__(
        self, function: Callable[[Task], Result], tasks: Iterable[Task]
    ) -> Iterator[Result]: ...


@contextmanager
def task_runner(workers: int) -> Iterator[TaskRunner]:
    """A runner on ``workers`` processes; with 1 it runs everything here.

    The processes are started afresh (not forked, which is unsafe once libraries have started
    threads), so a script that asks for several must guard its main part with
    ``if __name__ == "__main__":``.
    """
    if workers == 1:
        yield _run_here
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:

        def run(function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
            waiting: deque[Future[Result]] = deque()
            for task in tasks:
                waiting.append(pool.submit(function, task))
                if len(waiting) >= _AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

        yield run


def _run_here(function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
    """One task after the other in this process."""
    return map(function, tasks)
