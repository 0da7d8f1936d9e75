"""What can be said about the Hopper tile kernels without a GPU: their machine code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from goal_kernels import native

FUNCTION = re.compile(r"^\s*Function\s*:?\s*(\S+)")
KERNEL = re.compile(
    r"tile_kernel\S*OperandE(\d)\S*(?:MineKindE(\d)|RankEpilogueI\S*DeviceWarpE(?:NS_\d+)?(\w+?)E)"
)
INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,5})\*/\s+(.*?)\s*;")
BRANCH = re.compile(r"\bBRA\b.* 0x([0-9a-f]+)$")
OPERANDS, KINDS = ("bfloat16", "float16"), ("none", "linear", "exponential")
DTYPES = ("bfloat16", "float16", "float32")
VARIANTS = (
    *((operand, kind) for operand in OPERANDS for kind in KINDS),
    *(("float16" if dtype == "float16" else "bfloat16", f"ranks of {dtype}") for dtype in DTYPES),
)
SHUFFLES = {"none": 15, "exponential": 55, "linear": 61}
INSTRUCTIONS = {"none": 650, "exponential": 700, "linear": 1100}
"""Limits for mining; those for ranks stand where they are asked for."""
CONSUMER_REGISTERS, PRODUCER_REGISTERS = 240, 24

Variant = tuple[str, str]


class Instruction(NamedTuple):
    address: int
    text: str

    @property
    def branch(self) -> int | None:
        """Where it may branch to."""
        found = BRANCH.search(self.text)
        return None if found is None else int(found[1], 16)


Code = list[Instruction]


def cuobjdump() -> str:
    """The tool of the CUDA toolkit, or the one that Triton brings along."""
    found = shutil.which("cuobjdump")
    if found is None:
        triton = pytest.importorskip("triton")
        found = str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump")
    if not os.access(found, os.X_OK):
        pytest.skip("needs cuobjdump")
    return found


@cache
def listing(option: str) -> str:
    ok, reason = native.status()
    if not ok:
        pytest.skip(reason)
    if not native.build_info()["cuda"]["built"]:
        pytest.skip("built without CUDA")
    command = [cuobjdump(), "-arch", "sm_90a", option, native.load().__file__]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def by_variant(option: str) -> dict[Variant, list[str]]:
    """Lines that cuobjdump prints of each kernel."""
    found: dict[Variant, list[str]] = {}
    lines: list[str] = []
    for line in listing(option).splitlines():
        if (head := FUNCTION.match(line)) is not None:
            lines = []
            if (kernel := KERNEL.search(head[1])) is not None:
                operand, mined, ranked = kernel.groups()
                dtype = {"f": "float32"}.get(ranked, ranked)
                kind = f"ranks of {dtype}" if mined is None else KINDS[int(mined)]
                found[OPERANDS[int(operand)], kind] = lines
        lines.append(line)
    return found


@cache
def codes() -> dict[Variant, Code]:
    found = {}
    for variant, lines in by_variant("-sass").items():
        matches = filter(None, map(INSTRUCTION.match, lines))
        found[variant] = [Instruction(int(m[1], 16), m[2]) for m in matches]
    return found


def smallest_loop(code: Code, *wanted: str) -> Code:
    """The shortest run that ends in a branch back to its begin and has all that is `wanted`."""
    loops = [
        [j for j in code if i.branch <= j.address <= i.address]
        for i in code
        if i.branch is not None and i.branch < i.address
    ]
    having = [p for p in loops if all(any(w in i.text for i in p) for w in wanted)]
    return min(having, key=len)


def count(code: Code, *names: str) -> int:
    return sum(any(re.search(rf"\b{name}\b", i.text) for name in names) for i in code)


variants = pytest.mark.parametrize("variant", VARIANTS, ids="-".join)


def test_every_variant_is_there() -> None:
    assert set(codes()) == set(VARIANTS)


@variants
def test_registers_suffice(variant: Variant) -> None:
    """No spill, and the registers of three warpgroups make up those of a multiprocessor."""
    usage = " ".join(by_variant("-res-usage")[variant])
    assert re.search(r"\bSTACK:0\b", usage)
    assert re.search(r"\bLOCAL:0\b", usage)
    assert int(re.search(r"\bREG:(\d+)", usage)[1]) <= 168
    code = codes()[variant]
    assert count(code, "LDL", "STL") == 0
    assert count(code, f"USETMAXREG.TRY_ALLOC.CTAPOOL.*0x{CONSUMER_REGISTERS:x}") == 1
    assert count(code, f"USETMAXREG.DEALLOC.CTAPOOL.*0x{PRODUCER_REGISTERS:x}") == 1
    assert 128 * (2 * CONSUMER_REGISTERS + PRODUCER_REGISTERS) <= 65536


@variants
def test_products_follow_each_other(variant: Variant) -> None:
    """8 asynchronous products a step, one step stays under way, and nothing else of note."""
    loop = smallest_loop(codes()[variant], "HGMMA", "WARPGROUP.DEPBAR.LE gsb0, 0x1")
    suffix = ".BF16" if variant[0] == "bfloat16" else ""
    assert count(loop, rf"HGMMA.64x128x16.F32{suffix}") == count(loop, "HGMMA") == 8
    assert count(loop, "LDG", "STG", "REDG", "ATOMG", "SHFL", "BAR") == 0
    assert len(loop) <= 200


@variants
def test_thread_blocks_of_a_cluster_meet_twice(variant: Variant) -> None:
    """When barriers are there, and at the end. Nowhere else is all of memory fenced."""
    code = codes()[variant]
    assert count(code, "UTMALDG.3D") == 4
    assert count(code, r"UTMALDG.3D.MULTICAST") == 1
    assert count(code, "UCGABAR_WAIT") == 2
    assert count(code, "MEMBAR.ALL.GPU") == count(code, "CCTL.IVALL") == 2
    assert count(smallest_loop(code, "HGMMA", "SYNCS.ARRIVE.TRANS64.RED"), "MEMBAR", "CCTL") == 0
    copy = next(p for p, i in enumerate(code) if "MULTICAST" in i.text)
    wait = max(p for p, i in enumerate(code[:copy]) if "PHASECHK" in i.text)
    assert count(code[wait:copy], r"MUFU\S*") == 0  # a division, for which the copy would wait


@variants
def test_a_tile_needs_few_shuffles(variant: Variant) -> None:
    """Row maxima 3, searches 12; sums 28 + 7 of columns, 3 + 2 of rows; ties of rows 4 + 2.

    Ranks: counts of rows 2; of a batch of scores 1, and 3 of float64.
    """
    loop = smallest_loop(codes()[variant], "HGMMA", "WARPGROUP.DEPBAR.LE gsb0, 0x0")
    assert count(loop, "SHFL") <= SHUFFLES.get(variant[1], 9)
    assert count(loop, "BAR") == 0
    assert count(loop, "MUFU.EX2") == (128 if variant[1] == "exponential" else 0)


@variants
def test_a_common_tile_takes_few_instructions(variant: Variant) -> None:
    """No mask, no new row maximum, nothing that reaches the threshold: every rare part skipped.

    The first branch that skips much is for a block beyond the end, and not taken. At a width of 512
    the products take 4096 cycles, and a scheduler issues at most one a cycle.
    """
    code = codes()[variant]
    at = {instruction.address: place for place, instruction in enumerate(code)}
    place = next(p for p, i in enumerate(code) if "WARPGROUP.DEPBAR.LE gsb0, 0x0" in i.text)
    taken, exists = 0, False
    while True:
        taken += 1
        instruction = code[place]
        if instruction.branch is not None and instruction.branch < instruction.address:
            break
        always = not instruction.text.startswith("@")
        rare = instruction.branch is not None and at[instruction.branch] - place >= 40
        rare, exists = rare and exists, rare or exists
        place = at[instruction.branch] if rare or (instruction.branch and always) else place + 1
    assert 500 <= taken <= INSTRUCTIONS.get(variant[1], 900)
