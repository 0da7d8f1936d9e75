"""What the roles of a cluster do, for `protocol_model.py`: made of the kernel's own instructions.

emulation/programs.h records them. Waits, arrivals and copies stay what they are; of a product only
what it reads matters here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

RING = 6
"""Slots of the ring of the kernel; those behind them hold text slices that stay."""
TILE = 128
"""Rows of an image slice."""
SLOT = TILE * 64 * 2
"""Bytes."""
CONSUMERS = 2
MEMBER = 1 << 20
"""From an address in shared memory to the same one in the next member of the cluster."""

Uses = tuple[tuple[int, int], ...]
"""(address of the part of a slot that one member loads, content) loaded or read."""


class Step(NamedTuple):
    """kind: wait, arrive, load, multiply or retire. barrier: its address.

    number: of a wait the parity, of a retire how many products may stay under way, else arrivals.
    uses: of a product. copies: of a load (barrier that counts it, what it fills), one in a member.
    """

    kind: str
    barrier: int = 0
    number: int = 0
    uses: Uses = ()
    copies: tuple[tuple[int, Uses], ...] = ()


Program = list[Step]


class Cluster(NamedTuple):
    """programs: those of the producers, then of the two consumers of each member.

    members: how many. arrivals: of a phase, by barrier. names: of barriers.
    """

    programs: list[Program]
    members: int
    arrivals: dict[int, int]
    names: dict[int, str]


class Reader:
    """Makes steps of the recorded instructions of one role of one member.

    numbers: of contents, of all roles, so that no two loads bring the same. An image slice is told
    by its coordinates, the pass, and how often it was there in the pass; a text slice that stays by
    coordinates and pass, another one besides by the image slice that it is multiplied with.
    first_stays: slots from this address on hold texts that stay.
    """

    def __init__(
        self, member: int, members: int, first_stays: int, numbers: dict[Any, int]
    ) -> None:
        self.member, self.members = member, members
        self.first_stays, self.numbers = first_stays, numbers
        self.passes, self.image = 0, None
        self.times: Counter[Any] = Counter()

    def next_image(self, element: int, half: int, row: int) -> None:
        """row: the first of the tile."""
        key = (self.passes, element, half, row)
        self.times[key] += 1
        self.image = (*key, self.times[key])

    def part(self, member: int, slot: int, part: int, content: Any) -> tuple[int, int]:
        number = self.numbers.setdefault((member, content, part), len(self.numbers))
        return member * MEMBER + slot + part * (SLOT // self.members), number

    def text(self, slot: int, at: Any) -> Uses:
        content = (self.passes, at, None if slot >= self.first_stays else self.image)
        return tuple(self.part(self.member, slot, p, content) for p in range(self.members))

    def load(self, expect: Any, copies: Sequence[Any]) -> Step:
        """`expect` arrives; then come the copies of one instruction, one to a member."""
        offset, of_image = self.member * (TILE // self.members), copies[0].map == 0
        if of_image:
            element, half, row = copies[0].at
            self.next_image(element, half, row - offset)
        filled = []
        for i in copies:
            if of_image:
                start = i.slot - self.member * (SLOT // self.members)
                uses: Uses = (self.part(i.member, start, self.member, self.image),)
            else:
                uses = self.text(i.slot, i.at)
            filled.append((i.member * MEMBER + i.barrier, uses))
        return Step("load", self.member * MEMBER + expect.barrier, 1, copies=tuple(filled))

    def multiply(self, i: Any) -> Step:
        self.next_image(*i.at)
        image, text = ((x & 0x3FFF) << 4 for x in (i.image, i.text))
        parts = (self.part(self.member, image, p, self.image) for p in range(self.members))
        return Step("multiply", uses=(*parts, *self.text(text, i.text_at)))

    def read(self, recorded: Sequence[Any]) -> Program:
        steps: Program = []
        multiplied = False
        for place, i in enumerate(recorded):
            if i.kind == "pass":
                self.passes += 1
            elif i.kind in ("wait", "arrive", "retire"):
                member = i.member if i.kind == "arrive" else self.member
                steps.append(Step(i.kind, member * MEMBER + i.barrier, i.number))
            elif i.kind == "expect":
                following = recorded[place + 1 : place + 1 + self.members]
                copies = [c for c in following if c.kind == "copy"]
                steps.append(self.load(i, copies))
            elif i.kind == "fence":
                multiplied = False
            elif i.kind == "product" and not multiplied:  # of a slice the first, so at its begin
                multiplied = True
                steps.append(self.multiply(i))
        return steps


ROLES = 2 + CONSUMERS
"""Recorded of each member: setup, producer, consumers."""


def cluster(recorded: Sequence[Sequence[Any]]) -> Cluster:
    """What the kernel does, from recorded instructions."""
    members = len(recorded) // ROLES
    numbers: dict[Any, int] = {}
    producers, consumers = [], []
    names: dict[int, str] = {}
    arrivals: dict[int, int] = {}
    for member in range(members):
        setup, *roles = recorded[member * ROLES : (member + 1) * ROLES]
        barriers = [member * MEMBER + i.barrier for i in setup]
        arrivals |= zip(barriers, (i.number for i in setup), strict=True)
        names |= dict.fromkeys(barriers, "turn")
        for slot in range((len(barriers) - 2) // 2):  # in the order in which they are initialised
            of_text = "text_" * (slot >= RING)
            pair = barriers[2 * slot : 2 * slot + 2]
            names |= zip(pair, (f"{of_text}full", f"{of_text}empty"), strict=True)
        stays = min(i.slot for i in roles[0] if i.kind == "copy") // SLOT * SLOT + RING * SLOT
        of_member = [Reader(member, members, stays, numbers).read(role) for role in roles]
        producers.append(of_member[0])
        consumers += of_member[1:]
    return Cluster(producers + consumers, members, arrivals, names)
