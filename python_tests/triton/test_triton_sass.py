"""Reading machine code: loops and counts, on listings by hand."""

from __future__ import annotations

import pytest

from tools.aot import sass

NESTED = """
        code for sm_90a
                Function : by_hand
        /*0000*/                   LDC R1, c[0x0][0x28] ;           /* 0x00000a00ff017b82 */
                                                                    /* 0x000e700000000800 */
        /*0010*/               @P0 EXIT ;                           /* 0x000000000000894d */
        /*0020*/                   CS2R R24, SRZ ;                  /* head of the items */
        /*0030*/                   LDL R2, [R1] ;                   /* head of the tiles */
        /*0040*/                   HGMMA.64x128x16.F32.BF16 R24 ;   /* head along the width */
        /*0050*/               @P6 BRA 0x0100 ;                     /* waits out of line */
        /*0060*/              @!P5 BRA 0x0040 ;
        /*0070*/                   HGMMA.64x128x16.F32.BF16 R24 ;   /* the last round, peeled off */
        /*0080*/                   SHFL.BFLY PT, R3, R2, 0x2, 0x1f ;
        /*0090*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*00a0*/                   BRA.U UP0, 0x30 ;               /* operands hold the condition */
        /*00b0*/                   SHFL.BFLY PT, R3, R2, 0x4, 0x1f ;
        /*00c0*/                   REDG.E.MAX.64 desc[UR4][R2.64], R4 ;
        /*00d0*/               @P1 BRA 0x0020 ;
        /*00e0*/                   CALL.REL.NOINC 0x150 ;
        /*00f0*/                   EXIT ;
        /*0100*/                   SYNCS.PHASECHK.TRYWAIT P0, [R5], R7 ;
        /*0110*/              @!P0 BRA 0x0100 ;
        /*0120*/                   NOP ;
        /*0130*/                   BRA 0x0060 ;
        /*0140*/                   BRA 0x140;                       /* where the code ends */
        /*0150*/                   STL [R1], R2 ;
        /*0160*/                   RET.REL.NODEC R2 0x0 ;
"""


def addresses(loop: list[sass.Instruction]) -> list[int]:
    return [instruction.address for instruction in loop]


def span(first: int, last: int) -> list[int]:
    return list(range(first, last + 1, 16))


def test_every_line_is_an_instruction() -> None:
    instructions = sass.parse(NESTED)
    assert addresses(instructions) == span(0, 0x160)
    by_address = {i.address: i for i in instructions}
    assert by_address[0x40].opcode == "HGMMA"
    assert by_address[0xC0].opcode == "REDG"
    assert by_address[0xA0] == (0xA0, "BRA", 0x30, True)
    assert by_address[0x130] == (0x130, "BRA", 0x60, False)
    assert by_address[0x10].falls
    assert not by_address[0xF0].falls
    assert by_address[0xE0] == (0xE0, "CALL", 0x150, True)


def test_loops_include_what_lies_out_of_line_and_nothing_else() -> None:
    """The wait at 0x100 to 0x130 belongs to every loop; its jump back to 0x60 makes none."""
    waiting, wait = span(0x100, 0x130), span(0x100, 0x110)
    found = sorted((addresses(loop) for loop in sass.natural_loops(sass.parse(NESTED))), key=len)
    assert found == [
        wait,
        span(0x40, 0x60) + waiting,
        span(0x30, 0xA0) + waiting,
        span(0x20, 0xD0) + waiting,
    ]


def test_the_tile_loop_is_the_one_around_the_products() -> None:
    instructions = sass.parse(NESTED)
    loop = sass.tile_loop(instructions, "wgmma")
    assert addresses(loop) == span(0x30, 0xA0) + span(0x100, 0x130)
    # The flush after it, with its shuffle and its atomic, is not counted.
    assert sass.count(loop, "wgmma") == sass.Counts(
        total=12, shuffles=1, local=1, barriers=1, atomics=0, matrix=2
    )
    assert sass.count(instructions, "wgmma") == sass.Counts(
        total=23, shuffles=2, local=2, barriers=1, atomics=1, matrix=2
    )


def test_where_nothing_is_around_the_products_the_kernel_counts() -> None:
    one_loop = [i for i in sass.parse(NESTED) if i.address not in (0xA0, 0xD0)]
    assert sass.tile_loop(one_loop, "wgmma") == one_loop
    assert sass.tile_loop(one_loop, "mma") == one_loop  # no product at all


def test_of_several_products_the_larger_loop_counts() -> None:
    """A remainder loop with one product comes first; its surroundings are the smaller loop."""
    listing = """
        /*0000*/ NOP ;
        /*0010*/ NOP ;
        /*0020*/ HMMA.16816.F32 R0, R1, R2, R3 ;
        /*0030*/ @P0 BRA 0x20 ;
        /*0040*/ @P0 BRA 0x10 ;
        /*0050*/ SHFL.BFLY PT, R3, R2, 0x1, 0x1f ;
        /*0060*/ HMMA.16816.F32 R0, R1, R2, R3 ;
        /*0070*/ HMMA.16816.F32 R0, R1, R2, R3 ;
        /*0080*/ @P0 BRA 0x60 ;
        /*0090*/ NOP ;
        /*00a0*/ NOP ;
        /*00b0*/ @P0 BRA 0x50 ;
        /*00c0*/ EXIT ;
    """
    assert addresses(sass.tile_loop(sass.parse(listing), "mma")) == span(0x50, 0xB0)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("/*0000*/ UTCHMMA gdesc[UR4], tmem[UR2] ;\n/*0010*/ FFMA R0, R1, R2, R3 ;", "tcgen05"),
        ("/*0000*/ HGMMA.64x64x8.F32.TF32 R24 ;", "wgmma"),
        ("/*0000*/ HMMA.1688.F32.TF32 R0, R1, R2, R3 ;\n/*0010*/ FFMA R0, R1, R2, R3 ;", "mma"),
        ("/*0000*/ FFMA2 R0, R2, R4, R6 ;", "fma"),
        ("/*0000*/ REDUX.MAX UR4, R2 ;\n/*0010*/ EXIT ;", ""),
    ],
)
def test_the_matrix_instruction_is_recognised(lines: str, expected: str) -> None:
    instructions = sass.parse(lines)
    assert sass.used_matrix_instruction(instructions) == expected
    assert sass.count(instructions, "fma").atomics == 0  # REDUX is none
