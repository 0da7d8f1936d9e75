"""The last section of the report: command, configuration, versions, machine, sessions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from html import escape
from typing import Any

from goal_kernels.data.files import reading
from goal_kernels.training.environment import read_environment
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
        f'<details><summary>Versions and machine</summary><div class="box scroll"><table><tbody>'
        f"{_facts(environment)}</tbody></table></div></details></section>"
    )


def _sessions(sessions: list[Mapping[str, Any]]) -> str:
    """A table of the processes that took turns; "" for a run that one process did."""
    if len(sessions) < 2:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(_clock(session["started"]))}</th>'
        f"<td>{session['from_step']:,}</td><td>{_reached(session['to_step'])}</td>"
        f"<td>{escape(session['ended'] or 'killed')}</td></tr>"
        for session in sessions
    )
    return (
        "<h3>Sessions</h3><p>The run was stopped and resumed. What a session did after its last "
        "resume point was done again by the next one.</p>"
        '<div class="box scroll"><table><thead><tr><th scope="col">began (UTC)</th>'
        '<th scope="col">at step</th><th scope="col">saved up to</th><th scope="col">ended</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _reached(step: int | None) -> str:
    return "unknown" if step is None else f"{step:,}"


def _clock(time: str) -> str:
    """A recorded time as people write it."""
    return datetime.fromisoformat(time).strftime("%Y-%m-%d %H:%M:%S")


def _facts(environment: Mapping[str, Any]) -> str:
    """Rows of versions, code and machine."""
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
    return "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(fact))}</td></tr>'
        for name, fact in facts.items()
    )
