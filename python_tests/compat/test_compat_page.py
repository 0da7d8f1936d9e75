"""The lines that docs/compat.md tells to write exist, and import none of the packages."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "compat.md"
PACKAGES = ("open_clip", "sentence_transformers", "pytorch_metric_learning", "pytorch_lightning")


def test_added_imports_work_alone() -> None:
    lines = re.findall(r"^\+(from goal_kernels.* import .*)$", PAGE.read_text(), re.MULTILINE)
    assert len(lines) == 6
    code = "\n".join([*lines, "import sys", f"print([p for p in {PACKAGES} if p in sys.modules])"])
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
