"""Sources of image-caption data. A new format is one file here and one row of `FORMATS`."""

from __future__ import annotations

from pathlib import Path

from goal_kernels.data.files import mistaken_for, read_head
from goal_kernels.data.sources.base import Source, SourceOptions
from goal_kernels.data.sources.karpathy import KarpathySource
from goal_kernels.data.sources.lists import ListSource
from goal_kernels.data.sources.precomputed import PrecomputedSource
from goal_kernels.data.sources.table import TableSource

_DATA_SUFFIXES = {".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".npy"}
# Where a folder holds several, the first one is taken.
FORMATS: dict[str, type[Source]] = {
    source.format: source for source in (PrecomputedSource, KarpathySource, ListSource, TableSource)
}

__all__ = ["FORMATS", "Source", "SourceOptions", "describe_formats", "open_source"]


def open_source(
    path: str | Path, format: str | None = None, options: SourceOptions | None = None
) -> Source:
    """The dataset at ``path``; its files are found, not read.

    Args:
        path: a folder, or the file that describes the dataset.
        format: a key of `FORMATS`; the first that recognises the path when None.
        options: how to read it.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: no format recognises it, it cannot be read, it holds several datasets, or an
            option does not apply.
    """
    path = Path(path)
    if format is not None and format not in FORMATS:
        raise ValueError(f"format: expected one of {sorted(FORMATS)}, got {format!r}")
    try:
        if not path.exists():
            link = ", the link there leads nowhere" if path.is_symlink() else ""
            raise FileNotFoundError(f"expected a dataset, found nothing at {path}{link}")
        for source in FORMATS.values() if format is None else (FORMATS[format],):
            found = source.recognise(path)
            if found is not None:
                return source(found, options or SourceOptions())
        strange = _strange_file(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(
            f"{path}: expected a dataset that can be read, found: {error.strerror}; check what is "
            "there and its permissions"
        ) from error
    wanted = f"a dataset of format {format!r}" if format else "a dataset"
    raise ValueError(
        f"{path}: expected {wanted}, recognised none{strange}. Known are\n{describe_formats()}"
    )


def _strange_file(path: Path) -> str:
    """What the first file of a folder is, or the one given, that is not what its name says."""
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        if file.is_file() and _DATA_SUFFIXES.intersection(map(str.lower, file.suffixes)):
            other = mistaken_for(read_head(file))
            if other is not None:
                return f" ({file.name} is {other})"
    return ""


def describe_formats() -> str:
    """One line a format."""
    return "\n".join(f"  {name:<13}{source.summary}" for name, source in FORMATS.items())
