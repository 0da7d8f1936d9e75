"""Markdown from what a session found; every number comes from its JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from bench.cases import Case
from bench.contestants import BASELINES, GEMM
from bench.gpu.contestants import APPLY, GRAPH
from bench.gpu.gates import job_kind
from bench.gpu.jobs import BAD, CUT, OK, SKIPPED, Job
from bench.gpu.kinds import Kind
from bench.gpu.planning import Task
from bench.gpu.results import Findings, Record
from bench.gpu.targets import TARGETS, best_figures
from bench.rank_inputs import TEXTS_PER_IMAGE
from bench.table import ABSENT
from bench.words import markdown_table

DRY_WARNING = "**Dry run on a processor: the figures mean nothing.**"
FLAG = " ⚠"
APPLY_MOVES = 8
"""Embedding rows moved by the gradients of one pair: three read and one written, on both sides."""


def number(value: float | None) -> str:
    """Three digits, without an exponent."""
    if value is None:
        return ABSENT
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _section(name: str, body: str) -> str:
    return f"## {name}\n\n{body}" if body else ""


def provenance(found: Findings) -> str:
    """Device, state, versions, date, command."""
    e = found.environment
    smi = e.get("nvidia_smi", {})
    parts = [
        f"{e.get('device', 'unknown device')}",
        f"{e['multiprocessors']} SMs" if "multiprocessors" in e else "",
        f"driver {smi['driver_version']}" if smi.get("driver_version") else "",
        f"power limit {smi['power.limit']}" if smi.get("power.limit") else "",
        f"highest SM clock {smi['clocks.max.sm']}" if smi.get("clocks.max.sm") else "",
        f"ECC {smi['ecc.mode.current']}" if smi.get("ecc.mode.current") else "",
        f"torch {e.get('torch', '?')}, triton {e.get('triton', '?')}, nvcc {e.get('nvcc', '?')}",
        f"Python {e.get('python', '?')}",
        f"commit `{e.get('commit', '?')}`",
        f"{found.date}, `{found.command}`, {found.seconds:.0f} s of {found.budget:.0f} s",
        f"copy within the device {number(e.get('copy_gbs'))} GB/s",
    ]
    text = "; ".join(part for part in parts if part) + "."
    if smi.get("processes"):
        text += f" Processes seen on the GPU: {smi['processes']}."
    return text


def outcome(found: Findings) -> str:
    """How many jobs went how, and what failed."""
    counts: dict[str, int] = {}
    for record in found.records:
        word = "failed" if record.bad else record.status
        counts[word] = counts.get(word, 0) + 1
    lines = [", ".join(f"{count} {word}" for word, count in sorted(counts.items())) + "."]
    if found.interrupted:
        lines.append("The session was interrupted.")
    for record in found.records:
        if record.status in BAD:
            lines.append(f"- **{record.status}** {record.title}: `{_line(record.error)}`")
        for name, why in record.result.get("failures", {}).items():
            lines.append(f"- **failed** {record.title}, {name}: `{_line(why)}`")
        for name, why in record.barred.items():
            if not name.endswith(GRAPH):
                lines.append(f"- not timed: {name} in {record.title}: {_line(why)}")
    for word, why in ((SKIPPED, "skipped, no time"), (CUT, "cut short")):
        titles = [r.title for r in found.records if r.status == word and not r.barred]
        lines += [f"- {why}: {'; '.join(titles)}"] * bool(titles)
    return "\n".join(lines)


def _line(text: str) -> str:
    """The first line of a message, short."""
    return text.strip().partition("\n")[0].replace("`", "'")[:300]


def check_table(records: Iterable[Record]) -> str:
    """Per contestant and kind: checks passed, failed, refused."""
    counts: dict[tuple[str, str], list[int]] = {}
    for record in records:
        kind = str(job_kind(Job(record.kind, record.title, record.arguments)))
        for column, part in enumerate(("passed", "failures", "refused", "oom")):
            for name in record.result.get(part, ()):
                counts.setdefault((name, kind), [0, 0, 0, 0])[column] += 1
    rows = [[*key, *map(str, count)] for key, count in sorted(counts.items())]
    header = ["contestant", "kind", "passed", "failed", "refused", "out of memory"]
    return markdown_table(header, rows, 2) if rows else ""


def product_table(records: Iterable[Record]) -> str:
    """The product alone: ms and TFLOP/s of every way."""
    rows = []
    for record in records:
        size = f"{record.arguments['batch']} × {record.arguments['width']}"
        for way, f in record.result.get("lanes", {}).items():
            quantiles = [number(f[q]) for q in ("p50", "p20", "p80")]
            rows.append([size, way, *quantiles, number(f["tflops"])])
    return markdown_table(["B × D", "way", "ms", "p20", "p80", "TFLOP/s"], rows, 2) if rows else ""


def _lane_order(name: str) -> tuple[bool, str]:
    return (name.removesuffix(GRAPH) not in BASELINES, name)


def contest_table(records: list[Record]) -> str:
    """Median ms of every lane and multiples of the product, one row per size, kind and data."""
    lanes = sorted({n for r in records for n in r.result["lanes"]}, key=_lane_order)
    rows = []
    for record in records:
        case, found = Case(**record.arguments["case"]), record.result["lanes"]
        size = f"{case.batch} × {case.width}"
        row = [size, str(Kind(case.dtype, case.precision)), record.arguments["data"]]
        row[0] += FLAG * bool(record.load and record.load["flagged"])
        rows.append(row + [_cell(name, found, record.result.get("oom", {})) for name in lanes])
    return markdown_table(["B × D", "kind", "data", *lanes], rows, 3)


def _cell(name: str, found: dict[str, Any], oom: dict[str, str]) -> str:
    """Milliseconds, and the multiple of the product that was called the same way."""
    if name not in found:
        return "no memory" if name in oom else ABSENT
    time = found[name]["p50"]
    floor = found.get(GEMM + GRAPH * name.endswith(GRAPH))
    if floor is None or name.startswith(GEMM):
        return number(time)
    return f"{number(time)} ({time / floor['p50']:.2f})"


def contest_tables(records: list[Record]) -> Iterator[str]:
    """A table per task, in the order of their first contest."""
    grouped: dict[str, list[Record]] = {}
    for record in records:
        if record.kind == "contest" and record.result.get("lanes"):
            case = record.arguments["case"]
            task = Task(case["op"], case["mode"], case["objective"])
            if task.op != APPLY:
                part = " with rivals" * (record.stage == "rivals")
                grouped.setdefault(f"{task}{part}", []).append(record)
    for name, members in grouped.items():
        yield _section(
            f"{name[0].upper()}{name[1:]}, ms (multiple of gemm)", contest_table(members)
        )


def apply_table(records: Iterable[Record], copy_gbs: float | None) -> str:
    """The gradients alone: GB/s of the rows they have to move, against a copy."""
    rows = []
    for record in records:
        if record.kind != "contest" or record.arguments["case"]["op"] != APPLY:
            continue
        case = Case(**record.arguments["case"])
        moved = APPLY_MOVES * case.batch * case.width * case.torch_dtype.itemsize
        for name, f in record.result.get("lanes", {}).items():
            speed = moved / f["p50"] / 1e6
            share = f"{speed / copy_gbs:.2f}" if copy_gbs else ABSENT
            size = f"{case.batch} × {case.width}"
            rows.append([size, case.dtype, name, number(f["p50"]), number(speed), share])
    header = ["B × D", "dtype", "contestant", "ms", "GB/s", "of copy"]
    return markdown_table(header, rows, 3) if rows else ""


def rank_table(records: Iterable[Record]) -> str:
    """Ranks of test sets: ms, TFLOP/s and multiples of the product."""
    rows = []
    for record in records:
        if record.kind != "rank times":
            continue
        a, lanes = record.arguments, record.result.get("lanes", {})
        size = f"{a['images']} × {TEXTS_PER_IMAGE * a['images']} × {a['width']}"
        for name, f in lanes.items():
            share = f"{f['p50'] / lanes[GEMM]['p50']:.2f}"
            rows.append([size, a["dtype"], name, number(f["p50"]), number(f["tflops"]), share])
    header = ["images × texts × D", "dtype", "contestant", "ms", "TFLOP/s", "of gemm"]
    return markdown_table(header, rows, 3) if rows else ""


def memory_table(records: Iterable[Record]) -> str:
    """Peak MiB beyond inputs and gradients."""
    rows = []
    for record in records:
        if record.kind != "memory":
            continue
        case = Case(**record.arguments["case"])
        where = [case.objective, f"{case.batch} × {case.width}", case.dtype]
        rows += [[*where, n, f"{mib:.1f}"] for n, mib in record.result.get("mib", {}).items()]
        rows += [[*where, name, "no memory"] for name in record.result.get("oom", {})]
    header = ["objective", "B × D", "dtype", "contestant", "MiB"]
    return markdown_table(header, rows, 4) if rows else ""


def target_table(found: Findings) -> str:
    """Every target and the best that was measured for it."""
    rows = []
    for target in TARGETS:
        figures = best_figures(target, found.records)
        width = "any" if target.width is None else str(target.width)
        limit = f"{target.limit:g} {target.unit}"
        for f in figures:
            met = "met" if f.value <= target.limit else "**missed**"
            row = [target.backend, f.objective, f.name, str(target.batch), str(f.width)]
            rows.append([*row, met, number(f.value), limit])
        if not figures:
            row = [target.backend, ABSENT, ABSENT, str(target.batch), width, "not measured", ABSENT]
            rows.append([*row, limit])
    header = ["backend", "objective", "variant", "B", "D", "", "measured", "limit"]
    return markdown_table(header, rows, 3)


def render(found: Findings) -> str:
    """The whole report."""
    done = [r for r in found.records if r.status in (OK, CUT, *BAD)]
    checks = [r for r in done if r.stage in ("correctness", "rival checks", "faults")]
    products = [r for r in done if r.kind == "products"]
    note = (
        "Medians of rounds in random order on rotating copies of the inputs; "
        f"`{GRAPH}`: replayed from a CUDA graph, over the product replayed the same way;"
        f"{FLAG}: the SM clock fell by more than 3 % meanwhile."
    )
    parts = [
        "# GPU session",
        DRY_WARNING * found.dry_run,
        provenance(found),
        _section("Outcome", outcome(found)),
        _section("Targets: forward + backward, bfloat16, CUDA graph", target_table(found)),
        _section("Product alone", product_table(products)),
        note,
        *contest_tables(done),
        _section("Gradients alone", apply_table(done, found.environment.get("copy_gbs"))),
        _section("Ranks", rank_table(done)),
        _section("Peak memory beyond inputs and gradients", memory_table(done)),
        _section("Checks", check_table(checks)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
