"""Products of the Hopper tile kernel, written to memory and compared number by number.

A hardest negative can hide an error that moves rows and columns together. Here S[r, c] is
2048 r + c, so a number tells which row met which column; and what makes it up is moved through the
width, so that every place in every slice of it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from goal_kernels import native

DIGITS = 4
"""Elements of a row that tell its number."""
HALVES = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Where in split rows, [high | low], the digits of images and texts lie. Low meets low nowhere."""
PADDING = 8


class Tiles(NamedTuple):
    """A product of `rows` images and `columns` texts, at most 4096 and 2048.

    members: thread blocks that share their images.
    """

    rows: int
    columns: int
    width: int
    split: bool = False
    members: int = 1

    def __str__(self) -> str:
        name = f"{self.rows}x{self.columns}x{self.width}{' split' * self.split}"
        return f"{name}{' shared' * (self.members > 1)}"


CASES = (
    Tiles(128, 128, 64),  # one product of slices
    Tiles(129, 257, 72),  # one more of everything: zeros beyond the ends
    Tiles(256, 128, 512),  # more slices than the ring has slots
    Tiles(129, 257, 1024),  # slices of texts that do not stay
    Tiles(129, 257, 72, split=True),
    Tiles(129, 257, 1024, split=True),
    Tiles(2300, 1200, 64),  # passes of several tiles
    Tiles(2300, 1200, 1024),
    Tiles(128, 256, 64, members=2),  # the same of two thread blocks that share their images
    Tiles(129, 257, 72, members=2),  # the last block has no partner
    Tiles(129, 257, 1024, members=2),
    Tiles(129, 257, 1024, split=True, members=2),
    Tiles(2300, 1200, 64, members=2),
    Tiles(2300, 1200, 1024, members=2),
)
"""The smallest first."""


def padded(matrix: Tensor) -> Tensor:
    """The same rows, with NaN between them that no copy may bring along."""
    wider = matrix.new_full((len(matrix), matrix.shape[1] + PADDING), float("nan"))
    return wider[:, : matrix.shape[1]].copy_(matrix)


def dump_arguments(
    image: Tensor, text: Tensor, scores: Tensor, split: bool, programs: int, members: int
) -> Any:
    """The structure `Dump` of the native extension; rows are multiples of 16 bytes apart."""
    arguments = native.load().cuda.Dump()
    arguments.image = (image.data_ptr(), len(image), image.stride(0))
    arguments.text = (text.data_ptr(), len(text), text.stride(0))
    arguments.operand = str(image.dtype).removeprefix("torch.")
    arguments.width, arguments.split = image.shape[1] // (1 + split), split
    arguments.programs, arguments.members = programs, members
    arguments.scores = scores.data_ptr()
    return arguments


def dumped(
    image: Tensor, text: Tensor, split: bool = False, programs: int = 0, members: int = 0
) -> Tensor:
    """S [N, M] float32, by the kernel on the tensors' device; emulated on the CPU.

    programs, members: clusters, and thread blocks of one; 0: as the kernel chooses.
    """
    scores = torch.full((len(image), len(text)), float("nan"), device=image.device)
    arguments = dump_arguments(image, text, scores, split, programs, members)
    if image.is_cuda:
        native.load().cuda.dump(arguments, torch.cuda.current_stream().cuda_stream)
    else:
        native.load().cuda.dump_emulated(arguments)
    return scores


def digits(tiles: Tiles) -> tuple[Tensor, Tensor]:
    """[N, 4] and [M, 4] in bfloat16, whose products are 2048 r + c, every part exact in 16 bits."""
    row, column = torch.arange(tiles.rows), torch.arange(tiles.columns)
    one = [torch.ones_like(row), torch.ones_like(row)]
    image = torch.stack([row // 256 * 16, row % 256, *one], 1)
    scale = [torch.full_like(column, 2**15), torch.full_like(column, 2**11)]
    text = torch.stack([*scale, column // 256 * 256, column % 256], 1)
    return image.bfloat16(), text.bfloat16()


def expected(tiles: Tiles) -> Tensor:
    """2048 r + c, in float32."""
    return 2048.0 * torch.arange(tiles.rows)[:, None] + torch.arange(tiles.columns)


def placed(digit: Tensor, tiles: Tiles, offset: int, half: int) -> Tensor:
    """Rows of zeros but for the digits, from `offset` of a half on; they wrap at its end."""
    rows = digit.new_zeros(len(digit), tiles.width * (1 + tiles.split))
    places = (offset + torch.arange(DIGITS, device=digit.device)) % tiles.width
    rows[:, half * tiles.width + places] = digit
    return padded(rows)


def difference(found: Tensor, wanted: Tensor) -> str:
    """Where two matrices differ first, and how often; "" where they do not."""
    wrong = (found != wanted).nonzero()
    if not len(wrong):
        return ""
    row, column = wrong[0].tolist()
    number = f"S[{row}, {column}] is {found[row, column]}, not {wanted[row, column]}"
    return f"{number}; {len(wrong)} of {wanted.numel()} are wrong"


def faults(tiles: Tiles, device: str, offsets: Iterable[int] | None = None) -> Iterator[str]:
    """What is wrong, for every place of the digits, or for the given ones."""
    image, text = (x.to(device) for x in digits(tiles))
    right = expected(tiles).to(device)
    for offset in range(tiles.width) if offsets is None else offsets:
        for image_half, text_half in HALVES if tiles.split else HALVES[:1]:
            rows = placed(image, tiles, offset, image_half)
            columns = placed(text, tiles, offset, text_half)
            wanted = right.new_zeros(()).expand_as(right) if image_half & text_half else right
            scores = dumped(rows, columns, tiles.split, members=tiles.members)
            if found := difference(scores, wanted):
                yield f"digits from {offset} on, halves {image_half}, {text_half}: {found}"
