"""`python -m goal_kernels`: the same as the `goal-kernels` command."""

from __future__ import annotations

import sys

from goal_kernels.cli import main

if __name__ == "__main__":
    sys.exit(main())
