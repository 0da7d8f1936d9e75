"""A search that processes share out finds what one process finds."""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch
from processes import Processes
from share_tasks import WHOLE, WIDTH, Case, answers, slanted, steep, work
from torch.testing import assert_close

from goal_kernels import Sampled, SkipHardest, TopK
from tools.scaling import Step, tables

SQUARE = [([5, 4], [5, 4]), ([2, 0, 7], [2, 0, 7]), ([1, 1, 0], [1, 1, 0])]
CAPTIONED = [([5, 3], [9, 12]), ([0, 5], [2, 9]), ([2, 4, 1], [6, 3, 5]), ([1, 3, 0], [1, 30, 0])]
KINDS = [
    {},
    {"negatives": "semi_hard"},
    {"negatives": SkipHardest(2)},
    {"negatives": TopK(3)},
    {"negatives": TopK(40)},
    {"negatives": Sampled(0.1, seed=5)},
    {"false_negative_margin": 0.1},
    {"false_negative_ratio": 0.9, "negatives": TopK(2)},
]
OBJECTIVES = ["hinge/constant", "nca/sigmoid_ms", "circle/linear_ms", (steep, slanted)]
OTHERS = [
    {"normalize": True},
    {"direction": "i2t", "reduction": "mean"},
    {"direction": "t2i"},
    {"reduction": "mean", "margin": 0.3},
]


def _cases() -> list[Case]:
    """Kinds, objectives, shapes, backends and the rest, each with each, but not all with all."""
    cases = []
    for number, (kind, objective) in enumerate((k, o) for k in KINDS for o in OBJECTIVES):
        for shapes in (SQUARE, CAPTIONED):
            shape = shapes[number % len(shapes)]
            backend = ("reference", "chunked", "cpu")[(number + number // 3) % 3]
            other = OTHERS[(number + number // 4) % 4] if number % 2 else {}
            exempt = any(name.startswith("false") for name in kind) and number % 4 != 0
            options = {"backend": backend, **kind, **other}
            exact = number % 3 == 0 and "normalize" not in options
            ids = number % 3 != 1
            cases.append(Case(objective, *shape, options, exact, ids, exempt))
            wide = {**options, "precision": "highest"}
            cases.append(Case(objective, *shape, wide, exact, ids, exempt, torch.float32))
    for backend, objective in product(("reference", "chunked", "cpu"), OBJECTIVES[:3]):
        for shape in (*SQUARE[1:], CAPTIONED[2]):
            cases.append(Case(objective, *shape, {"backend": backend}, exact=True, broken=True))
    for number, loss in enumerate((*WHOLE, "nca/sigmoid")):
        all_of_them = {} if loss in WHOLE else {"negatives": "all"}
        directed = {} if loss == "siglip" else OTHERS[1]
        for shape in (SQUARE[number % 3], CAPTIONED[number % 4], CAPTIONED[(number + 1) % 4]):
            ids = number % 2 == 0
            cases.append(Case(loss, *shape, all_of_them, ids=ids))
            options = {**all_of_them, **directed, "false_negative_margin": 0.1, "normalize": True}
            cases.append(Case(loss, *shape, options, ids=not ids, exempt=True))
    return cases


def _said(case: Case, message: str) -> str:
    return f"{case}: {message}"


def test_several_processes_find_what_one_finds(processes: Processes) -> None:
    """Indices and counts are equal; values too where nothing is rounded. One loss everywhere."""
    for world in (2, 3):
        cases = [case for case in _cases() if len(case.images) == world]
        several = zip(*processes.run(world, answers, cases), strict=True)
        for case, parts in zip(cases, several, strict=True):
            [alone] = answers([case])
            where = partial(_said, case)
            rounding = 0 if case.exact else 4 * torch.finfo(case.dtype).eps
            bound = {torch.float64: 1e-11, torch.float32: 2e-5}[case.dtype]
            for part in parts:
                assert_close(part.loss, parts[0].loss, rtol=0, atol=0, equal_nan=True, msg=where)
                assert_close(
                    part.loss, alone.loss, rtol=bound, atol=bound, equal_nan=True, msg=where
                )
                assert part.statistics.keys() == alone.statistics.keys()
                for name, value in alone.statistics.items():
                    near = bound if name == "value" else rounding
                    assert_close(
                        part.statistics[name],
                        value,
                        rtol=near,
                        atol=near,
                        equal_nan=True,
                        msg=where,
                    )
            for side in ("image", "text"):
                together = torch.cat([getattr(part, side) for part in parts])
                assert_close(
                    together,
                    getattr(alone, side),
                    rtol=bound,
                    atol=bound,
                    equal_nan=True,
                    msg=where,
                )


STEPS = [
    (Step(8, WIDTH, 2, 4), "hinge/constant", {}),
    (Step(5, WIDTH, 2, 4, relative=True), "nca/sigmoid_ms", {}),
    (Step(9, WIDTH, 3, 4), "hinge/constant", {}),
    (Step(8, WIDTH, 3, 4, slots=3), "hinge/constant", {"negatives": TopK(3)}),
    (Step(9, WIDTH, 3, 4, True, 2), "circle/linear_ms", {"negatives": TopK(2)}),
]


@pytest.mark.parametrize("world", [2, 3])
def test_counts_of_the_scaling_model(processes: Processes, world: int) -> None:
    """Operations and bytes of docs/scaling.md; and no collective in the backward."""
    steps = [step for step in STEPS if step[0].processes == world]
    cases = []
    for step, objective, options in steps:
        rows = [step.part] * (world - 1)
        rows.append(step.pairs - sum(rows))
        cases.append(Case(objective, rows, rows, options, dtype=torch.float32))
    for counts in processes.run(world, work, cases):
        for (step, *_), count in zip(steps, counts, strict=True):
            assert count == {
                "operations": step.operations,
                "collectives": step.collectives + 1,  # how many pairs each process has
                "float32": step.embedding_bytes,
                "float64": step.vector_bytes,
                "int64": 8 * (world - 1),
            }


def test_tables_of_the_scaling_model_are_those_of_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
    for lines in tables().values():
        assert lines in page
