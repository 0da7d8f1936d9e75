"""Markdown from the journal of a session; every number comes from its records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from bench.cases import GOAL_LOSS, TEXTS_PER_IMAGE, Case
from bench.lineup import BASELINES, EAGER, GEMM, GRAPH, split_way
from bench.tables import ABSENT, number
from goal_kernels.terminal import markdown_table
from tools.gpu_session.watchdog import BAD, CUT, OK, SKIPPED

Record = dict[str, Any]
"""A job of the journal and what became of it."""

DRY_WARNING = "**Dry run on a processor: the figures mean nothing.**"
LARGEST_DROP = 0.03
"""Share of the clock that a contest may have lost before its figures are flagged."""

FLAG = " ⚠"
NOTE = (
    "Medians of rounds in turns, on copies of the inputs that outgrow the caches, in ms; in "
    f"brackets the multiple of `{GEMM}` in the same contest. `{GRAPH}`: replayed from a CUDA "
    "graph, over the product replayed the same way."
    f"{FLAG}: the SM clock was more than 3 % below its highest."
)


class Target(NamedTuple):
    """An upper limit for forward + backward in bfloat16, as a multiple of the product.

    backends: words that a method's name may begin with, in the words of the library's users.
    """

    name: str
    backends: tuple[str, ...]
    batch: int
    limit: float


HOPPER = ("cuda", "gpu:hopper")
TRITON = ("triton", "gpu:tile", "gpu:strip")
TARGETS = (
    *(Target("hopper", HOPPER, b, x) for b, x in ((4096, 2.2), (16384, 1.25), (65536, 1.12))),
    *(Target("triton", TRITON, b, x) for b, x in ((4096, 2.8), (16384, 1.6), (65536, 1.5))),
)
"""At D = 512 on an H100 or H200; the table says where a session was made."""

OPTION_LIMIT = 1.1
"""How much longer than the plain case shuffled ids and normalised rows may take."""


def failed(record: Record) -> bool:
    """Whether a job or one of its methods failed."""
    return record["status"] in BAD or bool(record["result"].get("failures"))


def _contests(records: Iterable[Record]) -> Iterator[tuple[Case, Record]]:
    for record in records:
        if record["kind"] == "contest" and record["result"].get("lanes"):
            yield Case(**record["arguments"]["case"]), record


def _time(lane: dict[str, Any], metric: str = "wall_time") -> float:
    """Median of a metric."""
    return float(lane["measurements"][metric]["p50"])


def _section(name: str, body: str) -> str:
    return f"## {name}\n\n{body}" if body else ""


def _line(text: str) -> str:
    """The first line of a message, short."""
    return text.strip().partition("\n")[0].replace("`", "'")[:300]


def _provenance(head: dict[str, Any], records: Iterable[Record]) -> str:
    """Device, state, versions, date, command."""
    found = [r["result"] for r in records if r["kind"] == "describe" and r["status"] == OK]
    e = found[-1] if found else {}
    smi, rivals = e.get("nvidia_smi", {}), e.get("rivals", {})
    parts = [
        f"{e.get('device', 'unknown device')}",
        *(f"{word} {e[key]}" for word, key in (("SMs", "multiprocessors"),) if key in e),
        *(f"{field} {value}" for field, value in smi.items() if value and field != "name"),
        *(f"{word} {e.get(word, '?')}" for word in ("torch", "triton", "nvcc", "python")),
        f"commit `{head['commit']}`, {head['date']}, `{head['command']}`",
        *(f"{name} {state}" for name, state in rivals.items()),
        *(f"no {name}: {_line(why)}" for name, why in e.get("backends", {}).items() if why),
    ]
    return "; ".join(parts)


def _outcome(records: list[Record]) -> str:
    """How many jobs went how, and what failed."""
    counts: dict[str, int] = {}
    for record in records:
        word = "failed" if failed(record) else record["status"]
        counts[word] = counts.get(word, 0) + 1
    lines = [", ".join(f"{count} {word}" for word, count in sorted(counts.items())) + "."]
    for record in records:
        if record["status"] in BAD:
            lines.append(f"- **{record['status']}** {record['title']}: `{_line(record['error'])}`")
        for part, word in (("failures", "**failed**"), ("oom", "out of memory")):
            for name, why in record["result"].get(part, {}).items():
                lines.append(f"- {word} {record['title']}, {name}: `{_line(why)}`")
    for word in (SKIPPED, CUT):
        titles = [r["title"] for r in records if r["status"] == word]
        lines += [f"- {word}: {'; '.join(titles)}"] * bool(titles)
    return "\n".join(lines)


def _cell(name: str, record: Record) -> str:
    """Milliseconds, and the multiple of the product that was called the same way."""
    lane = record["result"]["lanes"].get(name)
    if lane is None:
        return "no memory" if name in record["result"].get("oom", {}) else ABSENT
    ratio = lane["ratios"].get(GEMM)
    time = number(_time(lane))
    return time if ratio is None or name.startswith(GEMM) else f"{time} ({ratio:.2f})"


def _methods(records: Iterable[Record]) -> list[str]:
    """Methods of contests, the baselines first."""
    names = {name for _, r in _contests(records) for name in r["result"]["lanes"]}
    return sorted(names, key=lambda name: (split_way(name)[0] not in BASELINES, name))


def _contest_tables(records: list[Record]) -> Iterator[str]:
    """A table per job, a row per case."""
    clocks = [_clock(record) for record in records]
    grouped: dict[str, list[tuple[Case, Record]]] = {}
    for case, record in _contests(records):
        if record["stage"] != "checks":
            grouped.setdefault(case.job, []).append((case, record))
    for job, members in grouped.items():
        names = _methods(record for _, record in members)
        rows = []
        for case, record in members:
            slow = 0 < _clock(record) < (1 - LARGEST_DROP) * max(clocks)
            size = case.size + FLAG * slow
            rows.append([size, str(case.kind), case.options, *(_cell(n, record) for n in names)])
        yield _section(job, markdown_table(["B × D", "kind", "options", *names], rows, 3))


def _clock(record: Record) -> float:
    """MHz after the rounds of a contest, 0 if they were not read."""
    text = record["result"].get("load", {}).get("clocks.sm", "")
    return float(text) if text.replace(".", "").isdigit() else 0.0


def _memory_table(records: list[Record]) -> str:
    """Peak MiB of training steps beyond inputs and gradients."""
    chosen = [(c, r) for c, r in _contests(records) if c.backward and c.op == GOAL_LOSS]
    chosen = [(c, r) for c, r in chosen if any(x["mib"] for x in r["result"]["lanes"].values())]
    names = [n for n in _methods(r for _, r in chosen) if not n.startswith(GEMM) and "@" not in n]
    rows = []
    for case, record in chosen:
        lanes, oom = record["result"]["lanes"], record["result"]["oom"]
        cells = [
            number(lanes[n]["mib"]) if n in lanes else "no memory" if n in oom else ABSENT
            for n in names
        ]
        rows.append([case.objective, case.size, str(case.kind), *cells])
    return markdown_table(["objective", "B × D", "kind", *names], rows, 3)


def _first_table(records: list[Record]) -> str:
    """First calls and host time, where every method was called for the first time."""
    rows = []
    for case, record in _contests(records):
        if record["stage"] != "first":
            continue
        for name, lane in record["result"]["lanes"].items():
            host = 1e3 * _time(lane, "cpu_time")
            row = [case.objective, case.size, name, f"{lane['first_s']:.2f}"]
            rows.append([*row, number(host), number(1e3 * _time(lane))])
    header = ["objective", "B × D", "method", "first call s", "host µs", "step µs"]
    return markdown_table(header, rows, 3)


def _rank_table(records: Iterable[Record]) -> str:
    """Ranks of test sets: ms and multiples of the product."""
    rows = []
    for record in records:
        lanes = record["result"].get("lanes", {})
        if record["kind"] == "ranks":
            images, width, dtype, _ = record["arguments"]["case"]
            size = f"{images} × {TEXTS_PER_IMAGE * images} × {width}"
            for name, ms in lanes.items():
                rows.append([size, dtype, name, number(ms), f"{ms / lanes[GEMM]:.2f}"])
    header = ["images × texts × D", "dtype", "method", "ms", "of gemm"]
    return markdown_table(header, rows, 3)


def _whole_batch_table(records: Iterable[Record]) -> str:
    """Losses over all negatives: ms and multiples of the product and of eager torch."""
    rows = []
    for record in records:
        lanes = record["result"].get("lanes", {})
        if record["kind"] == "whole_batch":
            loss, batch, width, dtype, _ = record["arguments"]["case"]
            for name, ms in lanes.items():
                over = [f"{ms / lanes[x]:.2f}" if x in lanes else ABSENT for x in (GEMM, EAGER)]
                rows.append([loss, f"{batch} × {width}", dtype, name, number(ms), *over])
    header = ["loss", "B × D", "dtype", "method", "ms", "of gemm", "of eager"]
    return markdown_table(header, rows, 4)


COLUMNS = {"lanes": 0, "passed": 0, "failures": 1, "refused": 2, "oom": 3}
"""Part of a result -> column of the table of checks."""


def _check_table(records: Iterable[Record]) -> str:
    """Per method: jobs in which it was right, wrong, refused, out of memory."""
    counts: dict[str, list[int]] = {}
    for record in records:
        result = record["result"]
        for part, column in COLUMNS.items():
            for name in result.get(part, ()):
                counts.setdefault(name, [0, 0, 0, 0])[column] += 1
    rows = [[name, *map(str, count)] for name, count in sorted(counts.items())]
    return markdown_table(["method", "right", "failed", "refused", "no memory"], rows, 1)


def _best(records: list[Record], target: Target) -> Iterator[tuple[str, str, float]]:
    """Objective, fastest method and its multiple of the product, captured as a graph."""
    for case, record in _contests(records):
        plain = case.kind.dtype == "bfloat16" and not case.options and case.backward
        if plain and case.op == GOAL_LOSS and (case.batch, case.width) == (target.batch, 512):
            lanes = record["result"]["lanes"]
            ratios = {
                name: lane["ratios"][GEMM]
                for name, lane in lanes.items()
                if name.endswith(GRAPH) and name.startswith(target.backends)
                if lane["ratios"].get(GEMM) is not None
            }
            if ratios:
                name = min(ratios, key=lambda n: ratios[n])
                yield case.objective, name, ratios[name]


def _verdict(ratio: float, limit: float) -> list[str]:
    met = "met" if ratio <= limit else "**missed**"
    return [met, f"{ratio:.2f}", f"{limit:g}"]


def _target_rows(records: list[Record]) -> Iterator[list[str]]:
    for target in TARGETS:
        where = f"B = {target.batch}"
        best = dict.fromkeys(_best(records, target))
        for objective, name, ratio in best:
            yield [target.name, f"{objective}, {where}", name, *_verdict(ratio, target.limit)]
        if not best:
            yield [target.name, where, ABSENT, "not measured", ABSENT, f"{target.limit:g}"]
    yield from _option_rows(records)


def _option_rows(records: list[Record]) -> Iterator[list[str]]:
    """Ids and normalised rows over the plain case; the product of each contest cancels."""
    timed = [r for r in records if r["stage"] != "checks"]
    cases = [(c, r) for c, r in _contests(timed) if c.op == GOAL_LOSS and c.backward]
    plain = {str(c): r["result"]["lanes"] for c, r in cases if not c.options}
    for case, record in cases:
        beside = plain.get(str(replace(case, ids="", normalize=False)), {})
        if not (case.ids or case.normalize):
            continue
        for name, lane in record["result"]["lanes"].items():
            before, now = (x.get("ratios", {}).get(GEMM) for x in (beside.get(name, {}), lane))
            if split_way(name)[0] not in BASELINES and before and now:
                what = f"{case.objective}, B = {case.batch}, over plain"
                yield [case.options, what, name, *_verdict(now / before, OPTION_LIMIT)]


def _target_table(records: list[Record]) -> str:
    header = ["target", "what", "method", "", "measured", "limit"]
    return markdown_table(header, _target_rows(records), 4)


def render(head: dict[str, Any], records: list[Record]) -> str:
    """The whole report."""
    targets = "" if head["dry_run"] else _target_table(records)
    parts = [
        "# GPU session",
        DRY_WARNING * head["dry_run"],
        _provenance(head, records),
        _section("Outcome", _outcome(records)),
        _section("Targets: forward + backward over the product", targets),
        NOTE,
        _section("First calls", _first_table(records)),
        *_contest_tables(records),
        _section("Ranks", _rank_table(records)),
        _section("Losses over all negatives", _whole_batch_table(records)),
        _section("Peak memory beyond inputs and gradients, MiB", _memory_table(records)),
        _section("Checks", _check_table(records)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
