"""``dataset.json``: what a folder was generated from and which files make it complete."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from goal_kernels.data.files import write_text
from goal_kernels.data.goalworld.config import SPLITS, GoalWorldConfig

# Raise it whenever equal parameters give other files than before.
GENERATOR_VERSION = 1
MANIFEST = "dataset.json"
PICTURES = "images"
_SPLIT_FILES = ("ims.npy", "caps.txt", "ids.txt", "truth.npz", "scenes.jsonl")
_SHARED_FILES = ("vocab.json", "id_mapping.json", "oracle.json")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Manifest:
    """The content of ``dataset.json``.

    Attributes:
        preset: the preset that the parameters started from.
        seed: of the whole data set.
        parameters: every field of ``GoalWorldConfig``.
        counts: for each split ``images``, ``captions`` and ``true_pairs``.
        vocabulary: number of words, the four special ones included.
        files: for each file, relative to the folder, ``bytes`` and ``sha256``; the pictures of a
            split are one entry, with ``files`` and a hash over their hashes in order of name.
    """

    preset: str
    seed: int
    parameters: dict[str, Any]
    counts: dict[str, dict[str, int]]
    vocabulary: int
    files: dict[str, dict[str, Any]]

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read the manifest of a folder written by this version of the generator.

        Raises ``ValueError`` when it is of another generator or version.
        """
        record = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        name, version = record.pop("name", None), record.pop("generator", None)
        if (name, version) != ("goalworld", GENERATOR_VERSION):
            raise ValueError(
                f"{folder / MANIFEST}: expected goalworld of generator version "
                f"{GENERATOR_VERSION}, found {name} of version {version}"
            )
        return cls(**record)

    def save(self, folder: Path) -> None:
        """Write ``dataset.json``, in full or not at all."""
        record = {"name": "goalworld", "generator": GENERATOR_VERSION, **asdict(self)}
        write_text(folder / MANIFEST, json.dumps(record, indent=2) + "\n")

    def difference(self, config: GoalWorldConfig, seed: int) -> str | None:
        """In words, how this data set differs from the one asked for; None when it does not."""
        wanted = {**asdict(config), "seed": seed}
        stored = {**self.parameters, "seed": self.seed}
        changed = [
            f"{name} {stored.get(name)!r} instead of {value!r}"
            for name, value in wanted.items()
            if stored.get(name) != value
        ]
        return ", ".join(changed) or None

    def damage(self, folder: Path) -> str | None:
        """In words, the first file that is missing or of another size; None when all is there."""
        for name, entry in self.files.items():
            path = folder / name
            if not path.exists():
                return f"{name} is missing"
            size = _bytes_in(path)
            if size != entry["bytes"]:
                return f"{name} has {size} bytes instead of {entry['bytes']}"
        return None


def file_table(folder: Path) -> dict[str, dict[str, Any]]:
    """The ``files`` of a manifest for all data files that are in ``folder``."""
    names = [f"{split}_{file}" for split in SPLITS for file in _SPLIT_FILES]
    table: dict[str, dict[str, Any]] = {}
    for name in (*names, *_SHARED_FILES):
        path = folder / name
        table[name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    for split in SPLITS:
        pictures = folder / PICTURES / split
        if pictures.is_dir():
            table[f"{PICTURES}/{split}"] = _picture_entry(pictures)
    return table


def foreign_entries(folder: Path) -> list[str]:
    """Names in ``folder`` that this generator never writes, sorted."""
    own = {f"{split}_{file}" for split in SPLITS for file in _SPLIT_FILES}
    own |= {MANIFEST, PICTURES, *_SHARED_FILES}
    return sorted(path.name for path in folder.iterdir() if path.name not in own)


def _picture_entry(folder: Path) -> dict[str, Any]:
    """Number, bytes and hash of hashes of the files of a folder."""
    paths = sorted(folder.iterdir())
    digest = hashlib.sha256("".join(map(_sha256, paths)).encode())
    return {"files": len(paths), "bytes": _bytes_in(folder), "sha256": digest.hexdigest()}


def _bytes_in(path: Path) -> int:
    """The size of a file, or of all files of a folder."""
    if path.is_dir():
        return sum(entry.stat().st_size for entry in path.iterdir())
    return path.stat().st_size


def _sha256(path: Path) -> str:
    """The hash of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
