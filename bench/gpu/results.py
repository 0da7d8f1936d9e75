"""What a session found: a line per job as it comes, one JSON file at the end."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.gpu.jobs import BAD, Job, Reply
from bench.machine import slug
from goal_kernels.data.files import write_text

NAME = "gpu_session"


@dataclass
class Record:
    """A job and what became of it. load: of the GPU during its timed rounds, if it was read.

    barred: contestants that were not let in, and why. seconds: since the session began; duration.
    """

    stage: str
    kind: str
    title: str
    arguments: dict[str, Any]
    status: str
    at: float
    seconds: float
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    barred: dict[str, str] = field(default_factory=dict)
    load: dict[str, Any] | None = None

    @classmethod
    def of(cls, stage: str, job: Job, reply: Reply, began: float) -> Record:
        """From a job and its reply."""
        return cls(
            stage,
            job.kind,
            job.title,
            job.arguments,
            reply.status,
            round(reply.start - began, 3),
            round(reply.end - reply.start, 3),
            reply.result,
            reply.error,
        )

    @property
    def bad(self) -> bool:
        """Whether the job or one of its contestants failed."""
        return self.status in BAD or bool(self.result.get("failures"))


@dataclass
class Findings:
    """Everything a session found."""

    command: str
    date: str
    budget: float
    dry_run: bool
    environment: dict[str, Any] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    interrupted: bool = False
    seconds: float = 0.0

    @property
    def slug(self) -> str:
        """Folder name of the device."""
        return slug(str(self.environment.get("device", "unknown gpu")))

    @property
    def failed(self) -> bool:
        """Whether anything went wrong."""
        return self.interrupted or any(record.bad for record in self.records)


def read_findings(path: Path) -> Findings:
    """What an earlier session wrote."""
    content = json.loads(path.read_text())
    records = [Record(**record) for record in content.pop("records")]
    return Findings(**content, records=records)


class Journal:
    """Appends records to a file as they come, so that nothing is lost if this process is."""

    def __init__(self, folder: Path, findings: Findings) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.findings = findings
        self.folder = folder
        self.path = folder / f"{NAME}.jsonl"
        self._stream = self.path.open("w")
        self._lock = threading.Lock()

    def add(self, record: Record) -> None:
        """Keep a record, from any thread."""
        with self._lock:
            self.findings.records.append(record)
            self._stream.write(json.dumps(asdict(record)) + "\n")
            self._stream.flush()

    def close(self) -> Path:
        """Write the JSON file, in full or not at all, and drop the journal. Returns: its path."""
        path = self.folder / self.findings.slug / f"{NAME}.json"
        with self._lock:
            write_text(path, json.dumps(asdict(self.findings), indent=1) + "\n")
            self._stream.close()
            self.path.unlink(missing_ok=True)
        return path
