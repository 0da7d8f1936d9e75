"""Which contests a session holds, in the order in which they matter, and what else it measures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec

from bench.cases import PLAIN, RELATIVE
from bench.contestants import COMPILED, EAGER, GEMM, METRIC_LEARNING, REFERENCE
from bench.gpu.contestants import GRAPH
from bench.gpu.inputs import DATA, HALF_TRAINED
from bench.gpu.jobs import Job
from bench.gpu.kinds import BFLOAT16, FLOAT16, Kind
from bench.gpu.planning import (
    MINING,
    Planned,
    State,
    Task,
    evaluation,
    gradients,
    open_to_all,
    title,
    training,
)
from bench.gpu.scale import Scale, Size
from goal_kernels.backends.cpu import CpuBackend

OBJECTIVES = (PLAIN, RELATIVE)
METRIC_LEARNING_LIMIT = 4096
"""Largest B of pytorch-metric-learning, which lists all pairs."""

MOST_DATA_SIZES = 2
MOST_FORWARD_SIZES = 2
COMPILE_PATIENCE = 60.0


def product_plan(state: State) -> list[Planned]:
    """The product alone, every size; float16 takes as long as bfloat16."""
    scale = state.scale
    jobs = []
    for size in scale.products:
        kinds = [list(kind) for kind in scale.kinds if kind != FLOAT16]
        arguments = {
            "batch": size[0],
            "width": size[1],
            "kinds": kinds,
            "device": scale.device,
            "seconds": scale.contest_seconds / 2,
        }
        jobs.append(Job("products", f"product {size[0]}x{size[1]}", arguments))
    return open_to_all(jobs)


def without_slow(scale: Scale, names: Iterable[str]) -> list[str]:
    """Those that are there for their speed on this device."""
    slow = {REFERENCE} if scale.device == "cpu" else {REFERENCE, CpuBackend.name}
    return [name for name in names if name not in slow]


def timed_variants(state: State, kind: Kind) -> list[str]:
    """Variants that are there for their speed on this device."""
    return without_slow(state.scale, state.serving(kind))


def _with_graphs(state: State, names: Iterable[str]) -> list[str]:
    graphs = (GRAPH,) if state.scale.device == "cuda" else ()
    return [name + suffix for name in names for suffix in ("", *graphs)]


def _contest(
    state: State, names: list[str], task: Task, where: tuple[Size, Kind], data: str = HALF_TRAINED
) -> Planned:
    size, kind = where
    arguments = {
        "names": names,
        "case": state.case(task, size, kind),
        "data": data,
        "seconds": state.scale.contest_seconds,
    }
    job = Job("contest", title(task, size, kind, data), arguments)
    return state.gated(job, task.relative)


def _tasks(state: State) -> Iterator[tuple[Task, Size, Kind, str]]:
    """Task, size, kind, data of every contest with everyone."""
    scale, first = state.scale, state.scale.main[0]
    for size in (*scale.main, *scale.small):
        for objective in OBJECTIVES:
            yield training(objective), size, BFLOAT16, HALF_TRAINED
    for size in scale.main:
        yield MINING, size, BFLOAT16, HALF_TRAINED
    for size in [s for s in scale.main if s[1] == first[1]][:MOST_DATA_SIZES]:
        for data in DATA[1:]:
            for objective in OBJECTIVES:
                yield training(objective), size, BFLOAT16, data
    for kind, sizes in scale.other_kinds:
        for size in sizes:
            for objective in OBJECTIVES:
                yield training(objective), size, kind, HALF_TRAINED
    for size in scale.main[:MOST_FORWARD_SIZES]:
        for objective in OBJECTIVES:
            yield evaluation(objective), size, BFLOAT16, HALF_TRAINED
    yield MINING, scale.small[0], BFLOAT16, HALF_TRAINED


def speed_plan(state: State) -> list[Planned]:
    """Contests of the floor, eager torch and the library; then the gradients alone."""
    planned = []
    for task, size, kind, data in _tasks(state):
        names = _with_graphs(state, (GEMM, EAGER, *timed_variants(state, kind)))
        planned.append(_contest(state, names, task, (size, kind), data))
    for size in state.scale.main:
        names = _with_graphs(state, timed_variants(state, BFLOAT16))
        planned.append(_contest(state, names, gradients(PLAIN), (size, BFLOAT16)))
    return planned


def rank_plan(state: State) -> list[Planned]:
    """Ranks of test sets, beside their product."""
    scale = state.scale
    names = without_slow(scale, state.rankers)
    jobs = []
    for images, width in scale.ranked:
        for dtype in ("bfloat16", "float32"):
            arguments = {
                "names": names,
                "images": images,
                "width": width,
                "dtype": dtype,
                "device": scale.device,
                "seconds": scale.contest_seconds,
            }
            jobs.append(Job("rank times", f"ranks of {images}x{width} {dtype}", arguments))
    return open_to_all(jobs)


def _rival_names(state: State, objective: str, batch: int) -> list[str]:
    names = [COMPILED] * state.scale.compiling
    fits = objective == PLAIN and batch <= METRIC_LEARNING_LIMIT
    if fits and find_spec("pytorch_metric_learning") is not None:
        names.append(METRIC_LEARNING)
    return names


def rival_check_plan(state: State) -> list[Planned]:
    """The judge on what users could install or call instead; compiling takes its time."""
    size, jobs = state.scale.rivals[0], []
    for objective in OBJECTIVES:
        task, names = training(objective), _rival_names(state, objective, size[0])
        case = state.case(task, size, BFLOAT16)
        arguments = {"names": names, "case": case, "data": HALF_TRAINED}
        name = "float64 judge of rivals, " + title(task, size, BFLOAT16)
        if names:
            jobs.append(Job("judged", name, arguments, (task.relative,), COMPILE_PATIENCE))
    return open_to_all(jobs)


def rival_plan(state: State) -> list[Planned]:
    """Contests with torch.compile and pytorch-metric-learning."""
    planned = []
    for size in state.scale.rivals:
        for objective in OBJECTIVES:
            rivals = _rival_names(state, objective, size[0])
            names = [GEMM, EAGER, *rivals, *timed_variants(state, BFLOAT16)]
            if rivals:
                planned.append(_contest(state, names, training(objective), (size, BFLOAT16)))
    return planned


def memory_plan(state: State) -> list[Planned]:
    """Peak memory of training steps, eager torch beside the library."""
    jobs = []
    for size in state.scale.memory:
        for objective in OBJECTIVES:
            task = training(objective)
            names = [EAGER, *timed_variants(state, BFLOAT16)]
            arguments = {"names": names, "case": state.case(task, size, BFLOAT16)}
            jobs.append(Job("memory", "peak memory, " + title(task, size, BFLOAT16), arguments))
    return open_to_all(jobs)
