"""The lines that docs/compat.md tells to write exist, and import none of the packages."""

from __future__ import annotations

import re
from pathlib import Path

from fresh_process import run_fresh

PAGE = Path(__file__).parents[2] / "docs" / "compat.md"
PACKAGES = ("open_clip", "sentence_transformers", "pytorch_metric_learning", "pytorch_lightning")


def test_added_imports_work_alone() -> None:
    lines = re.findall(r"^\+(from goal_kernels.* import .*)$", PAGE.read_text(), re.MULTILINE)
    assert len(lines) == 6
    code = "\n".join([*lines, "import sys", f"print([p for p in {PACKAGES} if p in sys.modules])"])
    told = run_fresh(code)
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip() == "[]"
