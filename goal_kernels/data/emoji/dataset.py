"""Writing the dataset: pictures, lists of texts, licences."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from goal_kernels.data.emoji.packages import (
    KEYWORDS,
    NAMES,
    Archive,
    get_packages,
    needed_packages,
)
from goal_kernels.data.emoji.things import IconSet, Thing, find_drawings, read_things
from goal_kernels.data.files import new_folder, write_text
from goal_kernels.data.progress import Progress, no_progress
from goal_kernels.data.sources.table import place_of
from goal_kernels.extras import require

SPLITS = ("train", "dev", "test")
MIN_SIZE, MAX_SIZE = 16, 1024
LICENCES = "LICENSES.txt"

_LICENCES = """\
Drawings of things by several vendors, with names and keywords.

The texts are names and keywords that people gave to emoji. They are not captions: they name a
thing and do not describe its picture. Results on them say nothing about datasets of photographs
with captions.

What is changed: the drawings, SVG in the packages, are rasterised to {size} x {size} pixels on
white; keywords are joined into lists. Who passes pictures on has to keep to each set's licence.
"""


class Counts(NamedTuple):
    """What a split holds."""

    things: int
    images: int
    texts: int

    @classmethod
    def of(cls, entries: Sequence[Mapping[str, Any]]) -> Counts:
        """Those of the entries of a list."""
        texts = sum(len(entry["caption"]) for entry in entries)
        return cls(len({entry["group"] for entry in entries}), len(entries), texts)


def make_emoji(
    folder: Path,
    *,
    packages: Path | None = None,
    size: int = 128,
    share_alike: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Counts]:
    """Write the dataset as lists with image files: ``{split}.json``, ``images/{vendor}/*.png``.

    Args:
        folder: where to; it may not exist, and appears whole or not at all.
        packages: folder with the packages' archives; None fetches them.
        size: side of the pictures in pixels, 16 to 1024.
        share_alike: take in drawings whose licence asks that derived works have it too.
    Returns: what each split holds.
    Raises: ValueError, FileExistsError, FileNotFoundError, MissingExtraError.
    """
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise ValueError(f"size: expected {MIN_SIZE} to {MAX_SIZE} pixels, got {size}")
    if folder.exists() or folder.is_symlink():
        raise FileExistsError(f"{folder}: expected a new folder, found something; name another one")
    rasterise = rasteriser()
    archives = get_packages(needed_packages(share_alike), packages, progress)
    sets = [IconSet(archive) for archive in archives.values() if archive.package.draws]
    things = read_things(archives[NAMES.name], archives[KEYWORDS.name])
    drawings = find_drawings(things, sets)
    chosen = [_choose(*pair) for pair in zip(things, drawings, strict=True)]
    total = sum(map(len, chosen))
    lists: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    done = 0
    with new_folder(folder) as made:
        for vendor in sets:
            (made / "images" / vendor.name).mkdir(parents=True)
        for thing, svgs in zip(things, chosen, strict=True):
            for vendor_name, svg in svgs.items():
                name = f"images/{vendor_name}/{thing.code}.png"
                (made / name).write_bytes(rasterise(svg, size))
                lists[thing.split].append(
                    {"image": name, "caption": thing.texts, "image_id": done, "group": thing.number}
                )
                done += 1
                progress("pictures", done, total)
        for split, entries in lists.items():
            lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
            write_text(made / f"{split}.json", f"[\n{lines}\n]\n")
        write_text(made / LICENCES, licences(list(archives.values()), size))
    return {split: Counts.of(entries) for split, entries in lists.items()}


def rasteriser() -> Callable[[str, int], bytes]:
    """What makes a PNG, RGB with a side of so many pixels, of a square SVG on white."""
    require("data emoji", "emoji", "resvg_py", "PIL")
    import resvg_py
    from PIL import Image

    def rasterise(svg: str, size: int) -> bytes:
        drawn = resvg_py.svg_to_bytes(
            svg_string=svg, width=size, height=size, background="#ffffff", skip_system_fonts=True
        )
        png = io.BytesIO()
        Image.open(io.BytesIO(drawn)).convert("RGB").save(png, "PNG")
        return png.getvalue()

    return rasterise


def licences(archives: Sequence[Archive], size: int) -> str:
    """Every package with its version, authors and licence, as the package itself states them."""
    parts = [_LICENCES.format(size=size)]
    for archive in archives:
        stated = archive.json("package.json")
        lines = [f"{stated['name']} {stated['version']}"]
        if archive.package.draws:
            info = archive.json("info.json")
            author, licence = info["author"], info["license"]
            lines += [
                f"  drawings: {info['name']}, by {author['name']}, {author['url']}",
                f"  licence: {licence['title']} ({licence['spdx']}), {licence['url']}",
            ]
        else:
            lines += [
                f"  names and keywords: by {stated['author']}",
                f"  licence: {stated['license']}",
                "",
                archive.text("LICENSE").strip(),
            ]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _choose(thing: Thing, drawings: dict[str, str]) -> dict[str, str]:
    """All drawings for training, else one, so that a text has one right image.

    Which one goes by a hash of the thing and the vendor, so that evaluation has them all.
    """
    if thing.split == "train" or not drawings:
        return drawings
    vendor = min(drawings, key=lambda name: place_of(f"{thing.code} {name}", 0))
    return {vendor: drawings[vendor]}
