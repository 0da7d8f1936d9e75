"""What is compiled: a kernel as Triton compiles it for a launch, and what it may use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from goal_kernels.backends.gpu.configs import SHARED_LIMIT, STACK_LIMIT
from tools.aot.record import Launch


@dataclass(frozen=True)
class Limits:
    """What a compiled variant may use; None where nothing is asked.

    registers: per thread. stack: bytes per thread of local memory, that is, of spilled registers.
    shared: bytes per program. shuffles, local: SHFL instructions, and LDL and STL instructions, in
    the tile loop (see `sass.tile_loop`).
    """

    registers: int = 255
    stack: int = STACK_LIMIT
    shared: int = SHARED_LIMIT
    shuffles: int | None = None
    local: int | None = 20


@dataclass(frozen=True)
class Variant:
    """One compilation of a kernel.

    kernel, module: name of the jit function, and where it is defined.
    arch: compute capability times ten.
    signature: Triton type per argument, "constexpr" for what is known when it is compiled.
    constants: the values that are known. attributes: what is known of others, such as being a
        multiple of 16. Both by position of the argument, as Triton wants them.
    options: num_warps and the like.
    matrix: the instruction that has to multiply: tcgen05, wgmma, mma or fma; "" if none has to.
    label: of the first case that launches it.
    """

    kernel: str
    module: str
    arch: int
    signature: dict[str, str]
    constants: dict[tuple[int, ...], Any]
    attributes: dict[tuple[int, ...], Any]
    options: dict[str, Any]
    matrix: str = ""
    limits: Limits = Limits()
    label: str = ""

    @classmethod
    def of_launch(cls, launch: Launch, arch: int) -> Variant:
        """What Triton itself would compile for a launch on that architecture."""
        from triton.backends.compiler import GPUTarget
        from triton.compiler import make_backend
        from triton.runtime.jit import create_function_from_signature

        function, given = launch.function, launch.options
        backend = make_backend(GPUTarget("cuda", arch, 32))
        bind = create_function_from_signature(function.signature, function.params, backend)
        bound, known, options = bind(*launch.arguments, **given)
        packed = function._pack_args(backend, given, bound, known, options)
        _, signature, constants, attributes = packed
        return cls(
            launch.kernel,
            function.module,
            arch,
            signature,
            constants,
            attributes,
            options,
            matrix_instruction(arch, signature, bound),
            limits_of(launch.kernel, arch, bound),
        )


def matrix_instruction(arch: int, signature: dict[str, str], bound: dict[str, Any]) -> str:
    """The instruction that has to do the products: tcgen05, wgmma, mma or fma.

    Kernels that multiply are told by their argument PRECISION, which 16-bit operands disregard.
    """
    if "PRECISION" not in bound:
        return ""
    if bound["PRECISION"] == "ieee" and "fp32" in signature["image"]:
        return "fma"
    # 12.x multiplies by the instructions of 8.x.
    return {9: "wgmma", 10: "tcgen05", 11: "tcgen05"}.get(arch // 10, "mma")


SHARED_OF_HOPPER = 227 * 1024
"""Shared memory one program may use on 9.0, bytes: strips have tiles of their own there."""

SHUFFLES = {8: (40, 60, 84), 9: (24, 52, 40)}
"""Most shuffles in the tile loop of strips where columns lie in fragments, by capability and by
kind of sums: more, and a reshape moves data between lanes."""

STRIP_LOCAL = 4
"""Most local memory accesses there: whatever the size of the batch, next to nothing is spilled."""

STRIP_STACK_OF_BLACKWELL = 160
"""Stack of strips on 10.x, whose loop over odd batch sizes still spills a few registers."""


def limits_of(kernel: str, arch: int, bound: dict[str, Any]) -> Limits:
    """What a kernel may use, given the values of its arguments."""
    limits = Limits()
    if kernel in ("strip_kernel", "resum_kernel", "screen_kernel") and arch == 90:
        limits = replace(limits, shared=SHARED_OF_HOPPER)
    if kernel == "strip_kernel" and arch // 10 == 10:
        limits = replace(limits, stack=STRIP_STACK_OF_BLACKWELL)
    if kernel == "strip_kernel" and arch // 10 in SHUFFLES:
        limits = replace(limits, shuffles=SHUFFLES[arch // 10][bound["KIND"]], local=STRIP_LOCAL)
    return limits
