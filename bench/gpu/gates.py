"""Correct first: who may be timed at what, from the checks that went before."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from bench.contestants import GEMM
from bench.gpu.contestants import GRAPH
from bench.gpu.jobs import BAD, Job, Reply
from bench.gpu.kinds import Kind
from goal_kernels.backends.base import Verdict


class Key(NamedTuple):
    """A contestant, how it computes similarities, and which relative sums it needs."""

    name: str
    kind: Kind
    relative: str


class Gates:
    """Open for a key that some check passed and none failed."""

    def __init__(self) -> None:
        self._passed: set[Key] = set()
        self._failed: dict[Key, str] = {}

    def note(self, job: Job, reply: Reply) -> None:
        """What a check of correctness said. A job that went wrong as a whole fails all its names.

        One that was skipped or cut short says nothing.
        """
        names: Iterable[str] = job.arguments.get("names", ())
        kind = job_kind(job)
        failures = dict(reply.result.get("failures", {}))
        if reply.status in BAD and not failures:
            failures = dict.fromkeys(names, f"{reply.status}: {reply.error}")
        for relative in job.relatives:
            self._passed |= {Key(n, kind, relative) for n in reply.result.get("passed", ())}
            for name, why in failures.items():
                self._failed.setdefault(Key(name, kind, relative), f"{job.title}: {why}")

    def verdict(self, name: str, kind: Kind, relative: str) -> Verdict:
        """Whether a contestant may be timed, and why not. The floor always may."""
        key = Key(name.removesuffix(GRAPH), kind, relative)
        if key.name == GEMM:
            return Verdict(True)
        if key in self._failed:
            return Verdict(False, f"failed its check ({self._failed[key]})")
        return Verdict(True) if key in self._passed else Verdict(False, "was not checked")


def job_kind(job: Job) -> Kind:
    """How a job computes similarities."""
    arguments = job.arguments
    if "case" in arguments:
        return Kind(arguments["case"]["dtype"], arguments["case"]["precision"])
    return Kind(*arguments.get("kind", Kind("float32", "highest")))
