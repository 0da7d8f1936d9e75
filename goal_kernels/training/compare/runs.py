"""Runs as `compare` sees them, read from run folders or from the result files of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from goal_kernels.recipes import read_config
from goal_kernels.training.history import History, read_history
from goal_kernels.training.run_folder import RunFolder, read_record
from goal_kernels.training.study.results import CellResult, read_result

NOT_COMPARED = {
    "": ("seed_everything", "ckpt_path", "run", "seed"),
    "data": ("seed", "num_workers"),
    "model": ("seed",),
}
"""Entries of a configuration, by section, that make no other contestant: seeds, names, speed."""


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        path: its folder or file.
        seed: of everything random in it.
        config: resolved configuration, without what `NOT_COMPARED` names.
        label: name of its contestant where it has been given one (a study's), else "".
        metrics: "i2t", "t2i" and "rsum" of the test; None when the run is not finished.
        references: the same, where it is known, for "chance", a random ranking; "ridge", ridge
            regression from image features to words; "oracle", a ranking that knows the truth.
        split: that was tested, "" when unfinished.
        checkpoint: that was tested: "best" on dev, "last" of the training, or "" when unknown.
        steps: optimiser steps, or None where they are not recorded.
        history: what it logged.
        environment: the whole record.
    """

    path: Path
    seed: int
    config: Mapping[str, Any]
    label: str
    metrics: Mapping[str, Any] | None
    references: Mapping[str, Mapping[str, Any]]
    split: str
    checkpoint: str
    steps: int | None
    history: History
    environment: Mapping[str, Any]

    @property
    def finished(self) -> bool:
        """Whether there is something to compare."""
        return self.metrics is not None

    @property
    def trained(self) -> bool:
        """Whether it is a training; `goal-kernels test` leaves a folder of a mere evaluation."""
        return list(self.environment.get("command", ()))[1:2] != ["test"]

    @property
    def commit(self) -> str:
        """Commit of the code, with "+" when files differed from it; "" where it is not recorded."""
        git = self.environment.get("git")
        if git:
            return git["commit"][:12] + ("+" if git["dirty"] else "")
        return self.environment.get("commit") or ""

    @property
    def ending(self) -> str:
        """How far an unfinished run came, in words."""
        logged = "nothing logged" if self.steps is None else f"{self.steps:,} steps logged"
        sessions = self.environment.get("sessions")
        ended = sessions[-1].get("ended") if sessions else None
        return f"{logged}, {ended}" if ended else logged


def read_runs(paths: Sequence[Path], checkpoint: str | None = None) -> list[Run]:
    """Read run folders, result files, and folders of either.

    Args:
        paths: of what to read.
        checkpoint: "best" or "last", whose test results to take where runs have both; what the
            runs themselves report when None.
    Raises: FileNotFoundError when a path does not exist or holds no run; ValueError naming the
        file that is damaged.
    """
    runs: list[Run] = []
    for path in paths:
        found = _runs_at(path)
        if not found:
            raise FileNotFoundError(
                f"{path}: expected a run folder (with config.yaml), a study's result file, or a "
                "folder of them; give runs/* for all runs"
            )
        runs += found
    different = {run.path.resolve(): run for run in runs}
    return [_choose(run, checkpoint) for run in different.values()]


def _choose(run: Run, checkpoint: str | None) -> Run:
    """The run with the results of one of its checkpoints on top."""
    if checkpoint is None or run.metrics is None or run.checkpoint == checkpoint:
        return run
    chosen = run.metrics.get(checkpoint)
    if chosen is None:
        raise ValueError(
            f"--checkpoint: expected results of the {checkpoint} checkpoint in {run.path}, found "
            f"those of {run.checkpoint or 'an unknown one'} alone; leave the option out"
        )
    return replace(run, metrics=chosen, checkpoint=checkpoint)


def _runs_at(path: Path) -> list[Run]:
    """The runs that a path names: one, or those directly inside a folder."""
    if path.is_file():
        return [run_of_cell(read_result(path))] if path.suffix == ".jsonl" else []
    if not path.is_dir():
        return []
    if RunFolder(path).config.is_file():
        return [_read_folder(RunFolder(path))]
    inside = sorted(path.iterdir())
    runs = [run_of_cell(read_result(file)) for file in inside if file.suffix == ".jsonl"]
    folders = [RunFolder(child) for child in inside if child.is_dir() and child.name[0] != "."]
    return runs + [_read_folder(folder) for folder in folders if folder.config.is_file()]


def _read_folder(folder: RunFolder) -> Run:
    """A run folder of `fit` or `test`."""
    config = read_config(folder.config, "runs")
    environment = read_record(folder.environment) if folder.environment.is_file() else {}
    record = read_record(folder.metrics) if folder.metrics.is_file() else None
    if record is not None and not {"i2t", "t2i", "rsum"} <= set(record):
        raise ValueError(f"{folder.metrics}: expected i2t, t2i and rsum in it; test the run again")
    history = read_history(folder.history)
    steps = max((int(s) + 1 for s, _ in history.by_step("train/loss")), default=None)
    seed = (record or {}).get("seed", config.get("seed_everything", environment.get("seed", 0)))
    if not isinstance(seed, int):
        raise ValueError(f"{folder.config}: expected a whole number for its seed, got {seed!r}")
    return Run(
        path=folder.path,
        seed=seed,
        config=_compared(config),
        label="",
        metrics=record,
        references=_references(record or {}),
        split=(record or {}).get("split", ""),
        checkpoint=(record or {}).get("selected") or "",
        steps=steps,
        history=history,
        environment=environment,
    )


def run_of_cell(cell: CellResult) -> Run:
    """A study's cell, which is always finished."""
    environment = cell.header["environment"]
    return Run(
        path=cell.path,
        seed=cell.header["seed"],
        config=_compared(cell.header["config"]),
        label=cell.header["label"],
        metrics=cell.result["metrics"],
        references=_references(cell.result),
        split=cell.result["split"],
        checkpoint="last",
        steps=cell.result["steps"],
        history=cell.history,
        environment={**environment, "dataset": cell.header["dataset"]},
    )


def _references(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record knows beside the metrics of its run."""
    return {name: record[name] for name in ("chance", "ridge", "oracle") if record.get(name)}


def _compared(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what makes no other contestant."""
    kept: dict[str, Any] = {}
    for name, value in config.items():
        if name in NOT_COMPARED[""]:
            continue
        if isinstance(value, Mapping):
            left_out = NOT_COMPARED.get(name, ())
            value = {k: v for k, v in value.items() if k not in left_out}
        kept[name] = value
    return kept
