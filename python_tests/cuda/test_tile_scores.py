"""Every number of products of tiles, and faults in what the kernel tells the hardware."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from cuda_truth import exact_rows
from protocol_steps import ROLES, SLOT
from torch import Tensor

from goal_kernels import native
from tools.gpu_session.tile_scores import (
    CASES,
    Tiles,
    difference,
    dump_arguments,
    dumped,
    faults,
    padded,
)


@pytest.mark.parametrize("tiles", CASES, ids=str)
def test_every_product_goes_where_it_belongs(mining_device: str, tiles: Tiles) -> None:
    """Emulated, digits lie everywhere in small products, at ends and across slices in others."""
    few = mining_device == "cpu" and tiles not in CASES[:2]
    places = (0, 61, tiles.width // 2 - 1, tiles.width - 2) if few else None
    assert list(faults(tiles, mining_device, places)) == []


def random_rows(tiles: Tiles, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor]:
    """Rows without zeros for whole k slices, whose products and sums are exact."""
    halves = 1 + tiles.split
    sides = enumerate((tiles.rows, tiles.columns))
    image, text = (exact_rows(n, halves * tiles.width, dtype, seed) for seed, n in sides)
    return padded(image), padded(text)


def wanted(image: Tensor, text: Tensor, split: bool) -> Tensor:
    """The product in float64; of split rows without low times low."""
    images, texts = (x.double().chunk(1 + split, 1) for x in (image, text))
    products = images[0] @ texts[0].T
    if split:
        products += images[0] @ texts[1].T + images[1] @ texts[0].T
    return products.float()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("members", [1, 2])
def test_sums_are_exact(mining_device: str, dtype: torch.dtype, split: bool, members: int) -> None:
    image, text = random_rows(Tiles(270, 140, 584, split), dtype)
    for programs in (1, 3, 0):
        operands = image.to(mining_device), text.to(mining_device)
        found = dumped(*operands, split, programs, members)
        assert difference(found.cpu(), wanted(image, text, split)) == ""


# --- Faults ---------------------------------------------------------------------------------------
#
# What a cluster does is recorded, changed as a mistake in the code would change it, and run.

TILES = Tiles(270, 140, 328, split=True)
"""Two passes of three tiles, of more slices than the ring has slots; not all texts stay."""
SHARED = Tiles(270, 300, 328, split=True, members=2)
"""The same of two thread blocks; one of them has no block of texts in the second pass."""
SEEDS = range(3)
"""Orders in which things happen; a mistake in who waits for whom may pass in one of them."""
BARRIER = 8
"""Bytes."""
SETUP, PRODUCER, FIRST, SECOND = range(ROLES)
IMAGES, TEXTS = range(2)

Programs = list[list[Any]]
"""Setup, producer and the two consumers of each member: instructions, see emulation/programs.h."""
Change = Callable[[Programs, list[Any]], None]
"""Changes programs and tensor maps in place."""


def run(change: Change | None, seed: int, tiles: Tiles = TILES) -> str:
    """What is wrong with the scores, or the error; "" for nothing."""
    kernels = native.load().cuda
    image, text = random_rows(tiles)
    scores = torch.full((tiles.rows, tiles.columns), float("nan"))
    arguments = dump_arguments(image, text, scores, tiles.split, 1, tiles.members)
    tiling = 2 * (-(-tiles.rows // 128), -(-tiles.columns // 128))
    slices = -(-tiles.width // 64)
    programs = kernels.record(tiling, slices, tiles.split, members=tiles.members)
    maps = kernels.tensor_maps(arguments)
    if change is not None:
        change(programs, maps)
    try:
        kernels.run_dump(arguments, programs, maps, seed)
    except RuntimeError as error:
        return str(error)
    return difference(scores, wanted(image, text, tiles.split))


def every(programs: Programs, kind: str) -> Iterator[Any]:
    return (i for program in programs for i in program if i.kind == kind)


def instructions(kind: str, field: str, change: Callable[[Any], Any], role: int | None = None):
    """Change a field of every instruction of a kind, of one role or of all."""

    def apply(programs: Programs, maps: list[Any]) -> None:
        for instruction in every(programs if role is None else [programs[role]], kind):
            setattr(instruction, field, change(instruction))

    return apply


def sides(field: str, change: Callable[[Any], Any], which: int = IMAGES):
    """Change a field of a tensor map."""

    def apply(programs: Programs, maps: list[Any]) -> None:
        setattr(maps[which], field, change(getattr(maps[which], field)))

    return apply


def k_advance(programs: Programs, maps: list[Any]) -> None:
    """Texts go on by 64 bytes instead of 32."""
    for program in programs:
        products = [i for i in program if i.kind == "product"]
        for place, product in enumerate(products):
            product.text += place % 8 // 2 * 2


def without(kind: str) -> Change:
    def apply(programs: Programs, maps: list[Any]) -> None:
        for role, program in enumerate(programs):
            programs[role] = [i for i in program if i.kind != kind]

    return apply


def of_map(which: int, value: Callable[[Any], Any], field: str) -> Callable[[Any], Any]:
    """`value` of copies by one map, the field as it is of the others."""
    return lambda i: value(i) if i.map == which else getattr(i, field)


def at(element: int = 0, half: int = 0, row: int = 0) -> Callable[[Any], tuple[int, int, int]]:
    """Coordinates, moved."""
    return lambda i: (i.at[0] + element, i.at[1] + half, i.at[2] + row)


FAULTS: dict[str, Change] = {
    "coordinates swapped": instructions("copy", "at", lambda i: i.at[::-1]),
    "coordinate in bytes": instructions("copy", "at", lambda i: (2 * i.at[0], *i.at[1:])),
    "one element on": instructions("copy", "at", of_map(IMAGES, at(element=1), "at")),
    "one slice on": instructions("copy", "at", of_map(TEXTS, at(element=64), "at")),
    "one tile on": instructions("copy", "at", of_map(IMAGES, at(row=128), "at")),
    "one block back": instructions("copy", "at", of_map(TEXTS, at(row=-128), "at")),
    "no low half": instructions("copy", "at", lambda i: (i.at[0], 0, i.at[2])),
    "maps swapped": instructions("copy", "map", lambda i: 1 - i.map),
    "copied to the next slot": instructions("copy", "slot", lambda i: i.slot + SLOT),
    "texts copied to the next slot": instructions(
        "copy", "slot", of_map(TEXTS, lambda i: i.slot + SLOT, "slot")
    ),
    "copied 128 bytes on": instructions("copy", "slot", lambda i: i.slot + 128),
    "copied 16 bytes on": instructions("copy", "slot", lambda i: i.slot + 16),
    "half of the bytes expected": instructions("expect", "number", lambda i: i.number // 2),
    "elements expected as bytes": instructions("expect", "number", lambda i: i.number - 2),
    "two boxes expected": instructions("expect", "number", lambda i: 2 * i.number),
    "counted at the next barrier": instructions("copy", "barrier", lambda i: i.barrier + BARRIER),
    "next barrier awaited by a consumer": instructions(
        "wait", "barrier", lambda i: i.barrier + BARRIER, FIRST
    ),
    "next barrier awaited by the producer": instructions(
        "wait", "barrier", lambda i: i.barrier + BARRIER, PRODUCER
    ),
    "next barrier released": instructions("arrive", "barrier", lambda i: i.barrier + BARRIER),
    "barrier addressed in words": instructions("wait", "barrier", lambda i: i.barrier + 4, SECOND),
    "other parity of a consumer": instructions("wait", "number", lambda i: 1 - i.number, SECOND),
    "other parity of the producer": instructions(
        "wait", "number", lambda i: 1 - i.number, PRODUCER
    ),
    "one arrival a phase": instructions("initialize", "number", lambda i: 1),
    "four arrivals a phase": instructions("initialize", "number", lambda i: 4),
    "one warp releases": instructions("arrive", "number", lambda i: 1),
    "all lanes release": instructions("arrive", "number", lambda i: 32 * i.number),
    "k advance": k_advance,
    "images 16 bytes on": instructions("product", "image", lambda i: i.image + 1),
    "both 16 bytes on": lambda programs, maps: [
        instructions("product", name, lambda i, name=name: getattr(i, name) + 1)(programs, maps)
        for name in ("image", "text")
    ],
    "next slot of images read": instructions("product", "image", lambda i: i.image + (SLOT >> 4)),
    "next slot of texts read": instructions("product", "text", lambda i: i.text + (SLOT >> 4)),
    "upper rows twice": instructions("product", "image", lambda i: i.image - i.first // 64 * 512),
    "lower rows 32 on": instructions("product", "image", lambda i: i.image - i.first // 64 * 256),
    "start in bytes": instructions(
        "product", "text", lambda i: i.text & ~0x3FFF | i.text << 4 & 0x3FFF
    ),
    "stride of 4 rows": instructions("product", "image", lambda i: i.image ^ (96 << 32)),
    "stride in bytes": instructions("product", "text", lambda i: i.text ^ ((64 ^ 1024) << 32)),
    "no swizzle read": instructions("product", "image", lambda i: i.image & ~(3 << 62)),
    "64-byte swizzle read": instructions("product", "text", lambda i: i.text ^ (3 << 62)),
    "32-byte swizzle read": instructions("product", "text", lambda i: i.text | (3 << 62)),
    "base offset": instructions("product", "image", lambda i: i.image | (1 << 49)),
    "swizzle of newer hardware": instructions("product", "image", lambda i: i.image | (1 << 61)),
    "operands swapped": instructions("product", "image", lambda i: i.text),
    "halves of registers swapped": instructions("product", "first", lambda i: 64 - i.first),
    "registers of both overlap": instructions("product", "first", lambda i: i.first // 2),
    "sums never begin": instructions("product", "add", lambda i: True),
    "sums begin with every product": instructions("product", "add", lambda i: False),
    "one more group under way": instructions("retire", "number", lambda i: i.number + 1),
    "no fence": without("fence"),
    "no commit": without("commit"),
    "no wait for products": without("retire"),
    "no wait": without("wait"),
    "no swizzle written": sides("swizzle", lambda s: 0),
    "64-byte swizzle written": sides("swizzle", lambda s: 2, TEXTS),
    "stride in elements": sides("strides", lambda s: (s[0], s[1] // 2)),
    "low half 8 elements early": sides("strides", lambda s: (s[0] - 16, s[1]), TEXTS),
    "box of 64 rows": sides("box", lambda b: [b[0], b[1], 64]),
    "box of 32 elements": sides("box", lambda b: [32, *b[1:]], TEXTS),
    "box sides swapped": sides("box", lambda b: b[::-1]),
    "no low half in the map": sides("extents", lambda e: [e[0], 1, e[2]]),
    "one row less": sides("extents", lambda e: [*e[:2], e[2] - 1]),
    "eight elements less": sides("extents", lambda e: [e[0] - 8, *e[1:]], TEXTS),
    "eight elements more": sides("extents", lambda e: [e[0] + 8, *e[1:]]),
}


def of_members(kind: str, change: Callable[[Any, int], None]) -> Change:
    """Change the instructions of a kind, knowing whose they are."""

    def apply(programs: Programs, maps: list[Any]) -> None:
        for number, program in enumerate(programs):
            for i in every([program], kind):
                change(i, number // ROLES)

    return apply


def at_home_alone(kind: str) -> Change:
    """Leave out what happens in the other member."""

    def apply(programs: Programs, maps: list[Any]) -> None:
        for number, program in enumerate(programs):
            away = 1 - number // ROLES
            programs[number] = [i for i in program if (i.kind, i.member) != (kind, away)]

    return apply


def move_to(instruction: Any, member: int) -> None:
    instruction.member = member


def text_to_the_other(copy: Any, member: int) -> None:
    copy.member = 1 - member if copy.map == TEXTS else copy.member


def first_part(copy: Any, member: int) -> None:
    """What each member loads is the first part."""
    if copy.map == IMAGES:
        copy.at = (*copy.at[:2], copy.at[2] - 64 * member)


def first_place(copy: Any, member: int) -> None:
    if copy.map == IMAGES:
        copy.slot -= SLOT // 2 * member


def arrivals_of_one(programs: Programs, maps: list[Any]) -> None:
    """Slots of the ring, whose barriers come first, full and empty by turns."""
    for setup in programs[SETUP::ROLES]:
        for empty in setup[1:12:2]:
            empty.number = 4


FAULTS_OF_SHARING: dict[str, Change] = {
    "released at home alone": at_home_alone("arrive"),
    "released at home twice": of_members("arrive", move_to),
    "copied at home alone": at_home_alone("copy"),
    "copied at home twice": of_members("copy", move_to),
    "texts copied to the other": of_members("copy", text_to_the_other),
    "the first part loaded twice": of_members("copy", first_part),
    "both parts to one place": of_members("copy", first_place),
    "arrivals of one member": arrivals_of_one,
    "bytes of one part expected": instructions("expect", "number", lambda i: i.number // 2),
    "box of a whole slice": sides("box", lambda b: [*b[:2], 128]),
    "box of a part of the texts": sides("box", lambda b: [*b[:2], 64], TEXTS),
}


@pytest.mark.parametrize("tiles", [TILES, SHARED], ids=str)
@pytest.mark.parametrize("seed", SEEDS)
def test_any_order_gives_the_scores(emulation, seed: int, tiles: Tiles) -> None:
    assert run(None, seed, tiles) == ""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(emulation, fault: str) -> None:
    assert any(run(FAULTS[fault], seed) for seed in SEEDS)


@pytest.mark.parametrize("fault", FAULTS_OF_SHARING)
def test_a_planted_fault_of_sharing_is_seen(emulation, fault: str) -> None:
    assert any(run(FAULTS_OF_SHARING[fault], seed, SHARED) for seed in SEEDS)
