"""The barriers of the mining kernel: every interleaving, and faults that the search must find."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from protocol_model import Violation, search, wander
from protocol_steps import MEMBER, RING, Cluster, Program, cluster

from goal_kernels import native

pytestmark = pytest.mark.usefixtures("emulation")


class Case(NamedTuple):
    """tiling: tiles, blocks, tiles of a segment, blocks of a group. slices: of the width.

    ring: slots; a ring of 4 is the smallest that works, and wraps sooner. members: of a cluster.
    """

    tiling: tuple[int, int, int, int]
    slices: int
    split: bool
    ring: int
    why: str
    members: int = 1

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


PAIRS = (
    Case((1, 2, 1, 2), 1, False, 4, "one product each", 2),
    Case((1, 1, 1, 2), 1, False, 4, "a block without a partner", 2),
    Case((1, 4, 1, 4), 1, False, 4, "two passes", 2),
    Case((2, 2, 2, 2), 1, False, 4, "a tile for each consumer", 2),
    Case((1, 2, 1, 2), 2, False, 4, "two products each", 2),
)
"""Two thread blocks that share images, so small that every state can be visited."""
LARGER = (
    Case((5, 6, 2, 4), 2, False, 4, "several items the last one short", 2),
    Case((3, 4, 3, 4), 9, False, 4, "texts that do not stay in a small ring", 2),
    Case((3, 2, 3, 2), 9, False, RING, "texts that do not stay", 2),
    Case((3, 3, 3, 4), 5, True, RING, "split rows that do not stay and no partner", 2),
)


def cluster_of(case: Case, program: int = 0, programs: int = 1) -> Cluster:
    """What a thread block does, or two that share their images."""
    record = native.load().cuda.record
    given = (case.tiling, case.slices, case.split, program, programs, case.ring, case.members)
    return cluster(record(*given))


@pytest.mark.parametrize("case", CASES + PAIRS, ids=str)
def test_every_interleaving_works(case: Case) -> None:
    roles = cluster_of(case)
    assert search(roles) > sum(map(len, roles.programs))


@pytest.mark.parametrize("case", LARGER, ids=str)
def test_many_interleavings_of_larger_pairs_work(case: Case) -> None:
    for warps in (1, 2):
        wander(cluster_of(case), 25, warps)


@pytest.mark.parametrize("case", CASES[1:3], ids=str)
def test_warps_of_a_consumer_may_drift_apart(case: Case) -> None:
    assert search(cluster_of(case), warps=2) > search(cluster_of(case))


@pytest.mark.parametrize("program", [0, 1, 2])
def test_every_thread_block_works(program: int) -> None:
    case = Case((5, 3, 2, 1), 2, False, 4, "nine items")
    search(cluster_of(case, program, 3))


@pytest.mark.parametrize("case", CASES + PAIRS + LARGER, ids=str)
def test_every_tile_is_multiplied_by_one_consumer(case: Case) -> None:
    """All steps of all tiles, and every load is used; a block without partner has zeros for one."""
    programs = cluster_of(case).programs
    producers, consumers = programs[: case.members], programs[case.members :]
    tiles, blocks, _, _ = case.tiling
    blocks = -(-blocks // case.members) * case.members
    uses = [step.uses for program in consumers for step in program if step.kind == "multiply"]
    assert len(uses) == len(set(uses)) == tiles * blocks * case.slices * (3 if case.split else 1)
    copies = [copy for p in producers for step in p for copy in step.copies]
    assert {use for _, filled in copies for use in filled} == {use for pair in uses for use in pair}


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


def is_found(roles: Cluster) -> bool:
    try:
        if roles.members == 1:
            search(roles)
        else:
            wander(roles, walks=10)
    except Violation:
        return True
    return False


def share_found(roles: Cluster, role: int, places: list[int], change: Change) -> float:
    """Of the places of a role's program, those where the change is found."""
    found = 0
    for place in places:
        programs = list(roles.programs)
        programs[role] = change(programs[role], place)
        found += is_found(roles._replace(programs=programs))
    return found / len(places)


@pytest.mark.parametrize(
    "fault", FAULTS, ids=lambda f: f"{f[0]}: {'-'.join(f[2])} of {f[1]}".replace(" ", "-")
)
def test_the_search_finds_a_planted_fault(
    fault: tuple[str, int, tuple[str, str], Change, float],
) -> None:
    _, role, which, change, share = fault
    roles = cluster_of(FAULTY)
    program = roles.programs[role]
    named = [(step.kind, roles.names.get(step.barrier, "")) for step in program]
    places = [i for i, name in enumerate(named) if name == which]
    assert share_found(roles, role, places, change) >= share


FIRST_PRODUCER, OTHER_PRODUCER, FIRST_OF_FIRST, SECOND_OF_OTHER = 0, 1, 2, 5
FAULTS_OF_PAIRS = (
    # what, where, kind of the step, member whose barrier it is at, the change, as above
    ("slots overwritten before they are empty", FIRST_PRODUCER, "wait", 0, leave_out, 0.4),
    ("slots overwritten before they are empty", OTHER_PRODUCER, "wait", 1, leave_out, 0.4),
    ("slots not released at home", FIRST_OF_FIRST, "arrive", 0, leave_out, 0.6),
    ("slots not released at the other", FIRST_OF_FIRST, "arrive", 1, leave_out, 0.6),
    ("slots not released at the other", SECOND_OF_OTHER, "arrive", 0, leave_out, 0.6),
    ("wrong parity", OTHER_PRODUCER, "wait", 1, other_parity, 1.0),
)
FAULTY_PAIR = Case((2, 4, 2, 4), 10, False, RING, "two passes, texts that do not stay", 2)


@pytest.mark.parametrize("fault", FAULTS_OF_PAIRS, ids=lambda f: f"{f[0]} of {f[1]}")
def test_walks_find_a_planted_fault_of_a_pair(
    fault: tuple[str, int, str, int, Change, float],
) -> None:
    _, role, kind, member, change, share = fault
    roles = cluster_of(FAULTY_PAIR)
    places = [
        i
        for i, step in enumerate(roles.programs[role])
        if step.kind == kind
        and step.barrier // MEMBER == member
        and roles.names[step.barrier] == "empty"
    ]
    assert share_found(roles, role, places, change) >= share
