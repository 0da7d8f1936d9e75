"""A model of who waits for whom in the tile kernels, and a search of everything that may happen.

Three roles of each member of a cluster run the instructions that the kernel's own code gives
(emulation/programs.h): a producer that issues loads, and two consumers. Loads land at any time
after they were issued, those of one instruction apart in every member. The products of a consumer
read their slots from issue until they are retired, at the latest.

A barrier's phase is over once all its arrivals are in, and the loads it counts have landed. A wait
names a parity and passes if the phase of that parity is the last one that is over, as in hardware;
so a barrier that gets ahead by two phases looks as if it had not moved.

State: how far each role is, and which loads have landed. The rest follows from it, so a state is
visited once whatever led to it. A landing changes nothing that only its waiters can see, and is
searched as a step of its own.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from functools import reduce
from itertools import accumulate, repeat
from operator import getitem, or_
from typing import NamedTuple

from protocol_steps import CONSUMERS, Cluster, Program, Step, Uses

ARRIVING = ("arrive", "load")
"""Kinds of steps that arrive at their barrier."""
LANDING = -1
"""Who takes the step that a load lands."""
State = tuple[tuple[int, ...], int]
"""How far each role is, and a bit for each load that has landed."""


class Violation(Exception):
    """What can go wrong, in words."""


class Load(NamedTuple):
    """What one instruction of a producer brings to one member.

    position: in its program; phase: which one of its barrier it completes.
    """

    producer: int
    position: int
    barrier: int
    uses: Uses
    phase: int


class Product(NamedTuple):
    """Reads `uses` from position until, in the same program, `end`."""

    position: int
    end: int
    uses: Uses


class Reading(NamedTuple):
    """A product of `role` that reads a slot, from begin until end; loaded: by which load."""

    role: int
    begin: int
    end: int
    loaded: int


def lowest(bits: int) -> int:
    """The number of the lowest bit that is set."""
    return (bits & -bits).bit_length() - 1


def loads_of(producers: Sequence[Program]) -> list[Load]:
    """In an order in which, at every barrier, those of earlier phases come first.

    Members go through the uses of their slots alike: a copy to another one completes there the
    phase that the producer's own barrier is in.
    """
    found = []
    for producer, program in enumerate(producers):
        phases: Counter[int] = Counter()
        steps = ((p, s) for p, s in enumerate(program) if s.kind == "load")
        for number, (position, step) in enumerate(steps):
            phase = phases[step.barrier]
            phases[step.barrier] += 1
            for barrier, uses in step.copies:
                found.append((number, Load(producer, position, barrier, uses, phase)))
    return [load for _, load in sorted(found)]


def products_of(program: Program) -> list[Product]:
    """Products and where they are retired: a retire leaves `number` of the latest under way."""
    products, pending = [], []
    for position, step in enumerate(program):
        if step.kind == "multiply":
            pending.append((position, step.uses))
        elif step.kind == "retire":
            while len(pending) > step.number:
                start, uses = pending.pop(0)
                products.append(Product(start, position, uses))
    products += [Product(start, len(program), uses) for start, uses in pending]
    return products


def arrivals_at(barrier: int, program: Program, warps: int) -> list[int]:
    """How many arrivals a barrier has of the program before each of its places, its end included.

    warps: share the arrivals of the program.
    """
    here = (
        s.number // warps if s.kind in ARRIVING and s.barrier == barrier else 0 for s in program
    )
    return list(accumulate(here, initial=0))


def turns_held(program: Program, names: dict[int, str]) -> list[bool]:
    """Whether the program has waited for the turn and not passed it on, at each of its places."""
    change = {"wait": 1, "arrive": -1}
    turns = (change.get(s.kind, 0) if names.get(s.barrier) == "turn" else 0 for s in program)
    return [held > 0 for held in accumulate(turns, initial=0)]


class Model:
    """Everything that does not change while roles run.

    warps: of a consumer, that share its arrivals; each runs its whole program, which is more
    freedom than a warpgroup has.
    """

    def __init__(self, block: Cluster, warps: int) -> None:
        self.producers = block.members
        producers, consumers = block.programs[: block.members], block.programs[block.members :]
        self.warps = warps
        self.programs = [*producers, *(c for c in consumers for _ in range(warps))]
        self.needed = block.arrivals
        self.loads = loads_of(producers)
        self.loads_at: dict[tuple[int, int], list[int]] = {}
        for k, load in enumerate(self.loads):
            self.loads_at.setdefault((load.producer, load.position), []).append(k)
        self.first: State = ((0,) * len(self.programs), 0)
        self.products = [products_of(program) for program in self.programs]
        share = [1] * len(producers) + [warps] * (len(self.programs) - len(producers))
        self.arrivals = {
            barrier: [
                arrivals_at(barrier, *role) for role in zip(self.programs, share, strict=True)
            ]
            for barrier in self.needed
        }
        self.holding = [turns_held(program, block.names) for program in self.programs]
        brought = {use: k for k, load in enumerate(self.loads) for use in load.uses}
        self.by_slot: dict[int, list[tuple[int, int]]] = {}
        self.on_barrier: dict[int, int] = {}
        for k, load in enumerate(self.loads):
            for slot, content in load.uses:
                self.by_slot.setdefault(slot, []).append((k, content))
            self.on_barrier[load.barrier] = self.on_barrier.get(load.barrier, 0) | 1 << k
        self.readings: dict[int, list[Reading]] = {slot: [] for slot in self.by_slot}
        for role, products in enumerate(self.products):
            for product in products:
                for use in product.uses:
                    reading = Reading(role, product.position, product.end, brought[use])
                    self.readings[use[0]].append(reading)
        self.issued = [
            list(accumulate(map(self.issued_at, repeat(p), range(len(program))), or_, initial=0))
            for p, program in enumerate(producers)
        ]

    def issued_at(self, producer: int, position: int) -> int:
        """Bits of the loads that a producer issues there."""
        return sum(1 << k for k in self.loads_at.get((producer, position), ()))

    def consumer(self, role: int) -> int:
        """Number of the consumer, those of the second member after those of the first."""
        return (role - self.producers) // self.warps

    def name(self, role: int) -> str:
        if role < self.producers:
            return f"producer {role}"
        return f"consumer {self.consumer(role)}"

    def all_issued(self, places: tuple[int, ...]) -> int:
        """Bits of the loads that producers have issued."""
        return reduce(or_, map(getitem, self.issued, places))

    def phases_over(self, barrier: int, state: State) -> int:
        """How many phases of a barrier are over."""
        places, landed = state
        over = sum(map(getitem, self.arrivals[barrier], places)) // self.needed[barrier]
        missing = self.on_barrier.get(barrier, 0) & ~landed
        if missing:  # the first of them completes the earliest phase
            over = min(over, self.loads[lowest(missing)].phase)
        return over

    def passes(self, step: Step, state: State) -> bool:
        return self.phases_over(step.barrier, state) % 2 != step.number

    def slot_content(self, slot: int, state: State) -> int | None:
        """What the slot holds, None while a load into it is under way."""
        places, landed = state
        issued, content = self.all_issued(places), None
        for k, brought in self.by_slot.get(slot, ()):
            if issued >> k & 1:
                content = brought if landed >> k & 1 else None
        return content

    def check_load(self, load: int, slot: int, state: State) -> None:
        places, landed = state
        for k, _ in self.by_slot[slot]:
            if k < load and not landed >> k & 1:
                raise Violation(f"slot {slot} is loaded before an earlier load into it has landed")
        for role, begin, end, loaded in self.readings[slot]:
            if begin < places[role] <= end:
                raise Violation(f"slot {slot} is loaded while {self.name(role)} reads it")
            if places[role] <= begin and loaded < load:
                raise Violation(f"slot {slot} is loaded before {self.name(role)} read it")

    def check_multiply(self, step: Step, state: State) -> None:
        for slot, content in step.uses:
            if self.slot_content(slot, state) != content:
                raise Violation(f"slot {slot} is read before it holds what is wanted")

    def next_states(self, state: State) -> list[tuple[int, State]]:
        """Every state one step away, and the role that takes it, LANDING. Raises: Violation."""
        places, landed = state
        found: list[tuple[int, State]] = []
        under_way = self.all_issued(places) & ~landed
        while under_way:
            found.append((LANDING, (places, landed | 1 << lowest(under_way))))
            under_way &= under_way - 1
        for role, program in enumerate(self.programs):
            if places[role] == len(program):
                continue
            step = program[places[role]]
            if step.kind == "wait" and not self.passes(step, state):
                continue
            if step.kind == "load":
                for load in self.loads_at[role, places[role]]:
                    for slot, _ in self.loads[load].uses:
                        self.check_load(load, slot, state)
            elif step.kind == "multiply":
                self.check_multiply(step, state)
            moved = (*places[:role], places[role] + 1, *places[role + 1 :])
            found.append((role, (moved, landed)))
        return found

    def check_end(self, state: State) -> None:
        places, _ = state
        stuck = [
            f"{self.name(role)} at {program[place]}"
            for role, (place, program) in enumerate(zip(places, self.programs, strict=True))
            if place < len(program)
        ]
        if stuck:
            raise Violation("deadlock: " + "; ".join(stuck))

    def check_exclusion(self, state: State) -> None:
        """One consumer of a member has the turn: it waited for it and has not passed it on."""
        places, _ = state
        holders = {
            self.consumer(role)
            for role, held in enumerate(self.holding)
            if role >= self.producers and held[places[role]]
        }
        if len(holders) > len({consumer // CONSUMERS for consumer in holders}):
            raise Violation("both consumers have the turn")


def search(block: Cluster, warps: int = 1, limit: int = 2_000_000) -> int:
    """Visit every state that may be reached; how many there are. Raises: Violation."""
    model = Model(block, warps)
    seen, left = {model.first}, [model.first]
    while left:
        state = left.pop()
        following = model.next_states(state)
        if not following:
            model.check_end(state)
        model.check_exclusion(state)
        for _, other in following:
            if other not in seen:
                seen.add(other)
                left.append(other)
        if len(seen) > limit:
            raise RuntimeError(f"more than {limit} states")
    return len(seen)


def wander(block: Cluster, walks: int, warps: int = 1) -> None:
    """Go that many ways from begin to end, each with roles that are quick or slow by chance.

    For what has too many states to visit them all. Raises: Violation.
    """
    model = Model(block, warps)
    for seed in range(walks):
        chance = random.Random(seed)
        haste = [chance.random() ** 4 for _ in (*model.programs, LANDING)]  # the last: of landings
        state = model.first
        while following := model.next_states(state):
            (chosen,) = chance.choices(following, [haste[role] for role, _ in following])
            state = chosen[1]
            model.check_exclusion(state)
        model.check_end(state)
