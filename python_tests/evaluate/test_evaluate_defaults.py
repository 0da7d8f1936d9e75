"""The default device and dtype of torch belong to the caller: no figure follows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fresh_process import run_fresh

PROGRAM = """
import json, sys
from pathlib import Path
import torch
from goal_kernels.cli import main

folder = Path(sys.argv[1])
set_, matrix = folder / "set.npz", folder / "matrix.npy"
CALLS = (
    [set_, "--protocol", "all"],
    [set_, "--ties", "argsort", "--backend", "reference"],
    [matrix, "--ties", "argsort"],
    [set_, matrix, "--normalize"],
)

def figures():
    for call in CALLS:
        assert main(["eval", *map(str, call), "--json", str(folder / "out.json")]) == 0
        record = json.loads((folder / "out.json").read_text())
        del record["seconds"]
        yield record

plain = list(figures())
for device, dtype in (("meta", torch.float64), ("cpu", torch.bfloat16)):
    torch.set_default_device(device)
    torch.set_default_dtype(dtype)
    assert list(figures()) == plain, (device, dtype)
"""


def test_no_figure_follows_the_defaults(tmp_path: Path) -> None:
    """In a process of its own, which memory on the wrong device would end: "meta" is any device."""
    rng = np.random.default_rng(8)
    image = rng.normal(size=(30, 8)).astype(np.float32)
    text = np.repeat(image, 5, axis=0) + 0.7 * rng.normal(size=(150, 8)).astype(np.float32)
    np.savez(tmp_path / "set.npz", image_embeddings=image, text_embeddings=text)
    np.save(tmp_path / "matrix.npy", image @ text.T)
    done = run_fresh(PROGRAM, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
