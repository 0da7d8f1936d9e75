"""A model of who waits for whom in the mining kernel, and a search of everything that may happen.

Three roles run the steps that the kernel itself writes down (csrc/cuda/protocol_trace.h): a
producer that issues loads, and two consumers. Loads land at any time after they were issued. The
products of a consumer read their slots from issue until they are retired, at the latest.

A barrier's phase is over once all its arrivals are in, and the loads it counts have landed. A wait
names a parity and passes if the phase of that parity is the last one that is over, as in hardware;
so a barrier that gets ahead by two phases looks as if it had not moved.

State: how far each role is, and which loads have landed. The rest follows from it, so a state is
visited once whatever led to it. A landing changes nothing that only its waiters can see, and is
searched as a step of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

PRODUCER = 0
ARRIVING = ("arrive", "load")
"""Kinds of steps that arrive at their barrier."""


class Step(NamedTuple):
    """kind: wait, arrive, load, multiply or retire; uses: (slot, content) loaded or read."""

    kind: str
    barrier: str
    index: int
    parity: int
    uses: tuple[tuple[int, int], ...]


Program = list[Step]
Barrier = tuple[str, int]
State = tuple[tuple[int, ...], int]
"""How far each role is, and a bit for each load that has landed."""


class Violation(Exception):
    """What can go wrong, in words."""


class Load(NamedTuple):
    """position: in the producer's program; phase: which one of its barrier it completes."""

    position: int
    barrier: Barrier
    slot: int
    content: int
    phase: int


class Product(NamedTuple):
    """Reads `uses` from position until, in the same program, `end`."""

    position: int
    end: int
    uses: tuple[tuple[int, int], ...]


def arrivals_of_a_phase(warps: int) -> dict[str, int]:
    """By barrier, if a consumer has so many warps."""
    once = {"full": 1, "text_full": 1}
    return {**once, "empty": warps, "text_empty": 2 * warps, "turn": warps}


def loads_of(producer: Program) -> list[Load]:
    phases: Counter[Barrier] = Counter()
    loads = []
    for position, step in enumerate(producer):
        if step.kind == "load":
            barrier = (step.barrier, step.index)
            loads.append(Load(position, barrier, *step.uses[0], phases[barrier]))
            phases[barrier] += 1
    return loads


def products_of(program: Program) -> list[Product]:
    """Products and where they are retired: a retire leaves `index` of the latest under way."""
    products, pending = [], []
    for position, step in enumerate(program):
        if step.kind == "multiply":
            pending.append((position, step.uses))
        elif step.kind == "retire":
            while len(pending) > step.index:
                start, uses = pending.pop(0)
                products.append(Product(start, position, uses))
    products += [Product(start, len(program), uses) for start, uses in pending]
    return products


def arrivals_at(barrier: Barrier, program: Program) -> list[int]:
    """How often the program arrives at a barrier before each of its places, its end included."""
    here = (s.kind in ARRIVING and (s.barrier, s.index) == barrier for s in program)
    return list(accumulate(here, initial=0))


def turns_held(program: Program) -> list[bool]:
    """Whether the program has waited for the turn and not passed it on, at each of its places."""
    change = {"wait": 1, "arrive": -1}
    turns = (change.get(s.kind, 0) if s.barrier == "turn" else 0 for s in program)
    return [held > 0 for held in accumulate(turns, initial=0)]


class Model:
    """Everything that does not change while roles run.

    programs: those of the producer and the two consumers. warps: of a consumer; each runs its whole
    program, which is more freedom than a warpgroup has.
    """

    def __init__(self, programs: Sequence[Program], warps: int) -> None:
        producer, *consumers = programs
        self.warps = warps
        self.programs = [producer, *(c for c in consumers for _ in range(warps))]
        self.needed = arrivals_of_a_phase(warps)
        self.loads = loads_of(producer)
        self.load_at = {load.position: k for k, load in enumerate(self.loads)}
        self.products = [products_of(program) for program in self.programs]
        barriers = {(s.barrier, s.index) for p in self.programs for s in p if s.kind in ARRIVING}
        self.arrivals = {b: [arrivals_at(b, p) for p in self.programs] for b in barriers}
        self.holding = [turns_held(program) for program in self.programs]
        self.content = {load.content: load for load in self.loads}
        self.by_slot: dict[int, list[int]] = {}
        self.by_barrier: dict[Barrier, list[int]] = {}
        for k, load in enumerate(self.loads):
            self.by_slot.setdefault(load.slot, []).append(k)
            self.by_barrier.setdefault(load.barrier, []).append(k)

    def consumer(self, role: int) -> int:
        return (role - 1) // self.warps

    def name(self, role: int) -> str:
        return "the producer" if role == PRODUCER else f"consumer {self.consumer(role)}"

    def phases_over(self, barrier: Barrier, state: State) -> int:
        """How many phases of a barrier are over."""
        places, landed = state
        arrivals = self.arrivals.get(barrier)
        if arrivals is None:
            return 0
        arrived = sum(by_place[place] for by_place, place in zip(arrivals, places, strict=True))
        over = arrived // self.needed[barrier[0]]
        for k in self.by_barrier.get(barrier, ()):
            if self.loads[k].position < places[PRODUCER] and not landed >> k & 1:
                over = min(over, self.loads[k].phase)
        return over

    def passes(self, step: Step, state: State) -> bool:
        return self.phases_over((step.barrier, step.index), state) % 2 != step.parity

    def slot_content(self, slot: int, state: State) -> int | None:
        """What the slot holds, None while a load into it is under way."""
        places, landed = state
        content = None
        for k in self.by_slot.get(slot, ()):
            if self.loads[k].position < places[PRODUCER]:
                content = self.loads[k].content if landed >> k & 1 else None
        return content

    def check_load(self, load: Load, state: State) -> None:
        places, landed = state
        for k in self.by_slot[load.slot]:
            earlier = self.loads[k]
            if earlier.position < load.position and not landed >> k & 1:
                raise Violation(f"slot {load.slot} is loaded while a load into it is under way")
        for role, products in enumerate(self.products):
            for product in products:
                begun, over = product.position < places[role], product.end < places[role]
                if begun and not over and any(slot == load.slot for slot, _ in product.uses):
                    raise Violation(f"slot {load.slot} is loaded while {self.name(role)} reads it")
                unread = [c for slot, c in product.uses if slot == load.slot and not begun]
                if any(self.content[c].position < load.position for c in unread):
                    raise Violation(f"slot {load.slot} is loaded before {self.name(role)} read it")

    def check_multiply(self, step: Step, state: State) -> None:
        for slot, content in step.uses:
            if self.slot_content(slot, state) != content:
                raise Violation(f"slot {slot} is read before it holds what is wanted")

    def next_states(self, state: State) -> list[State]:
        """Every state one step away. Raises: Violation."""
        places, landed = state
        found = [
            (places, landed | 1 << k)
            for k, load in enumerate(self.loads)
            if load.position < places[PRODUCER] and not landed >> k & 1
        ]
        for role, program in enumerate(self.programs):
            if places[role] == len(program):
                continue
            step = program[places[role]]
            if step.kind == "wait" and not self.passes(step, state):
                continue
            if step.kind == "load":
                self.check_load(self.loads[self.load_at[places[role]]], state)
            elif step.kind == "multiply":
                self.check_multiply(step, state)
            moved = tuple(p + (r == role) for r, p in enumerate(places))
            found.append((moved, landed))
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
        """One consumer at a time has the turn: it waited for it and has not passed it on."""
        places, _ = state
        holders = {
            self.consumer(role)
            for role, held in enumerate(self.holding)
            if role != PRODUCER and held[places[role]]
        }
        if len(holders) > 1:
            raise Violation("both consumers have the turn")


def search(programs: Sequence[Program], warps: int = 1, limit: int = 2_000_000) -> int:
    """Visit every state that may be reached; how many there are. Raises: Violation."""
    model = Model(programs, warps)
    first: State = ((0,) * len(model.programs), 0)
    seen, left = {first}, [first]
    while left:
        state = left.pop()
        following = model.next_states(state)
        if not following:
            model.check_end(state)
        model.check_exclusion(state)
        for other in following:
            if other not in seen:
                seen.add(other)
                left.append(other)
        if len(seen) > limit:
            raise RuntimeError(f"more than {limit} states")
    return len(seen)
