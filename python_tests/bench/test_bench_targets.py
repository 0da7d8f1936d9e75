"""What a run says about the targets: limits, the worst figure, cases that must not be mixed."""

from __future__ import annotations

import pytest

from bench.cases import FORWARD, FORWARD_BACKWARD, GOAL_LOSS, MINE, NO_OBJECTIVE, PLAIN, RELATIVE
from bench.results import Record
from bench.tables import job_table, target_sentence, target_table
from bench.targets import TARGETS, Verdict, judge_targets

KINDS = (("bfloat16", "highest"), ("float32", "highest"), ("float32", "high"))


def record(
    op: str = GOAL_LOSS,
    mode: str = FORWARD_BACKWARD,
    objective: str = PLAIN,
    size: tuple[int, int] = (4096, 1024),
    kind: tuple[str, str] = KINDS[0],
    ratios: tuple[float, float, float] = (0.5, 0.5, 0.15),
    backend: str = "cpu",
) -> Record:
    """Ratios to gemm, gemm_out and eager."""
    return Record(
        op=op,
        backend=backend,
        mode=mode,
        objective=objective,
        B=size[0],
        D=size[1],
        dtype=kind[0],
        precision=kind[1],
        threads=2,
        metric="wall_time",
        unit="ms",
        p20=1.0,
        p50=1.0 + KINDS.index(kind),
        p80=2.0,
        ratio_to_gemm=ratios[0],
        ratio_to_gemm_out=ratios[1],
        ratio_to_eager=ratios[2],
        device="Test CPU",
        torch="2.13.0",
        commit="0",
        date="2026-05-21",
    )


def mining(**changes) -> Record:
    return record(op=MINE, mode=FORWARD, objective=NO_OBJECTIVE, **changes)


def verdict(records: list[Record], title: str) -> Verdict:
    found = [v for v in judge_targets(records) if v.target.title == title]
    assert len(found) == 1
    return found[0]


def test_every_figure_of_the_issue_is_a_target() -> None:
    limits = {target.title: target.limit for target in TARGETS}
    assert len(limits) == len(TARGETS) == 14
    assert limits["mining / gemm_out, bfloat16"] == 1.05
    assert limits["mining / gemm_out, float32 `highest`"] == 1.1
    assert limits["mining / gemm_out, float32 `high`"] == 0.33
    assert limits["forward + backward / gemm, bfloat16"] == 0.75
    assert limits["forward + backward / gemm, float32 `highest`"] == 1.0
    assert limits["forward + backward / gemm, float32 `high`"] == 0.35
    assert limits["forward + backward / eager, bfloat16"] == 0.2
    assert limits["forward + backward / eager, float32 `high`"] == 0.2
    assert [limit for title, limit in limits.items() if "relative" in title] == [1.3] * 3
    assert [limit for title, limit in limits.items() if "any job" in title] == [1.0] * 3


@pytest.mark.parametrize(("ratio", "met"), [(1.05, True), (1.06, False)])
def test_the_worst_size_decides(ratio, met) -> None:
    records = [
        mining(ratios=(0.1, 0.9, 0.1)),
        mining(size=(8192, 1024), ratios=(0.1, ratio, 0.1)),
        mining(size=(1024, 1024), ratios=(9.0, 9.0, 0.1)),
        mining(size=(8192, 256), ratios=(9.0, 9.0, 0.1)),
        mining(kind=KINDS[1], ratios=(9.0, 9.0, 0.1)),
        mining(backend="gemm", ratios=(9.0, 9.0, 0.1)),
    ]
    found = verdict(records, "mining / gemm_out, bfloat16")
    assert found.met is met
    assert [figure.ratio for figure in found.figures] == [max(ratio, 0.9), 0.9]


def test_steps_are_compared_with_the_product_and_with_eager() -> None:
    records = [
        record(ratios=(0.74, 2.0, 0.21)),
        record(objective=RELATIVE, ratios=(5.0, 2.2, 0.9)),
        record(mode=FORWARD, ratios=(5.0, 2.0, 0.9)),
    ]
    assert verdict(records, "forward + backward / gemm, bfloat16").met
    assert verdict(records, "forward + backward / eager, bfloat16").met is False
    (relative,) = verdict(records, "relative sums / plain, bfloat16").figures
    assert relative.ratio == pytest.approx(1.1)


def test_relative_sums_need_their_plain_partner_of_the_same_kind() -> None:
    records = [record(objective=RELATIVE, kind=KINDS[2]), record(kind=KINDS[1])]
    assert verdict(records, "relative sums / plain, float32 `high`").figures == ()


def test_nothing_may_be_slower_than_eager_at_any_size() -> None:
    records = [record(size=(32, 256), ratios=(9.0, 9.0, 1.01)), mining(), record(mode=FORWARD)]
    found = verdict(records, "any job / eager, bfloat16")
    assert found.met is False
    assert len(found.figures) == 3
    assert "32 × 256" in found.figures[0].where


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    verdicts = judge_targets([mining()])
    assert {v.met for v in verdicts} == {True, None}
    assert "mining / gemm_out, float32 `high` | not measured |" in target_table(verdicts)
    assert "that are met: 2 of 2;" in target_sentence(verdicts)


def test_tables_name_the_missed_ones() -> None:
    verdicts = judge_targets([mining(ratios=(2.0, 2.0, 0.9))])
    assert "| mining / gemm_out, bfloat16 | **missed** | 2.00 at 4096 × 1024 | 1.05 | 1 |" in (
        target_table(verdicts)
    )
    assert "that are met: 1 of 2; the full table names the others." in target_sentence(verdicts)


def test_a_run_without_the_backend_has_no_targets() -> None:
    assert judge_targets([mining(backend="triton")]) == []
    assert target_table([]) == target_sentence([]) == ""


def test_precisions_have_rows_of_their_own() -> None:
    table = job_table([record(kind=kind) for kind in KINDS], GOAL_LOSS)
    for kind, time in (("bfloat16", 1), ("float32 `highest`", 2), ("float32 `high`", 3)):
        assert f"| {kind} | 4096 × 1024 | {time} | 0.50 | 0.15 |" in table
    assert len(table.splitlines()) == 2 + 3


def test_mining_is_compared_with_existing_memory() -> None:
    header = job_table([mining()], MINE).splitlines()[0]
    assert "cpu / gemm_out | cpu / eager" in header
    assert job_table([mining()], GOAL_LOSS) == ""
