"""What the GPU kernels are held to (DESIGN, section 4), and what a session says about each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bench.cases import FORWARD_BACKWARD, GOAL_LOSS, PLAIN
from bench.contestants import GEMM
from bench.gpu.contestants import GRAPH
from bench.gpu.inputs import HALF_TRAINED
from bench.gpu.results import Record
from bench.gpu.variants import Variant

RATIO = "x GEMM"
MICROSECONDS = "µs"


class Target(NamedTuple):
    """An upper limit for forward + backward in bfloat16, replayed from a CUDA graph.

    width None: any. unit: RATIO, a multiple of the product alone in the same contest, or
    MICROSECONDS.
    """

    backend: str
    batch: int
    width: int | None
    limit: float
    unit: str = RATIO


TARGETS = (
    Target("triton", 4096, None, 2.8),
    Target("triton", 16384, None, 1.6),
    Target("triton", 65536, None, 1.5),
    Target("cuda", 4096, 512, 2.2),
    Target("cuda", 4096, 1024, 1.8),
    Target("cuda", 16384, None, 1.25),
    Target("cuda", 65536, None, 1.12),
    Target("cuda", 1024, None, 30.0, MICROSECONDS),
)
"""On an H100; the table says where a session was made."""


class Figure(NamedTuple):
    """What was measured for a target: by which variant, at which D, for which objective."""

    name: str
    width: int
    objective: str
    value: float


def _figure(target: Target, record: Record, name: str) -> Figure | None:
    lanes, case = record.result["lanes"], record.arguments["case"]
    time = lanes[name]["p50"]
    if target.unit == MICROSECONDS:
        value = 1e3 * time
    elif GEMM + GRAPH in lanes:
        value = time / lanes[GEMM + GRAPH]["p50"]
    else:
        return None
    return Figure(name.removesuffix(GRAPH), case["width"], case["objective"], value)


def figures(target: Target, records: list[Record]) -> Iterator[Figure]:
    """Everything in a session that speaks about a target."""
    for record in records:
        if record.kind != "contest" or "lanes" not in record.result:
            continue
        case = record.arguments["case"]
        asked = (case["op"], case["mode"], case["dtype"], record.arguments["data"])
        fits = asked == (GOAL_LOSS, FORWARD_BACKWARD, "bfloat16", HALF_TRAINED)
        if not fits or case["batch"] != target.batch or target.width not in (None, case["width"]):
            continue
        for name in record.result["lanes"]:
            graph = name.endswith(GRAPH)
            if graph and Variant.parse(name.removesuffix(GRAPH)).backend == target.backend:
                figure = _figure(target, record, name)
                if figure is not None:
                    yield figure


def best_figures(target: Target, records: list[Record]) -> list[Figure]:
    """Of each D and objective the fastest variant; the objective that only mines first."""
    best: dict[tuple[bool, str, int], Figure] = {}
    for figure in figures(target, records):
        key = (figure.objective != PLAIN, figure.objective, figure.width)
        if key not in best or figure.value < best[key].value:
            best[key] = figure
    return [best[key] for key in sorted(best)]
