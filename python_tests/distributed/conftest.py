"""Processes that all tests of this folder share: starting them costs more than the tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from processes import Processes


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Three processes."""
    started = Processes(3, tmp_path_factory.mktemp("processes"))
    yield started
    started.stop()
