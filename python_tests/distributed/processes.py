"""A few processes, started once, that run functions as one gloo group of any size."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import distributed

PATIENCE = timedelta(seconds=60), timedelta(seconds=240)
"""For a process that never comes, at the first meeting and at the second; a busy machine starts it
late."""

IMPORTED_ONCE = ["torch._dynamo", "torch.distributed", "goal_kernels.distributed"]
"""What takes seconds to import. One process does it, and the others are forked from that.

Not Lightning: where it cannot be imported, as beside some versions of torchvision, that would end
the processes of tests that do not need it.
"""


def _meet(meeting: Path, rank: int, world: int) -> None:
    """Become one group; once more where gloo loses a connection before all have met."""
    for attempt, patience in enumerate(PATIENCE):
        place = f"file://{meeting}-{attempt}"
        try:
            distributed.init_process_group(
                "gloo", place, rank=rank, world_size=world, timeout=patience
            )
            return
        except RuntimeError:
            if attempt + 1 == len(PATIENCE):
                raise


def _serve(rank: int, tasks: Connection) -> None:
    """Run what comes, each task in a group of its own."""
    torch.set_num_threads(1)
    while True:
        function, world, meeting, arguments = tasks.recv()
        try:
            _meet(meeting, rank, world)
            tasks.send((function(*arguments), None))
        except Exception:
            tasks.send((None, traceback.format_exc()))
        finally:
            if distributed.is_initialized():
                distributed.destroy_process_group()


class Processes:
    """`size` processes that wait for functions to run together."""

    def __init__(self, size: int, folder: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED_ONCE)
        self.meetings = (folder / f"meeting-{number}" for number in count())
        self.tasks: list[Connection] = []
        self.workers = []
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        for rank in range(size):
            ours, theirs = context.Pipe()
            worker = context.Process(target=_serve, args=(rank, theirs), daemon=True)
            worker.start()
            self.tasks.append(ours)
            self.workers.append(worker)

    def run(self, world: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Results of `function(*arguments)` in the first `world` processes, as one group."""
        meeting = next(self.meetings)
        for tasks in self.tasks[:world]:
            tasks.send((function, world, meeting, arguments))
        answers = [tasks.recv() for tasks in self.tasks[:world]]
        failures = [failure for _, failure in answers if failure is not None]
        assert not failures, "\n".join(failures)
        return [result for result, _ in answers]

    def stop(self) -> None:
        """End the processes."""
        for worker in self.workers:
            worker.kill()  # the interpreter's own end takes seconds
            worker.join()
