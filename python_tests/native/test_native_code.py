"""What can be said about kernels for other processors without having one: their machine code."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from goal_kernels import native

X86 = platform.machine() in ("x86_64", "AMD64")
KERNEL = re.compile(r"^[0-9a-f]+ <(?P<name>.*(?:mine_tile|screen_tile)<.*)>:$")


@cache
def kernels() -> dict[str, str]:
    """Demangled name of every micro-kernel -> its disassembly."""
    objdump = shutil.which("objdump")
    if objdump is None or not X86:
        pytest.skip("needs objdump (binutils) and an x86-64 build")
    command = [objdump, "--disassemble", "--demangle", "--no-show-raw-insn", native.load().__file__]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, str] = {}
    for part in text.split("\n\n"):
        head, _, body = part.partition("\n")
        if (match := KERNEL.match(head)) is not None:
            found[match["name"]] = found.get(match["name"], "") + body
    return found


def of_product(name: str) -> dict[str, str]:
    return {kernel: body for kernel, body in kernels().items() if f"::{name}" in kernel}


def needs(isa: str) -> None:
    if isa not in native.build_info()["compiled_isas"]:
        pytest.skip(f"this build has no {isa} kernels")


def test_amx_kernels_multiply_on_tiles() -> None:
    """Four products a step, three times as many for split values, and loads to feed them."""
    needs("amx")
    for product, multiplies, loads in (("AmxProduct<false>", 4, 4), ("AmxProduct<true>", 12, 8)):
        real = [body for body in of_product(product).values() if "tdpbf16ps" in body]
        assert len(real) == 4  # three kinds of mining and screening
        for body in real:
            assert body.count("tdpbf16ps") == multiplies
            assert body.count("tileloadd") == loads
            assert body.count("tilezero") == body.count("tilestored") == 4


def test_tiles_are_configured_without_the_intrinsic() -> None:
    """GCC before 13.3 drops most of what `_tile_loadconfig` is given: the next tile faults."""
    sources = Path(__file__).parents[2].joinpath("csrc", "cpu").iterdir()
    assert [path.name for path in sources if "_tile_loadconfig(" in path.read_text()] == []


def test_bfloat16_kernels_keep_their_sums_in_registers() -> None:
    """28 accumulators, and no vector of the inner loop goes through memory."""
    needs("avx512_bf16")
    bodies = of_product("Bfloat16Product")
    assert len(bodies) == 4
    for body in bodies.values():
        lines = body.splitlines()
        products = [i for i, line in enumerate(lines) if "vdpbf16ps" in line]
        assert len(products) == 28
        inner = lines[products[0] : products[-1]]
        assert not [line for line in inner if "(%rsp" in line or "(%rbp" in line]
