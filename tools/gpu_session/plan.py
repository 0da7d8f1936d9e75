"""What a session does: stages of jobs, the smallest and most telling experiments first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace

from bench.cases import (
    BFLOAT16,
    FLOAT16,
    FORWARD,
    FORWARD_BACKWARD,
    GOAL_LOSS,
    GRADIENTS,
    HIGH,
    HIGHEST,
    HUBS,
    MEDIUM,
    MINE,
    NO_OBJECTIVE,
    PLAIN,
    RANDOM,
    RELATIVE,
    Case,
    Kind,
)
from goal_kernels import builtin_objectives
from tools.gpu_session.tile_scores import CASES, Tiles
from tools.gpu_session.watchdog import PATIENCE, Job

Size = tuple[int, int]
"""B and D."""

LINEAR = "circle/linear_ms"
"""The other kind of relative sums."""

LARGE_PATIENCE = 240.0
"""Seconds without a heartbeat where float64 needs its time: above B = 65536."""


@dataclass(frozen=True)
class Scale:
    """How large a session is.

    tiles: products that are compared number by number. losses: the objectives that are timed.
    first: sizes of the smallest contests. steps, large: of training steps. odd: with B not a
    multiple of 16. asked: where options, kinds of data and other kinds are tried. kinds: of
    products. objectives: each is judged, at the size checked. judged, stable: sizes of further
    checks. parts: of mining, forward and gradients alone. ranked: images and width. rivals: sizes
    for torch.compile and pytorch-metric-learning. whole: of losses over all negatives. tests: files
    of the test suite, with options of pytest.
    """

    device: str
    tiles: tuple[Tiles, ...]
    losses: tuple[str, ...]
    first: tuple[Size, ...]
    steps: tuple[Size, ...]
    large: tuple[Size, ...]
    odd: tuple[Size, ...]
    asked: tuple[Size, ...]
    kinds: tuple[Kind, ...]
    objectives: tuple[str, ...]
    checked: Size
    judged: tuple[Size, ...]
    stable: tuple[Size, ...]
    parts: tuple[Size, ...]
    ranked: tuple[Size, ...]
    rivals: tuple[Size, ...]
    whole: tuple[Size, ...]
    tests: tuple[str, ...]


REAL = Scale(
    device="cuda",
    tiles=CASES,
    losses=(PLAIN, RELATIVE, LINEAR),
    first=((128, 512), (1024, 512)),
    steps=(
        *((1024, 512), (4096, 512), (16384, 512), (2048, 512), (512, 512)),
        *((4096, 1024), (16384, 1024), (4096, 256), (16384, 256)),
    ),
    large=((65536, 512), (65536, 1024), (65536, 256), (262144, 512), (1048576, 256)),
    odd=((1000, 512), (5000, 512), (10001, 512)),
    asked=((4096, 512), (16384, 512)),
    kinds=(BFLOAT16, HIGH, HIGHEST, FLOAT16, MEDIUM),
    objectives=tuple(objective.name for objective in builtin_objectives()),
    checked=(777, 320),
    judged=((777, 320), (2048, 512), (1000, 1024)),
    stable=((2040, 512), (4096, 512), (8192, 512)),
    parts=((4096, 512), (16384, 512), (65536, 512)),
    ranked=((5000, 1024), (25000, 512)),
    rivals=((1024, 512), (4096, 512), (16384, 512)),
    whole=((1024, 512), (4096, 512), (16384, 512), (16384, 1024)),
    tests=(
        "python_tests/cuda -m gpu",
        "python_tests/test_whole_batch.py -m gpu",
        "python_tests/test_graphs.py -m gpu",
        "python_tests/test_backend_parity.py",
        "python_tests/triton/test_triton_search.py",
        "python_tests/triton/test_triton_forward.py",
        "python_tests/triton/test_triton_strategies.py",
        "python_tests/triton/test_triton_screen.py",
        "python_tests/triton/test_triton_rank.py",
    ),
)

DRY = Scale(
    device="cpu",
    tiles=(Tiles(5, 3, 8),),
    losses=(RELATIVE,),
    first=((6, 16),),
    steps=((9, 16),),
    large=((6, 24),),
    odd=((7, 16),),
    asked=((9, 16),),
    kinds=(BFLOAT16,),
    objectives=(),
    checked=(9, 16),
    judged=(),
    stable=((5, 8),),
    parts=((8, 8),),
    ranked=((8, 16),),
    rivals=((7, 8),),
    whole=((9, 8),),
    tests=("python_tests/data/test_truth_relation.py --noconftest",),  # imports no torch
)


def _step(scale: Scale, size: Size, objective: str = PLAIN, kind: Kind = BFLOAT16) -> Case:
    return Case(GOAL_LOSS, FORWARD_BACKWARD, objective, *size, *kind, scale.device)


def _contests(suite: str, cases: Iterable[Case]) -> Iterator[Job]:
    for case in dict.fromkeys(cases):
        patience = LARGE_PATIENCE if case.batch > 65536 else PATIENCE
        yield Job("contest", str(case), {"case": asdict(case), "suite": suite}, patience)


def _environment(scale: Scale) -> Iterator[Job]:
    yield Job("describe", "environment", {"device": scale.device})


def _tiles(scale: Scale) -> Iterator[Job]:
    arguments = {"cases": [list(tiles) for tiles in scale.tiles], "device": scale.device}
    yield Job("tile_scores", "scores of tiles", arguments, LARGE_PATIENCE)


def _first(scale: Scale) -> Iterator[Job]:
    """A plain call, a captured one, graphed_loss and fullgraph, each compiled here first."""
    return _contests("first", (_step(scale, s, o) for s in scale.first for o in scale.losses))


def _tests(scale: Scale) -> Iterator[Job]:
    yield Job("pytest_files", "GPU tests", {"files": list(scale.tests)}, LARGE_PATIENCE)


def _checks(scale: Scale) -> Iterator[Job]:
    """Everything once against float64, and the same bits again."""
    cases = [_step(scale, scale.checked, objective) for objective in scale.objectives]
    for size in scale.judged:
        for kind in scale.kinds:
            cases += [_step(scale, size, objective, kind) for objective in scale.losses]
    for kind in scale.kinds:
        case = _step(scale, scale.checked, RELATIVE, kind)
        cases.append(replace(case, ids="groups", normalize=True))
        cases.append(replace(case, op=MINE, mode=FORWARD, objective=NO_OBJECTIVE))
    yield from _contests("checks", cases)
    for size in scale.stable:
        cases = [_step(scale, size, objective) for objective in scale.losses]
        for case in cases + _screened(scale, size):
            case = replace(case, data=HUBS)
            yield Job("repeated", f"bit-equal-{case}", {"case": asdict(case)})


def _screened(scale: Scale, size: Size) -> list[Case]:
    """The case in which products of another precision say which pairs are multiplied in full."""
    return [_step(scale, size, kind=kind) for kind in scale.kinds if kind == HIGHEST]


def _steps(scale: Scale) -> Iterator[Job]:
    return _contests("steps", (_step(scale, s, o) for s in scale.steps for o in scale.losses))


def _options(scale: Scale) -> Iterator[Job]:
    """What may cost more than the plain case, beside it or at the size next to it."""
    cases = [_step(scale, size, o) for size in scale.odd for o in scale.losses]
    for size in scale.asked:
        for objective in scale.losses:
            case = _step(scale, size, objective)
            cases += [replace(case, ids=ids) for ids in ("shuffled", "sorted")]
            cases += [replace(case, normalize=True)]
            cases += [replace(case, data=data) for data in (HUBS, RANDOM)]
            cases += [_step(scale, size, objective, kind) for kind in scale.kinds[1:]]
    return _contests("steps", cases)


def _large(scale: Scale) -> Iterator[Job]:
    cases = [_step(scale, size, o) for size in scale.large for o in scale.losses]
    return _contests("large", cases + _screened(scale, scale.large[0]))


def _parts(scale: Scale) -> Iterator[Job]:
    cases = []
    for size in scale.parts:
        case = _step(scale, size)
        cases.append(replace(case, op=MINE, mode=FORWARD, objective=NO_OBJECTIVE))
        cases += [replace(case, mode=FORWARD, objective=o) for o in scale.losses]
        cases.append(replace(case, op=GRADIENTS))
    return _contests("steps", cases)


def _ranks(scale: Scale) -> Iterator[Job]:
    for images, width in scale.ranked:
        for dtype in ("bfloat16", "float32"):
            case = [images, width, dtype, scale.device]
            yield Job("ranks", f"ranks of {images}x{width} {dtype}", {"case": case})


def _rivals(scale: Scale) -> Iterator[Job]:
    cases = (_step(scale, size, o) for size in scale.rivals for o in (PLAIN, RELATIVE))
    return _contests("rivals", cases)


def _whole_batch(scale: Scale) -> Iterator[Job]:
    for size in scale.whole:
        for dtype in ("bfloat16", "float32"):
            for loss in ("sum_of_hinges", "info_nce", "siglip"):
                case = [loss, *size, dtype, scale.device]
                title = f"{loss} of {size[0]}x{size[1]} {dtype}"
                yield Job("whole_batch", title, {"case": case}, LARGE_PATIENCE)


BUILD = "build"
STAGES: dict[str, Callable[[Scale], Iterator[Job]]] = {
    "environment": _environment,
    "tiles": _tiles,
    "first": _first,
    "tests": _tests,
    "checks": _checks,
    "steps": _steps,
    "options": _options,
    "large": _large,
    "parts": _parts,
    "ranks": _ranks,
    "rivals": _rivals,
    "whole_batch": _whole_batch,
}
"""After BUILD, in this order."""


def plan(stage: str, scale: Scale, sizes: Iterable[Size] = ()) -> list[Job]:
    """The jobs of a stage; of contests only those of the given sizes, if any are given."""
    wanted = set(sizes)

    def fits(job: Job) -> bool:
        case = job.arguments.get("case")
        return not wanted or not isinstance(case, dict) or (case["batch"], case["width"]) in wanted

    return [job for job in STAGES[stage](scale) if fits(job)]
