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

import networkx as nx

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
    if not blocks:
        return []
    flow = _control_flow(blocks)
    order = list(nx.dfs_postorder_nodes(flow, 0))[::-1]
    flow = flow.subgraph(order)  # what can be reached
    dominator = nx.immediate_dominators(flow, 0)
    bodies: dict[int, set[int]] = {}
    for block in order:
        for header in flow[block]:
            if _dominates(header, block, dominator):
                body = bodies.setdefault(header, {header})
                if block != header:
                    without = nx.restricted_view(flow, [header], [])
                    body.update(nx.ancestors(without, block), {block})
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


def _control_flow(blocks: list[list[Instruction]]) -> nx.DiGraph:
    """From the number of each block to those that may follow it."""
    starts = [block[0].address for block in blocks]
    flow = nx.DiGraph()
    flow.add_nodes_from(range(len(blocks)))
    for position, block in enumerate(blocks):
        last = block[-1]
        if last.falls and position + 1 < len(blocks):
            flow.add_edge(position, position + 1)
        if last.target is not None:
            flow.add_edge(position, bisect_right(starts, last.target) - 1)
    return flow


def _dominates(header: int, block: int, dominator: dict[int, int]) -> bool:
    while block not in (header, 0):
        block = dominator[block]
    return block == header
