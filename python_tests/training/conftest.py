"""The folder of made-up data that the tests of training share."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up_data import SIZES, write_made_up_split

from goal_kernels.data import Vocabulary


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder, with splits train, dev and test, and a vocabulary."""
    path = tmp_path_factory.mktemp("made_up")
    captions = {name: write_made_up_split(path, name, size) for name, size in SIZES.items()}
    Vocabulary.from_captions(captions["train"]).save(path / "vocab.json")
    return path
