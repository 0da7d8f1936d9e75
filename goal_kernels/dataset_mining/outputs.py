"""Mined negatives as files: arrays, or a table of n-tuples. Written part by part."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from goal_kernels.data.files import replacing
from goal_kernels.dataset_mining.inputs import Search
from goal_kernels.dataset_mining.parts import FIELDS, Parts
from goal_kernels.extras import require

Columns: TypeAlias = "dict[str, list[Any]]"
"""Some rows of a table, by the names of its columns."""

SUFFIXES = (".npz", ".jsonl", ".parquet")


def check_output(path: Path) -> None:
    """Refuse what cannot be written, before the work. Raises: ValueError, MissingExtraError."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"--output: expected a name in {', '.join(SUFFIXES)}, got {path}")
    if path.is_dir():
        raise ValueError(f"--output: expected a file, {path} is a folder")
    if path.suffix == ".parquet":
        require(f"--output {path}", "parquet", "pyarrow")


def write_output(path: Path, searches: list[Search], parts: Parts, k: int) -> dict[Path, int]:
    """Write all that was found. Returns: rows of each file."""
    if path.suffix == ".npz":
        _write_arrays(path, searches, parts, k)
        return {path: sum(len(search.queries) for search in searches)}
    open_table = _open_parquet if path.suffix == ".parquet" else _open_lines
    written = {}
    for search in searches:
        to = path.with_suffix(f".{search.name}{path.suffix}") if len(searches) > 1 else path
        rows = 0
        with open_table(to) as write:
            for table in _tables(search, parts, k):
                write(table)
                rows += len(table["anchor"])
        written[to] = rows
        pairs = len(search.queries if search.positives is None else search.positives)
        if rows < pairs:
            print(
                f"{to}: {pairs - rows:,} of {pairs:,} rows are left out, since fewer than {k} "
                "negatives were found for them; a lower -k keeps more",
                file=sys.stderr,
            )
    return written


def _write_arrays(path: Path, searches: list[Search], parts: Parts, k: int) -> None:
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for search in searches:
            for field in FIELDS:
                name = f"{search.name}_{field}" if search.name else field
                with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                    rows = len(search.queries)
                    for part, found in parts.read(search):
                        block = found[field]
                        if part.start == 0:
                            header = {
                                "descr": np.lib.format.dtype_to_descr(block.dtype),
                                "fortran_order": False,
                                "shape": (rows, *block.shape[1:]),
                            }
                            np.lib.format.write_array_header_1_0(stream, header)
                        stream.write(np.ascontiguousarray(block).tobytes())


def _tables(search: Search, parts: Parts, k: int) -> Iterator[Columns]:
    """anchor, positive where known, negative_1 to negative_k: those that have k negatives."""
    of_query = _namer(search.query_names)
    of_corpus = _namer(search.corpus_names)
    for part, found in parts.read(search):
        if search.positives is None:
            query, positive = np.arange(part.start, part.stop), None
        else:
            first, last = np.searchsorted(search.positives[:, 0], (part.start, part.stop))
            query, positive = search.positives[first:last].T
        full = found["counts"][query - part.start] == k
        query = query[full]
        table = {"anchor": of_query(query)}
        if positive is not None:
            table["positive"] = of_corpus(positive[full])
        negatives = found["indices"][query - part.start]
        for place in range(k):
            table[f"negative_{place + 1}"] = of_corpus(negatives[:, place])
        yield table


def _namer(names: list[str] | None) -> Callable[[NDArray[np.int64]], list[Any]]:
    if names is None:
        return lambda rows: rows.tolist()
    return lambda rows: [names[row] for row in rows.tolist()]


@contextmanager
def _open_lines(path: Path) -> Iterator[Callable[[Columns], None]]:
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:

        def write(table: Columns) -> None:
            for values in zip(*table.values(), strict=True):
                line = dict(zip(table, values, strict=True))
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

        yield write


@contextmanager
def _open_parquet(path: Path) -> Iterator[Callable[[Columns], None]]:
    import pyarrow
    import pyarrow.parquet

    with replacing(path) as temporary, ExitStack() as stack:
        writers: list[Any] = []

        def write(columns: Columns) -> None:
            table = pyarrow.table(columns)
            if not writers:
                opened = pyarrow.parquet.ParquetWriter(temporary, table.schema)
                writers.append(stack.enter_context(opened))
            writers[0].write_table(table.cast(writers[0].schema))

        yield write
