"""The barriers of the mining kernel: every interleaving, and faults that the search must find."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from protocol_model import RING, Program, ThreadBlock, Violation, search, thread_block

from goal_kernels import native

pytestmark = pytest.mark.usefixtures("emulation")


class Case(NamedTuple):
    """tiling: tiles, blocks, tiles of a segment, blocks of a group. slices: of the width.

    ring: slots; a ring of 4 is the smallest that works, and wraps sooner.
    """

    tiling: tuple[int, int, int, int]
    slices: int
    split: bool
    ring: int
    why: str

    def __str__(self) -> str:
        return self.why.replace(" ", "-")


CASES = (
    Case((1, 1, 1, 1), 1, False, 4, "one product"),
    Case((1, 3, 1, 1), 2, False, 4, "one tile a segment"),
    Case((3, 3, 3, 3), 1, False, 4, "odd passes"),
    Case((5, 2, 2, 1), 2, False, 4, "several items the last one short"),
    Case((4, 1, 4, 1), 3, False, RING, "two rounds of the ring"),
    Case((6, 1, 6, 1), 2, False, RING, "one pass of many tiles"),
    Case((2, 1, 2, 1), 9, False, RING, "text slices that do not stay"),
    Case((3, 1, 3, 1), 9, False, 4, "text slices that do not stay in a small ring"),
    Case((3, 2, 3, 2), 1, True, 4, "split rows"),
    Case((2, 1, 2, 1), 5, True, RING, "split rows that do not stay"),
)


def block_of(case: Case, program: int = 0, programs: int = 1) -> ThreadBlock:
    """What a thread block does."""
    record = native.load().cuda.record
    return thread_block(*record(case.tiling, case.slices, case.split, program, programs, case.ring))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_interleaving_works(case: Case) -> None:
    block = block_of(case)
    assert search(block) > sum(map(len, block.programs))


@pytest.mark.parametrize("case", CASES[1:3], ids=str)
def test_warps_of_a_consumer_may_drift_apart(case: Case) -> None:
    assert search(block_of(case), warps=2) > search(block_of(case))


@pytest.mark.parametrize("program", [0, 1, 2])
def test_every_thread_block_works(program: int) -> None:
    case = Case((5, 3, 2, 1), 2, False, 4, "nine items")
    search(block_of(case, program, 3))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_tile_is_multiplied_by_one_consumer(case: Case) -> None:
    """All steps of all tiles, and every load is used."""
    _, *consumers = programs = block_of(case).programs
    tiles, blocks, _, _ = case.tiling
    uses = [step.uses for program in consumers for step in program if step.kind == "multiply"]
    assert len(uses) == len(set(uses)) == tiles * blocks * case.slices * (3 if case.split else 1)
    loaded = {step.uses[0] for step in programs[0] if step.kind == "load"}
    assert loaded == {use for pair in uses for use in pair}


# --- Faults ---------------------------------------------------------------------------------------


Change = Callable[[Program, int], Program]
"""A program and the place of one of its steps -> the program with a fault there."""


def leave_out(program: Program, place: int) -> Program:
    return program[:place] + program[place + 1 :]


def other_parity(program: Program, place: int) -> Program:
    wrong = program[place]._replace(number=1 - program[place].number)
    return [*program[:place], wrong, *program[place + 1 :]]


def swap_with_next(program: Program, place: int) -> Program:
    return [*program[:place], program[place + 1], program[place], *program[place + 2 :]]


def one_more_under_way(program: Program, place: int) -> Program:
    more = program[place]._replace(number=program[place].number + 1)
    return [*program[:place], more, *program[place + 1 :]]


PRODUCER, FIRST, SECOND = range(3)
FAULTS = (
    # what, where, kind and barrier of the step, the change, least share of places it is found at
    ("slots read before they are full", FIRST, ("wait", "full"), leave_out, 1.0),
    ("slots read before they are full", SECOND, ("wait", "full"), leave_out, 1.0),
    # The second consumer has its turn after the first one saw the text land: it is covered.
    ("text read before it is full", FIRST, ("wait", "text_full"), leave_out, 0.3),
    ("slots overwritten before they are empty", PRODUCER, ("wait", "empty"), leave_out, 0.4),
    ("text overwritten before it is empty", PRODUCER, ("wait", "text_empty"), leave_out, 0.5),
    # Nobody waits for the last ones.
    ("slots not released", FIRST, ("arrive", "empty"), leave_out, 0.6),
    ("slots not released", SECOND, ("arrive", "empty"), leave_out, 0.6),
    ("text not released", FIRST, ("arrive", "text_empty"), leave_out, 0.5),
    ("text not released", SECOND, ("arrive", "text_empty"), leave_out, 0.5),
    ("turn not passed on", FIRST, ("arrive", "turn"), leave_out, 1.0),
    ("turn not passed on", SECOND, ("arrive", "turn"), leave_out, 0.7),
    ("turn not waited for", FIRST, ("wait", "turn"), leave_out, 0.4),
    ("turn not waited for", SECOND, ("wait", "turn"), leave_out, 1.0),
    ("wrong parity", FIRST, ("wait", "full"), other_parity, 1.0),
    ("wrong parity", SECOND, ("wait", "full"), other_parity, 1.0),
    ("wrong parity", PRODUCER, ("wait", "empty"), other_parity, 1.0),
    ("wrong parity", FIRST, ("wait", "text_full"), other_parity, 1.0),
    ("wrong parity", SECOND, ("wait", "text_full"), other_parity, 1.0),
    ("wrong parity", PRODUCER, ("wait", "text_empty"), other_parity, 1.0),
    ("wrong parity", FIRST, ("wait", "turn"), other_parity, 1.0),
    ("wrong parity", SECOND, ("wait", "turn"), other_parity, 1.0),
    ("released before products are retired", FIRST, ("retire", ""), swap_with_next, 0.4),
    ("released before products are retired", SECOND, ("retire", ""), swap_with_next, 0.4),
    ("one more product under way", FIRST, ("retire", ""), one_more_under_way, 0.4),
    ("one more product under way", SECOND, ("retire", ""), one_more_under_way, 0.4),
)
FAULTY = Case((4, 3, 4, 3), 2, False, 4, "three passes")


def is_found(block: ThreadBlock) -> bool:
    try:
        search(block)
    except Violation:
        return True
    return False


@pytest.mark.parametrize(
    "fault", FAULTS, ids=lambda f: f"{f[0]}: {'-'.join(f[2])} of {f[1]}".replace(" ", "-")
)
def test_the_search_finds_a_planted_fault(
    fault: tuple[str, int, tuple[str, str], Change, float],
) -> None:
    _, role, which, change, share = fault
    block = block_of(FAULTY)
    program = block.programs[role]
    named = [(step.kind, block.names.get(step.barrier, "")) for step in program]
    places = [i for i, name in enumerate(named) if name == which]
    found = 0
    for place in places:
        programs = list(block.programs)
        programs[role] = change(program, place)
        found += is_found(block._replace(programs=programs))
    assert found >= share * len(places) > 0
