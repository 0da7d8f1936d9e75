"""The last section of the report: command, configuration, versions, machine, sessions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from html import escape
from typing import Any

from goal_kernels.data.files import reading
from goal_kernels.training.environment import read_environment
from goal_kernels.training.report.style import table_html
from goal_kernels.training.run_folder import RunFolder


def settings_section(run: RunFolder) -> str:
    """Configuration and environment as recorded in the run folder."""
    environment = read_environment(run)
    if not environment:
        return "<section><h2>How it was made</h2><p>The record of it is lost.</p></section>"
    with reading(run.config) as stream:
        config = stream.read().decode("utf-8", "replace")
    return (
        "<section><h2>How it was made</h2>"
        f"<p>Command: <code>{escape(' '.join(environment['command']))}</code></p>"
        f"{_sessions(environment.get('sessions', []))}"
        f"<details><summary>Configuration</summary><pre>{escape(config)}</pre></details>"
        f"<details><summary>Versions and machine</summary>{_facts(environment)}</details></section>"
    )


def _sessions(sessions: list[Mapping[str, Any]]) -> str:
    """A table of the processes that took turns; "" for a run that one process did."""
    if len(sessions) < 2:
        return ""
    rows = [
        [
            _clock(session["started"]),
            f"{session['from_step']:,}",
            "unknown" if session["to_step"] is None else f"{session['to_step']:,}",
            session["ended"] or "killed",
        ]
        for session in sessions
    ]
    return (
        "<h3>Sessions</h3><p>The run was stopped and resumed. What a session did after its last "
        "resume point was done again by the next one.</p>"
        f"{table_html(['began (UTC)', 'at step', 'saved up to', 'ended'], rows)}"
    )


def _clock(time: str) -> str:
    """A recorded time as people write it."""
    return datetime.fromisoformat(time).strftime("%Y-%m-%d %H:%M:%S")


def _facts(environment: Mapping[str, Any]) -> str:
    """A table of versions, code and machine."""
    git = environment.get("git")
    commit = "not in a repository"
    if git is not None:
        commit = git["commit"] + (" with changes" if git["dirty"] else "")
    versions = {"python": environment["python"], **environment["packages"]}
    facts = {
        **{name: version for name, version in versions.items() if version is not None},
        "commit": commit,
        "configuration hash": environment["config_hash"],
        "platform": environment["platform"],
        "processor": f"{environment['processor']}, {environment['processors']} cores, "
        f"{environment['threads']} threads used",
        "GPUs": ", ".join(environment["gpus"]) or "none",
        "started": _clock(environment["started"]) + " UTC",
    }
    return table_html([], [[name, str(fact)] for name, fact in facts.items()])
