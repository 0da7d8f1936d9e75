"""Which checks a session makes, the most telling ones first."""

from __future__ import annotations

from collections.abc import Iterator

from bench.cases import PLAIN, RELATIVE
from bench.contestants import EAGER, GEMM, REFERENCE
from bench.gpu.inputs import DATA, HALF_TRAINED
from bench.gpu.jobs import Job
from bench.gpu.kinds import BFLOAT16, FLOAT16, HIGH, HIGHEST, Kind
from bench.gpu.planning import MINING, NO_SUMS, Planned, State, Task, open_to_all, title, training
from goal_kernels.backends.base import RELATIVE_KINDS

UNSPLIT = (BFLOAT16, HIGHEST, FLOAT16)
"""Kinds whose only error is accumulation: what the comparators of the tests assume."""

EVERYTHING = RELATIVE_KINDS


def _exact(state: State) -> Iterator[Job]:
    scale = state.scale
    for kind in scale.kinds:
        count = len(scale.exact) if kind == scale.kinds[0] else scale.exact_elsewhere
        for name in state.serving(kind):
            arguments = {
                "names": [name],
                "kind": list(kind),
                "shapes": [list(shape) for shape in scale.exact[:count]],
                "device": scale.device,
            }
            yield Job("exact", f"exact integers, {kind}, {name}", arguments, EVERYTHING)


def _judge(state: State, task: Task, size: tuple[int, int], kind: Kind, data: str) -> Job:
    baselines = [GEMM, EAGER]
    arguments = {
        "names": [*baselines, *state.serving(kind)],
        "case": state.case(task, size, kind),
        "data": data,
    }
    name = "float64 judge, " + title(task, size, kind, data)
    return Job("judged", name, arguments, (task.relative,))


def _judged(state: State) -> Iterator[Job]:
    for size, kinds in state.scale.judged:
        for kind in kinds:
            for objective in (PLAIN, RELATIVE):
                yield _judge(state, training(objective), size, kind, HALF_TRAINED)
    size, kinds = state.scale.judged[0]
    for data in DATA[1:]:
        for objective in (PLAIN, RELATIVE):
            yield _judge(state, training(objective), size, kinds[0], data)
    for kind in kinds:
        yield _judge(state, MINING, size, kind, HALF_TRAINED)


def _objectives(state: State) -> Iterator[Job]:
    scale, kind = state.scale, BFLOAT16
    for objective in scale.objectives:
        task = training(objective)
        arguments = {
            "names": state.serving(kind),
            "case": state.case(task, scale.checked, kind),
            "data": HALF_TRAINED,
        }
        name = "float64 judge, " + title(task, scale.checked, kind)
        yield Job("judged", name, arguments, (task.relative,))


def _options(state: State) -> Iterator[Job]:
    """Ids and normalised rows."""
    scale = state.scale
    for kind in (k for k in UNSPLIT if k in scale.kinds):
        arguments = {
            "names": state.serving(kind),
            "kind": list(kind),
            "batch": scale.checked[0],
            "width": scale.checked[1],
            "device": scale.device,
        }
        relative = (NO_SUMS, "exponential")
        yield Job("ids", f"ids and directions, {kind}", arguments, relative)
        yield Job("normalized", f"normalised rows, {kind}", arguments, (NO_SUMS,))


def _samples(state: State) -> Iterator[Job]:
    task = training(RELATIVE)
    for size, kinds in state.scale.sampled:
        for kind in kinds:
            names = [name for name in state.serving(kind) if name != REFERENCE]
            arguments = {
                "names": names,
                "case": state.case(task, size, kind),
                "data": HALF_TRAINED,
            }
            name = title("sampled anchors", size, kind)
            yield Job("sampled", name, arguments, (NO_SUMS, task.relative))


def _stability(state: State) -> Iterator[Job]:
    for size in state.scale.stable:
        for objective in (RELATIVE, PLAIN):
            task = training(objective)
            for kind in (k for k in (BFLOAT16, HIGH, HIGHEST) if k in state.scale.kinds):
                case, names = state.case(task, size, kind), state.serving(kind)
                arguments = {"names": names, "case": case, "reruns": state.scale.reruns}
                what = title(task, size, kind)
                yield Job("repeated", f"bit-equal, {what}", arguments, (task.relative,))
                names = [name for name in names if name != REFERENCE]
                arguments = {"names": names, "case": case}
                yield Job("captured", f"CUDA graph, {what}", arguments, (task.relative,))


def _ranks(state: State) -> Iterator[Job]:
    scale = state.scale
    arguments = {
        "names": state.rankers,
        "images": scale.ranked_images,
        "width": scale.checked[1],
        "device": scale.device,
    }
    yield Job("ranks", f"ranks of {scale.ranked_images} images", arguments)


def check_plan(state: State) -> list[Planned]:
    """All checks of correctness; those that open gates come first."""
    parts = (_judged, _exact, _stability, _samples, _options, _objectives, _ranks)
    return open_to_all(job for part in parts for job in part(state) if job.arguments["names"])
