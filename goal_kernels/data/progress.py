"""A progress line on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, TypeAlias

Progress: TypeAlias = "Callable[[str, int, int], None]"
"""Called with (stage, done, total) as the work goes on."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Progress for callers who did not ask for it."""


@contextmanager
def progress_line() -> Iterator[Progress]:
    """A progress function that keeps one line on stderr up to date, with rich if there is one."""
    if not sys.stderr.isatty():
        yield _write_stage
    elif find_spec("rich") is None:
        yield _write_line
        sys.stderr.write("\n")
    else:
        from rich.console import Console
        from rich.progress import Progress as Bars

        with Bars(console=Console(stderr=True), transient=True) as bars:
            tasks: dict[str, Any] = {}

            def update(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    tasks[stage] = bars.add_task(stage, total=total)
                bars.update(tasks[stage], completed=done)

            yield update


def _write_line(stage: str, done: int, total: int) -> None:
    """Overwrite the current line of the terminal."""
    sys.stderr.write(f"\r\x1b[K{stage}: {done:,} of {total:,}")
    sys.stderr.flush()


def _write_stage(stage: str, done: int, total: int) -> None:
    """For logs: one line when a stage is complete."""
    if done == total:
        print(f"{stage}: {total:,}", file=sys.stderr, flush=True)
