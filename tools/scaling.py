"""What sharing a search out costs a process: operations and bytes counted, time modelled.

`python -m tools.scaling` prints the tables of docs/scaling.md. A test compares the counts with
those of a run of a few processes; the times are arithmetic on assumed speeds, not measurements.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from goal_kernels.terminal import markdown_table

PRODUCTS = 400e12
"""Operations a second of the search: 0.4 of the peak of an H100 SXM in bfloat16, 989e12."""

LINK_OF_MACHINE, LINK = 450e9, 50e9
"""Bytes a second that a process sends: NVLink among 8 GPUs, beyond them one 400 Gbit/s adapter."""

MACHINE = 8
"""GPUs that NVLink joins."""

LATENCY = 10e-6
"""Seconds of a message; a collective of W processes takes log2(W) one after the other."""

MEMORY = 3e12
"""Bytes a second of the memory of a GPU: 0.9 of an H100's 3.35e12."""


class Step(NamedTuple):
    """The loss of one step of square batches, the same number of pairs in every process.

    pairs: B, of all processes. width: D. processes: W. element: bytes of an embedding's element.
    relative: with relative sums. slots: k of other negatives than the hardest, 0 for the hardest.
    """

    pairs: int
    width: int
    processes: int
    element: int = 2
    relative: bool = False
    slots: int = 0

    @property
    def part(self) -> int:
        """Pairs of a process."""
        return -(-self.pairs // self.processes)

    @property
    def merged(self) -> bool:
        """Whether one search serves both directions."""
        return not self.relative and not self.slots

    @property
    def operations(self) -> int:
        """Multiplications and additions of the products of one process."""
        # Sums start at the smallest positive, whose pair every process adds to its part.
        product = 2 * (self.part + self.relative) * self.pairs * self.width
        searches = 1 if self.merged else 2
        passes = 2 if self.slots and self.relative else 1
        return searches * passes * product

    @property
    def embedding_bytes(self) -> int:
        """Sent by one process, as much is received."""
        return (self.processes - 1) * self.part * 2 * self.width * self.element

    @property
    def vector_bytes(self) -> int:
        """Sent by one process in float64: positive, and of both directions value and index of each
        negative, its relative sum and their number, and how many candidates were left out."""
        side = max(self.slots, 1) * (4 if self.relative else 2) + (self.slots > 0)
        numbers = 1 + 2 * side + (2 if self.merged else 0)
        return (self.processes - 1) * self.part * numbers * 8

    @property
    def collectives(self) -> int:
        """Messages to all others."""
        return 3 if self.merged else 2

    @property
    def memory_bytes(self) -> int:
        """Embeddings of all pairs, their gradient as the loss gives it and side by side."""
        return 3 * 2 * self.pairs * self.width * self.element

    @property
    def product_seconds(self) -> float:
        """Of the search."""
        return self.operations / PRODUCTS

    @property
    def message_seconds(self) -> float:
        """Of all collectives."""
        link = LINK_OF_MACHINE if self.processes <= MACHINE else LINK
        waits = self.collectives * math.log2(self.processes) * LATENCY
        return (self.embedding_bytes + self.vector_bytes) / link + waits

    @property
    def gradient_seconds(self) -> float:
        """Three rows read and one written for each gradient row, then put side by side."""
        return (2 * 4 + 2 * 2) * self.pairs * self.width * self.element / MEMORY


def _two_digits(amount: float) -> str:
    return f"{float(f'{amount:.2g}'):,.10g}"


PROCESSES = (8, 32, 128, 512, 1024)
WIDTH = 512


def table(steps: list[Step]) -> str:
    """Markdown, a row for each step."""
    heads = ["GPUs", "B", "TFLOP", "unshared", "MB sent", "GB held", "products ms", "unshared"]
    heads += ["messages ms", "gradients ms"]
    rows = []
    for step in steps:
        alone = 2 * step.pairs**2 * step.width
        amounts = (
            step.operations / 1e12,
            alone / 1e12,
            (step.embedding_bytes + step.vector_bytes) / 1e6,
            step.memory_bytes / 1e9,
            step.product_seconds * 1e3,
            alone / PRODUCTS * 1e3,
            step.message_seconds * 1e3,
            step.gradient_seconds * 1e3,
        )
        numbers = (f"{step.processes:,}", f"{step.pairs:,}", *map(_two_digits, amounts))
        rows.append(numbers)
    return markdown_table(heads, rows, 0)


def tables() -> dict[str, str]:
    """The tables of docs/scaling.md, by what is held fixed."""
    return {
        "65,536 pairs": table([Step(65_536, WIDTH, w) for w in PROCESSES]),
        "512 pairs a GPU": table([Step(512 * w, WIDTH, w) for w in PROCESSES]),
        "512 pairs a GPU, relative sums": table(
            [Step(512 * w, WIDTH, w, relative=True) for w in PROCESSES]
        ),
    }


if __name__ == "__main__":
    for title, lines in tables().items():
        print(f"{title}\n\n{lines}\n")
