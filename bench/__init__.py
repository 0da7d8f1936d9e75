"""Benchmarks of goal_kernels: `python -m bench --help`; bench/README.md says how they measure."""

from __future__ import annotations

import argparse


def command_parser(
    module: str, description: str | None, epilog: str | None = None
) -> argparse.ArgumentParser:
    """A parser for `python -m MODULE` that shows both texts as they are written."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
