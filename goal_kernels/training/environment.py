"""The environment of a run: versions, machine, code, command lines, sessions."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from goal_kernels.training.run_folder import RunFolder, read_record, write_json

RECORDED_PACKAGES = (
    *("goal-kernels", "torch", "numpy", "triton", "pytorch-lightning", "jsonargparse"),
    *("timm", "torchvision", "transformers"),
)
RECORDED = (
    *("seed", "started", "command", "config_hash", "git", "python", "platform", "processor"),
    *("processors", "threads", "gpus", "packages"),
)
"""What every record of a run holds; see `describe_environment`."""

SESSION = {"started", "command", "from_step", "to_step", "ended"}

GIT_SECONDS = 10  # a repository that does not answer by then is recorded as none
NOT_HASHED = ("run", "recipe", "seed_everything", "ckpt_path")  # they change no computation


def describe_environment(
    seed: int, arguments: Sequence[str], config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Seed, versions, machine, code and the command line of a run that starts now.

    Args:
        seed: of everything random.
        arguments: of the command, without the program.
        config: the resolved configuration, for its hash.
    Returns: plain values; "sessions" holds the first one, see `begin_session`.
    """
    return {
        "seed": seed,
        "started": _now(),
        "command": ["goal-kernels", *arguments],
        "config_hash": config_hash(config or {}),
        "git": git_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor_name(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": {name: _version(name) for name in RECORDED_PACKAGES},
    }


def processor_name() -> str:
    """Model of the processor: from /proc/cpuinfo, elsewhere as Python reports it."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def config_hash(config: Mapping[str, Any]) -> str:
    """A short hash that runs share which differ in seed and in name and place of the run alone."""
    kept = {name: value for name, value in config.items() if name not in NOT_HASHED}
    text = json.dumps(kept, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]


def git_state(folder: Path | None = None) -> dict[str, Any] | None:
    """Commit of the repository that holds a folder, and whether tracked files differ from it.

    Args:
        folder: the working directory when None.
    Returns: {"commit", "dirty"}; None outside of repositories and without git.
    """
    commit = _git("rev-parse HEAD", folder)
    if commit is None:
        return None
    changed = _git("status --porcelain --untracked-files=no", folder)
    return {"commit": commit, "dirty": bool(changed)}


def _git(command: str, folder: Path | None) -> str | None:
    """Output of a git command, None when it fails."""
    try:
        done = subprocess.run(
            ["git", *command.split()],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def begin_session(run: RunFolder, arguments: Sequence[str], step: int) -> None:
    """Record that a process starts or resumes the run at an optimiser step."""
    environment = read_environment(run)
    sessions = environment.setdefault("sessions", [])
    sessions.append(
        {
            "started": _now(),
            "command": ["goal-kernels", *arguments],
            "from_step": step,
            "to_step": None,  # of a process that is killed nothing more is known
            "ended": None,
        }
    )
    write_json(run.environment, environment)


def end_session(run: RunFolder, step: int, how: str) -> None:
    """Record at which optimiser step the running process ended, and how."""
    environment = read_environment(run)
    if sessions := environment.get("sessions"):
        sessions[-1].update(to_step=step, ended=how)
        write_json(run.environment, environment)


def read_environment(run: RunFolder) -> dict[str, Any]:
    """The record of a run; empty, and said so, where the file is not there or not whole."""
    try:
        environment = read_record(run.environment)
        if missing := [name for name in RECORDED if name not in environment]:
            raise ValueError(f"{run.environment}: expected {missing[0]!r} in it, found none")
        sessions = environment.get("sessions", [])
        if not isinstance(sessions, list) or any(
            not isinstance(session, dict) or not set(session) >= SESSION for session in sessions
        ):
            raise ValueError(f"{run.environment}: expected records of sessions, found other values")
        return environment
    except FileNotFoundError:
        print(f"{run.environment}: is not there; what it recorded is lost", flush=True)
    except ValueError as error:
        print(f"{error}; what it recorded is lost", flush=True)
    return {}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    """Installed version, or None: a source checkout on the path has no metadata."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
