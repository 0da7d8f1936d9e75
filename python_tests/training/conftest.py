"""The folder of made-up data that the tests of training share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from made_up_data import SIZES, write_made_up_split

from goal_kernels.data import Vocabulary


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """With splits train, dev and test, and a vocabulary. A test that changes it takes a copy."""
    path = tmp_path_factory.mktemp("made_up")
    captions = {name: write_made_up_split(path, name, size) for name, size in SIZES.items()}
    Vocabulary.from_captions(captions["train"]).save(path / "vocab.json")
    made = contents(path)
    yield path
    assert contents(path) == made, "a test changed what the tests after it trained on"
