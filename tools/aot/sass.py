"""Reading machine code: which loop of a kernel walks the tiles, and what it executes.

The listing is what `cuobjdump -sass` prints. Loops are natural loops of the control flow graph (a
branch back to a block that dominates it, and all between), so code that the compiler moved out of
line, such as waiting for a barrier, counts where it is executed and not where it lies.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

MATRIX_OPCODES = {
    "tcgen05": ("UTCHMMA", "UTCQMMA"),
    "wgmma": ("HGMMA", "QGMMA"),
    "mma": ("HMMA", "QMMA"),
    "fma": ("FFMA", "FFMA2"),
}
"""Opcodes by kind of matrix instruction, the most capable first."""

LOCAL = ("LDL", "STL")
BARRIERS = ("BAR",)
ATOMICS = ("ATOM", "ATOMG", "ATOMS", "RED", "REDG", "REDS")

_LINE = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+\s+)?([A-Z]\w*)([^\s;]*)([^;]*);", re.M)
_ADDRESS = re.compile(r"\b0x([0-9a-f]+)\s*$")
_RETURNS = ("EXIT", "RET")


class Instruction(NamedTuple):
    """One line of a listing; opcode without its modifiers, such as "SHFL" for SHFL.BFLY.

    target: address that a branch or call may go to, else None. falls: whether the next instruction
    can follow it.
    """

    address: int
    opcode: str
    target: int | None
    falls: bool


class Counts(NamedTuple):
    """Instructions by class, each executed by a warp as written.

    total: all of them. local: LDL and STL, that is, spilled registers. matrix: products.
    """

    total: int
    shuffles: int
    local: int
    barriers: int
    atomics: int
    matrix: int


def parse(listing: str) -> list[Instruction]:
    """The instructions of a listing of one kernel, in order of address."""
    return [_instruction(*match.groups()) for match in _LINE.finditer(listing)]


def _instruction(
    address: str, guard: str | None, opcode: str, modifiers: str, operands: str
) -> Instruction:
    target = None
    falls = guard is not None or opcode not in _RETURNS
    if opcode in ("BRA", "CALL"):
        named = _ADDRESS.search(operands)
        target = int(named[1], 16) if named else None
        # A branch may carry its condition as an operand: BRA.U UP0, 0x1840.
        conditional = guard is not None or "," in operands
        falls = conditional or opcode == "CALL"
    return Instruction(int(address, 16), opcode, target, falls)


def used_matrix_instruction(instructions: Iterable[Instruction]) -> str:
    """Which kind of matrix instruction the kernel has: a key of MATRIX_OPCODES, or ""."""
    present = {instruction.opcode for instruction in instructions}
    return next((k for k, codes in MATRIX_OPCODES.items() if present.intersection(codes)), "")


def count(instructions: Iterable[Instruction], matrix: str) -> Counts:
    """Count by class; matrix: a key of MATRIX_OPCODES."""
    opcodes = [instruction.opcode for instruction in instructions]

    def among(names: tuple[str, ...]) -> int:
        return sum(opcode in names for opcode in opcodes)

    classes = (("SHFL",), LOCAL, BARRIERS, ATOMICS, MATRIX_OPCODES[matrix])
    return Counts(len(opcodes), *map(among, classes))


def tile_loop(instructions: list[Instruction], matrix: str) -> list[Instruction]:
    """The loop that walks the tiles: products along the width and everything done with them.

    It is the loop around the innermost one with the most matrix instructions, or all of the kernel
    where nothing is around that: a program of one tile, or two loops that became one.
    """
    loops = natural_loops(instructions)
    products = MATRIX_OPCODES[matrix]
    multiplying = [loop for loop in loops if any(i.opcode in products for i in loop)]
    innermost = [a for a in multiplying if not any(set(b) < set(a) for b in multiplying)]
    if not innermost:
        return instructions
    inner = max(innermost, key=lambda loop: count(loop, matrix).matrix)
    around = [loop for loop in loops if set(inner) < set(loop)]
    return min(around, key=len, default=instructions)


def natural_loops(instructions: list[Instruction]) -> list[list[Instruction]]:
    """The instructions of every natural loop, by header; loops of one header are one loop."""
    blocks = _blocks(instructions)
    following = _following(blocks)
    order = _reverse_postorder(following)
    preceding: dict[int, list[int]] = {block: [] for block in order}
    for block in order:
        for successor in following[block]:
            preceding[successor].append(block)
    dominator = _dominators(order, preceding)
    bodies: dict[int, set[int]] = {}
    for block in order:
        for header in following[block]:
            if _dominates(header, block, dominator):
                bodies.setdefault(header, {header}).update(_reaching(block, header, preceding))
    return [[i for block in sorted(body) for i in blocks[block]] for body in bodies.values()]


def _blocks(instructions: list[Instruction]) -> list[list[Instruction]]:
    """Runs of instructions that are entered at the first and left after the last."""
    targets = {instruction.target for instruction in instructions}
    blocks: list[list[Instruction]] = []
    ended = True
    for instruction in instructions:
        if ended or instruction.address in targets:
            blocks.append([])
        blocks[-1].append(instruction)
        ended = instruction.target is not None or not instruction.falls
    return blocks


def _following(blocks: list[list[Instruction]]) -> list[list[int]]:
    starts = [block[0].address for block in blocks]
    following = []
    for position, block in enumerate(blocks):
        last = block[-1]
        successors = [position + 1] if last.falls and position + 1 < len(blocks) else []
        if last.target is not None:
            successors.append(bisect_right(starts, last.target) - 1)
        following.append(successors)
    return following


def _reverse_postorder(following: list[list[int]]) -> list[int]:
    """Blocks that can be reached from the first, each before those that only follow it."""
    finished: list[int] = []
    seen = {0}
    path = [(0, iter(following[0]))] if following else []
    while path:
        block, successors = path[-1]
        fresh = next((s for s in successors if s not in seen), None)
        if fresh is None:
            finished.append(block)
            path.pop()
        else:
            seen.add(fresh)
            path.append((fresh, iter(following[fresh])))
    return finished[::-1]


def _dominators(order: list[int], preceding: dict[int, list[int]]) -> dict[int, int]:
    """Immediate dominator of every block; the first block is its own (Cooper, Harvey, Kennedy)."""
    rank = {block: place for place, block in enumerate(order)}
    dominator = {block: block for block in order[:1]}
    changed = True
    while changed:
        changed = False
        for block in order[1:]:
            known = [p for p in preceding[block] if p in dominator]
            common = known[0]
            for other in known[1:]:
                while common != other:
                    if rank[common] > rank[other]:
                        common = dominator[common]
                    else:
                        other = dominator[other]
            if dominator.get(block) != common:
                dominator[block] = common
                changed = True
    return dominator


def _dominates(header: int, block: int, dominator: dict[int, int]) -> bool:
    while block not in (header, dominator[block]):
        block = dominator[block]
    return block == header


def _reaching(block: int, header: int, preceding: dict[int, list[int]]) -> set[int]:
    """Blocks from which `block` can be reached without passing the header, itself included."""
    found = {header}
    waiting = [block]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting += preceding[current]
    return found
