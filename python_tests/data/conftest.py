"""One small data set for all tests that only look at it."""

from __future__ import annotations

import pytest
from made_folder import Made

from goal_kernels.data.goalworld import generate_goalworld


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The tiny preset with seed 11."""
    folder = tmp_path_factory.mktemp("goalworld") / "tiny"
    return Made(folder, generate_goalworld(folder, preset="tiny", seed=11))
