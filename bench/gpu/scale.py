"""How large a session is: the real one, and the dry run that proves it on a processor."""

from __future__ import annotations

from dataclasses import dataclass

from bench.gpu.kinds import BFLOAT16, HIGH, HIGHEST, KINDS, Kind
from goal_kernels import builtin_objectives

Size = tuple[int, int]
"""B and D."""


@dataclass(frozen=True)
class Scale:
    """Sizes and effort.

    workers: most processes that check at the same time; they compile more than they compute.
    contest_seconds: of the timed rounds of one contest, if they are long enough for the fewest.
    main, small: sizes of training steps, in the order in which they matter; the first of main are
    where variants of the question are asked. other_kinds: those beside bfloat16, fewer sizes each.
    rivals: sizes of torch.compile (if compiling) and pytorch-metric-learning. memory: sizes of
    steps whose peak memory is measured.
    exact: shapes [N, M, D] of exact checks for the first of the kinds; exact_elsewhere: how many of
    them for the others, since every shape compiles anew. judged, sampled: sizes and kinds of these
    checks. stable: sizes of reruns and CUDA graphs. checked: the size where objectives, ids and
    normalised rows are checked. objectives: names of those. ranked_images: of a made-up test set;
    ranked: images and width of those whose ranks are timed. copied: bytes of the copy.
    """

    device: str
    workers: int
    contest_seconds: float
    main: tuple[Size, ...]
    small: tuple[Size, ...]
    other_kinds: tuple[tuple[Kind, tuple[Size, ...]], ...]
    rivals: tuple[Size, ...]
    compiling: bool
    memory: tuple[Size, ...]
    exact: tuple[tuple[int, int, int], ...]
    exact_elsewhere: int
    kinds: tuple[Kind, ...]
    judged: tuple[tuple[Size, tuple[Kind, ...]], ...]
    sampled: tuple[tuple[Size, tuple[Kind, ...]], ...]
    stable: tuple[Size, ...]
    checked: Size
    objectives: tuple[str, ...]
    ranked_images: int
    ranked: tuple[Size, ...]
    reruns: int
    copied: int

    @property
    def products(self) -> tuple[Size, ...]:
        """Sizes of the product alone: every size at which something is compared with it."""
        return tuple(dict.fromkeys((*self.main, *self.small)))


REAL = Scale(
    device="cuda",
    workers=6,
    contest_seconds=1.5,
    main=(
        *((4096, 512), (16384, 512), (65536, 512)),
        *((4096, 1024), (16384, 1024), (65536, 1024)),
    ),
    small=((1024, 512), (128, 512), (2048, 512), (512, 512), (1024, 1024), (128, 1024)),
    other_kinds=(
        (HIGH, ((4096, 512), (16384, 512), (1024, 512))),
        (HIGHEST, ((4096, 512), (1024, 512))),
    ),
    rivals=((1024, 512), (4096, 512), (16384, 512)),
    compiling=True,
    memory=((4096, 1024), (16384, 1024)),
    exact=(
        *((257, 257, 64), (1000, 129, 512), (2048, 2048, 512)),
        *((1, 2, 16), (2, 2, 8), (300, 5000, 1024), (1025, 1025, 100)),
    ),
    exact_elsewhere=2,
    kinds=KINDS,
    judged=(((2048, 512), KINDS), ((1000, 1024), (BFLOAT16, HIGH)), ((8192, 512), (BFLOAT16,))),
    sampled=(
        ((65536, 512), (BFLOAT16,)),
        ((16384, 1024), (BFLOAT16, HIGH)),
        ((65536, 1024), (BFLOAT16,)),
    ),
    stable=((2040, 512), (4096, 512)),
    checked=(777, 320),
    objectives=tuple(objective.name for objective in builtin_objectives()),
    ranked_images=1000,
    ranked=((5000, 1024), (25000, 512)),
    reruns=20,
    copied=1 << 30,
)

DRY = Scale(
    device="cpu",
    workers=2,
    contest_seconds=0.0,
    main=((6, 16),),
    small=((4, 16),),
    other_kinds=((HIGHEST, ((4, 16),)),),
    rivals=((4, 16),),
    compiling=False,
    memory=((4, 16),),
    exact=((19, 26, 24), (1, 2, 8)),
    exact_elsewhere=1,
    kinds=(BFLOAT16, HIGHEST),
    judged=(((6, 16), (BFLOAT16, HIGHEST)),),
    sampled=(((40, 16), (BFLOAT16,)),),
    stable=((6, 16),),
    checked=(8, 16),
    objectives=("circle/linear_ms",),
    ranked_images=8,
    ranked=((8, 16),),
    reruns=2,
    copied=1 << 20,
)
