"""What a worker process is asked to do, and what comes back: plain data, so that it travels."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

OK = "ok"
FAILED = "failed"
TIMED_OUT = "timed out"
CRASHED = "crashed"
CUT = "cut short"
SKIPPED = "skipped"

BAD = (FAILED, TIMED_OUT, CRASHED)
"""What makes the session fail. A job cut short or skipped for lack of time does not."""

PATIENCE = 60.0
"""Seconds without a sign of life after which a job counts as hung: several compilations."""

WORK = {
    "describe": "bench.gpu.environment:describe",
    "products": "bench.gpu.products:measure_products",
    "exact": "bench.gpu.exactness:check_exact",
    "judged": "bench.gpu.correctness:check_judged",
    "ids": "bench.gpu.correctness:check_ids",
    "normalized": "bench.gpu.correctness:check_normalized",
    "sampled": "bench.gpu.samples:check_sampled",
    "repeated": "bench.gpu.stability:check_repeated",
    "captured": "bench.gpu.stability:check_captured",
    "ranks": "bench.gpu.ranking:check_ranks",
    "rank times": "bench.gpu.ranking:time_ranks",
    "contest": "bench.gpu.speed:hold_contest",
    "memory": "bench.gpu.memory:measure_memory",
    "fault": "bench.gpu.faults:misbehave",
}
"""Kind of a job -> function(tell, **arguments) -> dict, imported when first asked for.

`tell(name)` is the sign of life: it says who is at work now, so that a hang or a crash has a name.
"""


@dataclass(frozen=True)
class Job:
    """One unit of work.

    kind: key of WORK. title: for people. arguments: JSON values, handed to the function; an entry
    "names" lists contestants, and those that break the process are left out of a second try.
    relatives: relative kinds whose gate the result speaks for, see `gates`. patience: seconds
    between signs of life.
    """

    kind: str
    title: str
    arguments: dict[str, Any] = field(default_factory=dict)
    relatives: tuple[str, ...] = ()
    patience: float = PATIENCE

    def without(self, name: str) -> Job:
        """The same for everyone but `name`."""
        names = [other for other in self.arguments["names"] if other != name]
        arguments = {**self.arguments, "names": names}
        return Job(self.kind, self.title, arguments, self.relatives, self.patience)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass
class Reply:
    """What became of a job.

    status: one of the words above. at: who was at work last. error: empty when all is well.
    result: of the function. start, end: `time.monotonic` of this machine.
    """

    status: str
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    at: str = ""
    start: float = 0.0
    end: float = 0.0
