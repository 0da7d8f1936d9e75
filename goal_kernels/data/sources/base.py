"""What every source of data answers, whatever its files look like."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar

from goal_kernels.data.files import mistaken_for, read_head, reading
from goal_kernels.data.split import Split

COMMON_NAMES = ("train", "restval", "dev", "test", "testall")
COLUMNS = ("image", "caption", "split", "image_id", "group")
DEV_NAMES = ("dev", "val", "valid", "validation")
_NAME = re.compile(r"[^/\\\0-\x08\x0e-\x1f\ud800-\udfff]+")
HEADER_BYTES = 1 << 16


@dataclass(frozen=True)
class SourceOptions:
    """How a source is to be read; what a format does not take has to stay at its default.

    Attributes:
        image_root: folder that image names are relative to; found beside the file when None.
        restval: add the images of COCO's split ``restval`` to ``train``, as VSE++ (RC), SCAN and
            VSE-infinity do.
        max_captions: keep the first so many captions of an image. None is the published habit, 5
            for COCO and all otherwise; 0 keeps all.
        columns: names of the columns of a table, for instance ``{"image": "file"}``; any of
            ``image``, ``caption``, ``split``, ``image_id``, ``group``. Common names are found
            without.
        dev_share, test_share: of the images of a table without a split column, in [0, 1).
        split_seed: of the hash that deals those images out.
    """

    image_root: Path | None = None
    restval: bool = False
    max_captions: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    dev_share: float = 0.05
    test_share: float = 0.05
    split_seed: int = 0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.columns) - set(COLUMNS))
        if unknown:
            raise ValueError(f"columns: expected keys among {COLUMNS}, got {unknown}")
        if self.max_captions is not None and self.max_captions < 0:
            raise ValueError(
                f"max_captions: expected 0 (all), 1 or more, or null, got {self.max_captions}"
            )
        if not (self.dev_share >= 0 <= self.test_share and self.dev_share + self.test_share < 1):
            raise ValueError(
                "dev_share, test_share: expected numbers from 0 on whose sum is below 1, "
                f"got {self.dev_share} and {self.test_share}"
            )

    def changed(self) -> set[str]:
        """The names of the options that are not at their default."""
        default = SourceOptions()
        return {f.name for f in fields(self) if getattr(self, f.name) != getattr(default, f.name)}


class Source(ABC):
    """A dataset on disk: its splits by name.

    Class attributes: ``format``, the word for it on the command line; ``summary``, its files in a
    few words; ``takes``, the fields of `SourceOptions` that it reads.
    """

    format: ClassVar[str]
    summary: ClassVar[str]
    takes: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, path: Path, options: SourceOptions) -> None:
        """``path`` is one that `recognise` answered; raises ValueError for options not taken."""
        foreign = sorted(options.changed() - self.takes)
        if foreign:
            raise ValueError(
                f"{', '.join(foreign)}: not an option of format {self.format!r}, found at {path}; "
                "leave it out, or name another format"
            )
        self.path = path
        self.options = options

    @classmethod
    @abstractmethod
    def recognise(cls, path: Path) -> Path | None:
        """The file or folder of this format that ``path`` (which exists) is or holds, or None.

        Raises ``ValueError`` when it holds several.
        """

    @abstractmethod
    def stored_names(self) -> list[str]:
        """The names of the splits, as the files have them or as the field calls them."""

    def open(self, split: str, limit: int | None = None) -> Split:
        """One split by a name that `find` knows, its first ``limit`` images.

        Counts are checked, contents are not. Raises ``FileNotFoundError`` when there is no such
        split, ``ValueError`` when files do not fit together or cannot be read.
        """
        if limit is not None and limit < 1:
            raise ValueError(f"limit: expected at least 1 image or None, got {limit}")
        return self._open(self.find(split), limit)

    @abstractmethod
    def _open(self, split: str, limit: int | None) -> Split:
        """`open` by a stored name."""

    def names(self) -> list[str]:
        """The splits: train, restval, dev, test, testall first, others in alphabetical order."""
        return sorted(
            self.stored_names(),
            key=lambda name: (
                COMMON_NAMES.index(name) if name in COMMON_NAMES else len(COMMON_NAMES),
                name,
            ),
        )

    def find(self, split: str) -> str:
        """The stored name of a split; ``dev``, ``val``, ``valid`` and ``validation`` are one.

        Raises ``FileNotFoundError`` listing the splits that are there.
        """
        present = self.names()
        for name in (split, *(DEV_NAMES if split in DEV_NAMES else ())):
            if name in present:
                return name
        there = f"it has {present}" if present else "it has no image with a caption at all"
        raise FileNotFoundError(f"{self.path}: it has no split {split!r}; {there}")

    def vocabulary_files(self) -> Sequence[Path]:
        """Vocabulary files that come with the data, the nearest first."""
        return []

    def remarks(self) -> list[str]:
        """What a reader of this source should know, a sentence each."""
        return []

    def problems(self) -> list[str]:
        """What is wrong with this source as a whole, a sentence each."""
        return []


def fold_split(given: object, where: str) -> str:
    """The name of a split without white space, in lower case, all words for ``dev`` as that.

    Raises ``ValueError`` that begins with ``where`` when there is none, or none that can name a
    file.
    """
    if not isinstance(given, str) or not given.strip() or not _NAME.fullmatch(given):
        raise ValueError(
            f"{where}: expected a split ('train', 'dev', 'test'), found {given!r}; write one, or "
            "leave the split out everywhere"
        )
    folded = given.strip().lower()
    return "dev" if folded in DEV_NAMES else folded


def renamings(given: Iterable[str]) -> list[str]:
    """A remark on words for splits that are read without their white space or capitals."""
    changed = sorted({word for word in given if word != word.strip().lower()})
    words = ", ".join(map(repr, changed))
    return [f"splits {words} are read in lower case, without white space"] if changed else []


def starts_with(path: Path, character: str) -> bool:
    """Whether the first character that is no white space is ``character``.

    True as well of a file that is something else altogether, such as a web page: the source that
    its name stands for then says so.
    """
    head = read_head(path)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return text.startswith(character.encode()) or mistaken_for(head) is not None


def first_line(path: Path) -> str:
    """The first line, without its end; bytes that are no UTF-8 are replaced."""
    with reading(path) as stream:
        head = stream.read(HEADER_BYTES)
    return re.split(r"[\r\n]", head.decode("utf-8-sig", errors="replace"), maxsplit=1)[0]


def files_in(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files of a folder with one of the suffixes, in any case, in alphabetical order.

    Links count whether or not they lead somewhere: reading them says what is wrong.
    """
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in suffixes and (path.is_file() or path.is_symlink())
    ]


def one_of(folder: Path, candidates: Sequence[Path]) -> Path | None:
    """The only candidate, None of none; raises ValueError when there are several."""
    if len(candidates) > 1:
        names = ", ".join(path.name for path in candidates)
        raise ValueError(f"{folder}: expected one dataset, found {names}; give the file you mean")
    return candidates[0] if candidates else None
