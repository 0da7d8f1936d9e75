"""A model of who waits for whom in the tile kernels, and a search of everything that may happen.

Three roles run the instructions that the kernel's own code gives (emulation/programs.h): a producer
that issues loads, and two consumers. Loads land at any time after they were issued. The products of
a consumer read their slots from issue until they are retired, at the latest.

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
from operator import getitem, or_
from typing import Any, NamedTuple

PRODUCER = 0
ARRIVING = ("arrive", "load")
"""Kinds of steps that arrive at their barrier."""
RING = 6
"""Slots of the ring of the kernel; those behind them hold text slices that stay."""
SLOT = 128 * 64 * 2
"""Bytes."""


class Step(NamedTuple):
    """kind: wait, arrive, load, multiply or retire. barrier: its address.

    number: of a wait the parity, of a retire how many products may stay under way, else arrivals.
    uses: (address of a slot, content) loaded or read.
    """

    kind: str
    barrier: int = 0
    number: int = 0
    uses: tuple[tuple[int, int], ...] = ()


Program = list[Step]
State = tuple[tuple[int, ...], int]
"""How far each role is, and a bit for each load that has landed."""


class ThreadBlock(NamedTuple):
    """programs: those of the producer and the two consumers.

    arrivals: of a phase, by barrier. names: of barriers.
    """

    programs: list[Program]
    arrivals: dict[int, int]
    names: dict[int, str]


def read(recorded: Sequence[Any], first_stays: int, numbers: dict[Any, int]) -> Program:
    """Steps of a role's instructions. first_stays: slots from this address on hold texts that stay.

    numbers: of contents, of all roles, so that no two loads bring the same. An image slice is told
    by its coordinates, the pass, and how often it was there in the pass; a text slice that stays by
    coordinates and pass, another one besides by the image slice that it is multiplied with.
    """
    steps: Program = []
    passes, image, multiplied = 0, None, None
    times: Counter[Any] = Counter()

    def number(content: Any) -> int:
        return numbers.setdefault(content, len(numbers))

    def next_image(at: Any) -> int:
        times[passes, at] += 1
        return number((passes, at, times[passes, at]))

    def next_text(at: Any, slot: int) -> int:
        return number((passes, "text", at, None if slot >= first_stays else image))

    for i in recorded:
        if i.kind == "begin_pass":
            passes += 1
        elif i.kind in ("wait", "arrive", "retire"):
            steps.append(Step(i.kind, i.barrier, i.number))
        elif i.kind == "copy":  # after `expect`, which arrives
            if i.map == 0:
                content = image = next_image(i.at)
            else:
                content = next_text(i.at, i.slot)
            steps.append(Step("load", i.barrier, 1, ((i.slot, content),)))
        elif i.kind == "fence":
            multiplied = None
        elif i.kind == "product" and multiplied is None:  # of a slice the first, so at its begin
            multiplied = i
            image = next_image(i.at)
            slots = [(x & 0x3FFF) << 4 for x in (i.image, i.text)]
            uses = tuple(zip(slots, (image, next_text(i.text_at, slots[1])), strict=True))
            steps.append(Step("multiply", uses=uses))
    return steps


def thread_block(setup: Sequence[Any], *roles: Sequence[Any]) -> ThreadBlock:
    """What the kernel does, from recorded instructions."""
    barriers = [i.barrier for i in setup]
    names = dict.fromkeys(barriers, "turn")
    for slot in range((len(barriers) - 2) // 2):  # in the order in which they are initialised
        of_text = "text_" * (slot >= RING)
        pair = barriers[2 * slot : 2 * slot + 2]
        names |= zip(pair, (f"{of_text}full", f"{of_text}empty"), strict=True)
    first = min(i.slot for i in roles[PRODUCER] if i.kind == "copy")
    numbers: dict[Any, int] = {}
    programs = [read(role, first + RING * SLOT, numbers) for role in roles]
    return ThreadBlock(programs, {i.barrier: i.number for i in setup}, names)


class Violation(Exception):
    """What can go wrong, in words."""


class Load(NamedTuple):
    """position: in the producer's program; phase: which one of its barrier it completes."""

    position: int
    barrier: int
    slot: int
    content: int
    phase: int


class Product(NamedTuple):
    """Reads `uses` from position until, in the same program, `end`."""

    position: int
    end: int
    uses: tuple[tuple[int, int], ...]


class Reader(NamedTuple):
    """A product of `role` that reads a slot, from begin until end; loaded: where its content is."""

    role: int
    begin: int
    end: int
    loaded: int


def lowest(bits: int) -> int:
    """The number of the lowest bit that is set."""
    return (bits & -bits).bit_length() - 1


def loads_of(producer: Program) -> list[Load]:
    phases: Counter[int] = Counter()
    loads = []
    for position, step in enumerate(producer):
        if step.kind == "load":
            loads.append(Load(position, step.barrier, *step.uses[0], phases[step.barrier]))
            phases[step.barrier] += 1
    return loads


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

    def __init__(self, block: ThreadBlock, warps: int) -> None:
        producer, *consumers = block.programs
        self.warps = warps
        self.programs = [producer, *(c for c in consumers for _ in range(warps))]
        self.needed = block.arrivals
        self.loads = loads_of(producer)
        self.load_at = {load.position: k for k, load in enumerate(self.loads)}
        self.products = [products_of(program) for program in self.programs]
        share = [1] + [warps] * (len(self.programs) - 1)
        self.arrivals = {
            barrier: [
                arrivals_at(barrier, *role) for role in zip(self.programs, share, strict=True)
            ]
            for barrier in self.needed
        }
        self.holding = [turns_held(program, block.names) for program in self.programs]
        content = {load.content: load.position for load in self.loads}
        self.by_slot: dict[int, list[int]] = {}
        self.on_barrier: dict[int, int] = {}
        for k, load in enumerate(self.loads):
            self.by_slot.setdefault(load.slot, []).append(k)
            self.on_barrier[load.barrier] = self.on_barrier.get(load.barrier, 0) | 1 << k
        self.readers: dict[int, list[Reader]] = {slot: [] for slot in self.by_slot}
        for role, products in enumerate(self.products):
            for product in products:
                for slot, wanted in product.uses:
                    reader = Reader(role, product.position, product.end, content[wanted])
                    self.readers[slot].append(reader)
        issued = (1 << self.load_at[p] if p in self.load_at else 0 for p in range(len(producer)))
        self.issued = list(accumulate(issued, or_, initial=0))

    def consumer(self, role: int) -> int:
        return (role - 1) // self.warps

    def name(self, role: int) -> str:
        return "the producer" if role == PRODUCER else f"consumer {self.consumer(role)}"

    def phases_over(self, barrier: int, state: State) -> int:
        """How many phases of a barrier are over."""
        places, landed = state
        over = sum(map(getitem, self.arrivals[barrier], places)) // self.needed[barrier]
        under_way = self.issued[places[PRODUCER]] & ~landed & self.on_barrier.get(barrier, 0)
        if under_way:  # the first of them completes the earliest phase
            over = min(over, self.loads[lowest(under_way)].phase)
        return over

    def passes(self, step: Step, state: State) -> bool:
        return self.phases_over(step.barrier, state) % 2 != step.number

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
        for role, begin, end, loaded in self.readers[load.slot]:
            if begin < places[role] <= end:
                raise Violation(f"slot {load.slot} is loaded while {self.name(role)} reads it")
            if places[role] <= begin and loaded < load.position:
                raise Violation(f"slot {load.slot} is loaded before {self.name(role)} read it")

    def check_multiply(self, step: Step, state: State) -> None:
        for slot, content in step.uses:
            if self.slot_content(slot, state) != content:
                raise Violation(f"slot {slot} is read before it holds what is wanted")

    def next_states(self, state: State) -> list[State]:
        """Every state one step away. Raises: Violation."""
        places, landed = state
        found = []
        under_way = self.issued[places[PRODUCER]] & ~landed
        while under_way:
            found.append((places, landed | 1 << lowest(under_way)))
            under_way &= under_way - 1
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
            moved = (*places[:role], places[role] + 1, *places[role + 1 :])
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


def search(block: ThreadBlock, warps: int = 1, limit: int = 2_000_000) -> int:
    """Visit every state that may be reached; how many there are. Raises: Violation."""
    model = Model(block, warps)
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
