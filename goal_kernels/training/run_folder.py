"""The folder of one run: created atomically, locked by one process, files replaced atomically."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any

from goal_kernels.data.files import read_json, umask, write_text
from goal_kernels.data.layout import VOCABULARY

try:
    import fcntl
except ImportError:  # no POSIX locks on this system: two processes can then use one folder
    fcntl = None  # type: ignore[assignment]


class RunInUseError(ValueError):
    """Another process trains in the folder."""


@dataclass
class RunFolder:
    """The folder of a run, and paths inside it.

    Attributes:
        path: the folder.
        config: the whole configuration, as resolved.
        environment: versions, machine, code, seed, command lines.
        lock: locked by the process that trains; it says which one that is.
        vocabulary: the words of the run's tokenizer.
        checkpoints: folder of the checkpoints.
        best: weights with the highest rsum on the dev split.
        last: the newest resume point, weights and everything else that goes on from there.
        previous: the resume point before the newest.
        history: everything logged, as CSV.
        pairs: where the anchors of each epoch were, see `density`.
        hardest: what examples were confused with in each epoch, see `hardest_examples`.
        metrics: the final metrics; a run that has them is finished.
        report: the page for people.
    """

    path: Path

    def __post_init__(self) -> None:
        path = self.path
        self.config = path / "config.yaml"
        self.environment = path / "environment.json"
        self.lock = path / "lock"
        self.vocabulary = path / VOCABULARY
        self.checkpoints = path / "checkpoints"
        self.best = self.checkpoints / "best.ckpt"
        self.last = self.checkpoints / "last.ckpt"
        self.previous = self.checkpoints / "previous.ckpt"
        self.history = path / "metrics.csv"
        self.pairs = path / "pairs.json"
        self.hardest = path / "hardest.json"
        self.metrics = path / "metrics.json"
        self.report = path / "report.html"

    def discard(self) -> None:
        """Remove what a run writes; the folder too, unless others put something into it."""
        files = (
            self.config,
            self.environment,
            self.history,
            self.pairs,
            self.hardest,
            self.vocabulary,
            self.lock,
        )
        for path in files:
            path.unlink(missing_ok=True)
        for folder in (self.checkpoints, self.path / "logs"):
            shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # not empty: a scheduler's own file, say
            self.path.rmdir()


def create_run_folder(
    root: Path,
    name: str,
    fill: Callable[[RunFolder], None],
    held: ExitStack,
    adopt: bool = False,
) -> RunFolder:
    """Make `root/name`, or `root/name-2`, `root/name-3`, ... when runs of that name exist.

    The folder appears with its first files in it: they are written under another name first.

    Args:
        fill: writes these files.
        held: keeps the lock of the folder until it is closed.
        adopt: take `root/name` as it is when it exists and is no run yet (a scheduler may have put
            a file into it), instead of another name.
    Raises: ValueError when the name is no plain one or the folder cannot be written; RunInUseError
        when `adopt` and another process has the folder, or made it meanwhile.
    """
    if Path(name).name != name or name in ("", ".."):
        raise ValueError(
            f"run.name: expected a plain folder name, got {name!r}; use run.root for the place"
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        if adopt and (root / name).is_dir():
            run = RunFolder(root / name)
            lock_run(run, held)
            fill(run)
            return run
        return _create_whole(root, name, fill, held, alone=adopt)
    except OSError as error:
        raise ValueError(
            f"run.root: expected a place where folders can be made and locked, got {root} "
            f"({error.strerror}); give another one with --run.root"
        ) from error


def _create_whole(
    root: Path, name: str, fill: Callable[[RunFolder], None], held: ExitStack, alone: bool
) -> RunFolder:
    """Lock and fill a hidden folder, and give it the first name that is free.

    Raises: RunInUseError when `alone` and another process made `root/name` meanwhile.
    """
    hidden = RunFolder(Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".partial", dir=root)))
    try:
        # mkdtemp makes private folders; results are meant to be shared like any other file.
        hidden.path.chmod(0o777 & ~umask())
        lock_run(hidden, held)
        fill(hidden)
        for number in count(1):
            path = root / (name if number == 1 else f"{name}-{number}")
            try:
                hidden.path.rename(path)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise
                if alone and path.is_dir():
                    raise RunInUseError(
                        f"{path}: was begun by another process at the same moment; start again "
                        "when that has ended, and --run.resume auto goes on with it"
                    ) from error
            else:
                return RunFolder(path)
    except BaseException:
        shutil.rmtree(hidden.path, ignore_errors=True)
        raise
    raise AssertionError("unreachable: itertools.count never ends")


def lock_run(run: RunFolder, held: ExitStack) -> None:
    """Keep other processes from training in a folder until `held` is closed or this process ends.

    The lock is the system's (POSIX record lock): it ends with the process, however that ends, and
    processes that this one starts do not inherit it. Over NFS it needs a lock service there.

    Raises: RunInUseError naming the process that has it.
    """
    if fcntl is None:
        return
    file = held.enter_context(run.lock.open("a+", encoding="utf-8", errors="replace"))
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:  # POSIX allows either
        file.seek(0)
        holder = file.read().strip() or "another process"
        raise RunInUseError(
            f"{run.path}: is being trained by {holder}; wait until that ends or stop it, or choose "
            "another name with --run.name"
        ) from error
    file.truncate(0)
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    file.write(f"process {os.getpid()} on {socket.gethostname()}, since {started}\n")
    file.flush()


def write_json(path: Path, record: Any) -> None:
    """Write a record as indented JSON, atomically; NaN and infinities are refused."""
    write_text(path, json.dumps(record, indent=2, allow_nan=False) + "\n")


def read_record(path: Path) -> dict[str, Any]:
    """A record from a JSON file. Raises: FileNotFoundError; ValueError naming the file."""
    record = read_json(path)
    if not isinstance(record, dict):
        raise ValueError(f"{path}: expected names with values, got {type(record).__name__}")
    return record
