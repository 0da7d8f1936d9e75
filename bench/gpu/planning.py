"""What the plans of all stages have in common: who can do what here, and how a case is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import goal_kernels as gk
from bench.cases import FORWARD, FORWARD_BACKWARD, GOAL_LOSS, MINE, NO_OBJECTIVE, Case
from bench.gpu.contestants import APPLY
from bench.gpu.gates import Gates, job_kind
from bench.gpu.jobs import Job
from bench.gpu.kinds import Kind
from bench.gpu.scale import Scale, Size

NO_SUMS = "none"


class Planned(NamedTuple):
    """A job, and the contestants that were kept out of it with the reason."""

    job: Job
    barred: dict[str, str]


class Task(NamedTuple):
    """What is asked of a contestant: the op, mode and objective of a case."""

    op: str
    mode: str
    objective: str

    @property
    def relative(self) -> str:
        """The relative sums that it needs."""
        if self.op == MINE:
            return NO_SUMS
        return str(gk.Objective.parse(self.objective).pair_element.relative)

    def __str__(self) -> str:
        if self.op == MINE:
            return "mining"
        mode = APPLY if self.op == APPLY else self.mode.replace("_", " + ")
        return f"{self.objective} {mode}"


MINING = Task(MINE, FORWARD, NO_OBJECTIVE)


def training(objective: str) -> Task:
    """Forward and backward of an objective."""
    return Task(GOAL_LOSS, FORWARD_BACKWARD, objective)


def evaluation(objective: str) -> Task:
    """Forward alone."""
    return Task(GOAL_LOSS, FORWARD, objective)


def gradients(objective: str) -> Task:
    """Backward alone."""
    return Task(APPLY, FORWARD_BACKWARD, objective)


@dataclass
class State:
    """What earlier stages have found out.

    variants: {variant: {kind: why it is not served, or empty}}. rankers: backends that rank.
    """

    scale: Scale
    gates: Gates = field(default_factory=Gates)
    variants: dict[str, dict[str, str]] = field(default_factory=dict)
    rankers: list[str] = field(default_factory=list)

    def serving(self, kind: Kind) -> list[str]:
        """Variants of the library that compute similarities this way here."""
        return [name for name, reasons in self.variants.items() if not reasons[str(kind)]]

    def case(self, task: Task, size: Size, kind: Kind) -> dict[str, Any]:
        """A case as JSON."""
        return asdict(Case(*task, *size, *kind, self.scale.device))

    def gated(self, job: Job, relative: str) -> Planned:
        """The job for those who may be timed."""
        kind, barred = job_kind(job), {}
        for name in job.arguments["names"]:
            verdict = self.gates.verdict(name, kind, relative)
            if not verdict.ok:
                barred[name] = verdict.reason
        for name in barred:
            job = job.without(name)
        return Planned(job, barred)


def open_to_all(jobs: Iterable[Job]) -> list[Planned]:
    """Jobs that no check has to precede."""
    return [Planned(job, {}) for job in jobs]


def title(task: Task | str, size: Size, kind: Kind, data: str = "") -> str:
    """For people: what, how large, how, on what."""
    return " ".join(part for part in (str(task), f"{size[0]}x{size[1]}", str(kind), data) if part)
