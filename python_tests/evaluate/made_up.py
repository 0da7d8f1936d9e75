"""Small sets of embeddings, and the command run in this process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from goal_kernels import cli


def embeddings(images: int = 30, each: int = 5, noise: float = 1.0, seed: int = 0):
    """Unit float32 rows [N, 16] and [N each, 16]; a caption is a noisy copy of its image."""
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(images, 16))
    text = np.repeat(image, each, axis=0) + noise * rng.normal(size=(images * each, 16))
    return tuple(
        (side / np.linalg.norm(side, axis=1, keepdims=True)).astype(np.float32)
        for side in (image, text)
    )


def save(path: Path, image: np.ndarray, text: np.ndarray, **more: np.ndarray) -> Path:
    """Embeddings as a `.npz` file."""
    np.savez(path, image_embeddings=image, text_embeddings=text, **more)
    return path


def evaluated(folder: Path, *arguments: object) -> dict:
    """The record of a call that must succeed."""
    file = folder / "record.json"
    assert cli.main(["eval", *map(str, arguments), "--json", str(file)]) == 0
    return json.loads(file.read_text())


def refused(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """The one line that a call says which must fail."""
    capsys.readouterr()
    assert cli.main(["eval", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("goal-kernels eval: error: ")
    assert error.count("\n") == 1
    return error
