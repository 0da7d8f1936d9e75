"""The README's Python examples run as printed, in one namespace, in order."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from goal_kernels.registry import unregister_element

README = Path(__file__).parent.parent / "README.md"


def test_python_examples_run(capsys) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 3
    index = torch.arange(20) // 5
    namespace = {
        "image_embeddings": torch.randn(4, 8),
        "text_embeddings": torch.randn(20, 8),
        "text_to_image": index,
    }
    try:
        for block in blocks:
            exec(compile(block, str(README), "exec"), namespace)
    finally:
        unregister_element("triplet", "focal")
    assert "mean_positive" in capsys.readouterr().out
    assert namespace["loss"].requires_grad
    assert namespace["image"].grad.shape == namespace["image"].shape
