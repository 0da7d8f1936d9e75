"""Find the run to resume and its newest usable resume point; refuse changed settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from goal_kernels.recipes import RecipeError, read_config
from goal_kernels.training.checkpoints import (
    CheckpointError,
    checksum_matches,
    look_into_checkpoint,
)
from goal_kernels.training.run_folder import RunFolder, lock_run, read_record

LATEST = "latest"
AUTO = "auto"
DEFAULT_ROOT = "runs"
CHANGEABLE = (
    # How long and where a run trains, and what it says meanwhile; never what it computes.
    "run",
    "recipe",  # what the configuration is called and should reach
    "ckpt_path",
    "data.folder",
    "data.num_workers",
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.max_time",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.enable_progress_bar",
    "trainer.profiler",
    "trainer.detect_anomaly",
)

TABLES = ("model.objective_parameters", "data.columns")
"""Options whose value is a table, in which a name that is new is a change."""

RESUME_PARTS: dict[str, tuple[type, set[str]]] = {
    "global_step": (int, set()),
    "epoch": (int, set()),
    "state_dict": (dict, set()),
    "optimizer_states": (list, set()),
    "lr_schedulers": (list, set()),
    "loops": (dict, {"fit_loop"}),
    "resume": (dict, {"random", "data", "history", "seconds", "finished"}),
}
"""Parts that a checkpoint needs to be a resume point: type, and names in it."""

LIMITS = ("max_epochs", "max_steps", "max_time")


class ResumeError(ValueError):
    """The run cannot be resumed."""


class RunFinished(Exception):
    """There is nothing left to do."""


@dataclass(frozen=True)
class Resumption:
    """A run to resume.

    Attributes:
        run: its folder.
        checkpoint: the newest whole resume point, None when it was stopped before the first.
        step, epoch: optimiser steps taken and epochs finished by then.
        longer: the training may now last longer (or less long) than when it was last run.
        damaged: newer resume points that cannot be used.
    """

    run: RunFolder
    checkpoint: Path | None
    step: int
    epoch: int = 0
    longer: bool = False
    damaged: tuple[Path, ...] = ()


def find_run(name: str, root: Path) -> RunFolder:
    """The folder of a run to resume.

    Args:
        name: the folder, or "latest" for the one that was written to last.
        root: where run folders live, for "latest".
    Raises: ResumeError when there is none.
    """
    if name == LATEST:
        runs = [RunFolder(config.parent) for config in root.glob("[!.]*/config.yaml")]
        if not runs:
            raise ResumeError(
                f"--resume latest: expected runs in the folder {root}, found none; give the "
                "folder of the run, or their place with --run.root"
            )
        return max(runs, key=_last_written)
    run = RunFolder(Path(name))
    if not run.config.is_file():
        raise ResumeError(
            f"--resume: expected the folder of a run (with a config.yaml), got {name}; give one "
            "like runs/NAME, or `latest`"
        )
    return run


def _last_written(run: RunFolder) -> float:
    """When a run last saved something, seconds since the epoch."""
    files = (run.config, run.environment, run.history, run.last, run.metrics)
    return max(path.stat().st_mtime for path in files if path.is_file())


def find_resume_point(run: RunFolder) -> Resumption:
    """The newest resume point that is whole and holds what a run needs.

    Raises: ResumeError when there are resume points but none of them can be used.
    """
    damaged: list[Path] = []
    for path in (run.last, run.previous):
        if not path.is_file():
            continue
        if checksum_matches(path) and (place := _place_of(path)) is not None:
            return Resumption(run, path, *place, damaged=tuple(damaged))
        damaged.append(path)
    if damaged:
        named = " and ".join(str(path) for path in damaged)
        raise ResumeError(
            f"--resume: {named} cannot be used: torn, or no resume point; start again with "
            f"`goal-kernels fit --config {run.config}`"
        )
    return Resumption(run, None, 0)


def _place_of(checkpoint: Path) -> tuple[int, int] | None:
    """(steps, epochs) behind a resume point, None when it is none: a part of it is not there."""
    try:
        held = look_into_checkpoint(checkpoint)
    except CheckpointError:
        return None
    for part, (kind, names) in RESUME_PARTS.items():
        if not isinstance(held.get(part), kind) or not names <= set(held[part] if names else ()):
            return None
    if not held["optimizer_states"]:  # Lightning would resume with a fresh optimiser
        return None
    return held["global_step"], held["epoch"]


def choose_run(
    wanted: RunFolder | None,
    options: Any,
    resolved: Callable[[], Mapping[str, Any]],
    held: ExitStack | None,
) -> Resumption | None:
    """The run to resume, when there is one; it stays locked.

    Args:
        wanted: the folder that `--resume` named, None without that option.
        options: those of the run: `resume` may be "auto" or None, `root` and `name` say where.
        resolved: returns the resolved configuration, plain values.
        held: keeps the lock of the folder; None in processes that another one leads.
    Returns: where to resume; None when a new run is to begin.
    Raises: RunFinished; RunInUseError; ResumeError when the configuration was changed or cannot be
        read, or when no resume point of the run can be used.
    """
    if options.resume not in (None, AUTO):
        raise ResumeError(
            f"run.resume: expected `{AUTO}` or null, got {options.resume!r}; name a folder with "
            "--resume"
        )
    run = wanted
    if run is None and options.resume == AUTO:
        run = _begun(RunFolder(Path(options.root) / options.name))
    if run is None:
        return None
    if held is not None:
        try:
            lock_run(run, held)
        except OSError as error:
            raise ResumeError(
                f"--resume: expected a folder that can be written and locked, got {run.path} "
                f"({error.strerror}: {run.lock.name}); see to its permissions, or copy it elsewhere"
            ) from error
    recorded, config = read_run_config(run), resolved()
    _check_unchanged(run, recorded, config)
    before, now = recorded["trainer"], config["trainer"]
    longer = any(before.get(limit) != now.get(limit) for limit in LIMITS)
    if not longer and _is_finished(run):
        raise RunFinished(
            f"{run.path}: is finished; its report is {run.report}. To train longer, raise "
            f"--trainer.max_epochs (it was {before.get('max_epochs')})"
        )
    found = replace(find_resume_point(run), longer=longer)
    for limit, done in (("max_epochs", found.epoch), ("max_steps", found.step)):
        if 0 <= (now.get(limit) or 0) < done:
            raise ResumeError(
                f"trainer.{limit}: expected at least {done:,}, which {run.path} has been trained "
                f"for, got {now[limit]:,}; raise it, or start another run"
            )
    return found


def _begun(run: RunFolder) -> RunFolder | None:
    """The run if it was begun: its configuration is written before anything is trained.

    Raises: ResumeError when resume points lie there without one.
    """
    if run.config.is_file() and run.config.stat().st_size:
        return run
    if run.last.is_file() or run.previous.is_file():
        raise ResumeError(
            f"run.resume: {run.path} holds resume points but no {run.config.name}; put it back, "
            "or choose another name with --run.name"
        )
    return None


def _is_finished(run: RunFolder) -> bool:
    """Whether the run has its final metrics, whole."""
    try:
        return bool(read_record(run.metrics))
    except FileNotFoundError:
        return False
    except ValueError as error:
        print(f"{error}; the test is repeated", flush=True)
        return False


def read_run_config(run: RunFolder) -> dict[str, Any]:
    """The recorded configuration of a run. Raises: ResumeError when it cannot be used."""
    try:
        recorded = read_config(run.config)
        for section in ("trainer", "run"):  # the first and the last: a file may be cut short
            if not isinstance(recorded.get(section), Mapping):
                raise RecipeError(f"expected a section `{section}`, found none: was it cut short?")
    except (OSError, RecipeError) as error:
        raise ResumeError(
            f"--resume: the configuration of {run.path} cannot be read ({error}); put "
            f"{run.config.name} back, or start another run from the weights with --run.weights"
        ) from error
    return recorded


def prepare_folder(resumption: Resumption) -> None:
    """Put damaged resume points aside and remove what a killed process left half written."""
    for path in resumption.damaged:
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        print(f"{path}: is damaged, kept as {aside.name}; the one before it is used", flush=True)
    for folder in (resumption.run.path, resumption.run.checkpoints):
        for leftover in folder.glob(".*.partial"):
            leftover.unlink()


def resumed_arguments(command: str, arguments: Sequence[str]) -> tuple[RunFolder | None, list[str]]:
    """`--resume RUN` turned into the configuration of that run, for `fit`.

    Returns: the run, None without the option; and the arguments to parse, those given last.
    """
    wanted, kept = _take_option("--resume", arguments)
    if wanted is None or command != "fit":
        return None, list(arguments)
    root, _ = _take_option("--run.root", kept)
    run = find_run(wanted, Path(root or DEFAULT_ROOT))
    read_run_config(run)  # refused here in one sentence, before the parser of all options reads it
    return run, ["--config", str(run.config), *kept]


def _take_option(name: str, arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of an option, None when it is not given, and the arguments without it.

    Raises: ResumeError when no value follows.
    """
    kept: list[str] = []
    taken: str | None = None
    rest = iter(arguments)
    for argument in rest:
        option, equals, value = argument.partition("=")
        if option != name:
            kept.append(argument)
            continue
        taken = value if equals else next(rest, "")
        if not taken or taken.startswith("-"):
            raise ResumeError(f"{name}: expected a folder, got nothing; give one like runs/NAME")
    return taken, kept


def _check_unchanged(
    run: RunFolder, recorded: Mapping[str, Any], config: Mapping[str, Any]
) -> None:
    """See that a configuration is that of the run, but for `CHANGEABLE` options.

    Raises: ResumeError that names every option that differs, with both values.
    """
    changed = list(_changes(recorded, config))
    if changed:
        raise ResumeError(
            f"--resume: expected the configuration of {run.path}, but {'; '.join(changed)}. Leave "
            "the change out, or start another run with it: goal-kernels fit --config "
            f"{run.config} ..."
        )


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """What differs, option by option.

    An option that one side does not know came or went with another version of the package.
    """
    for name in [name for name in now if name in before]:
        option, one, other = above + name, before[name], now[name]
        if option in CHANGEABLE:
            continue
        if isinstance(one, Mapping) and isinstance(other, Mapping) and option not in TABLES:
            yield from _changes(one, other, f"{option}.")
        elif one != other:
            yield f"{option} was {one!r} and is now {other!r}"
