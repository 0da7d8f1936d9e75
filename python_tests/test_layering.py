"""Who may import whom. An arrow that is not in this table is a design decision: make it here."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "goal_kernels"

LAYERS = (
    {"constants", "operators", "backends.scores", "backends.answers", "extras", "terminal"},
    {"backends.base", "native", "backends.reference_rank"},
    {"registry", "pairs", "normalization", "notices", "backends.arguments"},
    {"elements", "reference"},
    {"objective", "backends.reference", "backends.cpu", "backends.gpu*"},
    {"backends.chunked"},
    {"backends", "weights", "statistics", "checks"},
    {"ops", "backends.explain", "retrieval.scores"},
    {"functional", "retrieval.ranks"},
    {"modules", "retrieval.metrics"},
    {"graphs", "retrieval.relevance", "retrieval.folds"},
    {"retrieval"},
    {"goal_kernels"},
    {"distributed.gather"},
    {"distributed.loss", "distributed.batch_norm"},
    {"distributed"},
    {"parser", "failures"},
    {"training*", "data*", "evaluate*", "cli", "__main__"},
)
"""From the bottom up: a module imports from strictly lower layers only."""

FREE = ("training", "data", "evaluate", "backends.gpu", "cli", "__main__")
"""Families whose members may import each other."""


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        found[".".join(parts) or "goal_kernels"] = path
    return found


def layer(module: str) -> int:
    for level, names in enumerate(LAYERS):
        for name in names:
            if module == name or (name.endswith("*") and module.startswith(name[:-1])):
                return level
    raise AssertionError(f"{module} is in no layer: add it to LAYERS")


def family(module: str) -> str | None:
    return next((name for name in FREE if module.startswith(name)), None)


def imports(path: Path, known: set[str]) -> set[str]:
    """Modules of the package that a file imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("goal_kernels"):
            base = (node.module or "").removeprefix("goal_kernels").lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                found.add(inner if inner in known else base or "goal_kernels")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("goal_kernels"):
                    found.add(alias.name.removeprefix("goal_kernels").lstrip(".") or "goal_kernels")
    return {name for name in found if name in known}


@pytest.mark.parametrize("module", modules())
def test_imports_point_down(module) -> None:
    known = modules()
    for imported in imports(known[module], set(known)):
        if family(module) is not None and family(imported) is not None:
            continue
        assert layer(imported) < layer(module), f"{module} must not import {imported}"


@pytest.mark.parametrize("module", modules())
def test_sizes_stay_small(module) -> None:
    """Files of at most 350 lines, bodies of at most 80: longer ones hide an unnamed idea.

    A kernel stands in one file with the functions it calls, and its launch.
    """
    source = modules()[module].read_text()
    most = 600 if module.startswith("backends.gpu.kernels.") else 350
    assert source.count("\n") <= most, f"{module} has {source.count(chr(10))} lines"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            size = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert size <= 80, f"{module}.{node.name} has {size} lines"


FACTORIES = {"empty", "zeros", "ones", "full", "arange", "tensor", "as_tensor", "linspace", "eye"}
INTEGERS_BY_DEFAULT = {"arange", "tensor", "as_tensor"}


@pytest.mark.parametrize("module", [name for name in modules() if family(name) != "training"])
def test_no_allocation_follows_a_global_default(module) -> None:
    """`torch.set_default_device` and `set_default_dtype` belong to the user's own code."""
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "torch"
            and node.func.attr in FACTORIES
        ):
            named = {keyword.arg for keyword in node.keywords}
            assert "device" in named, f"{module}, line {node.lineno}: no device="
            whole = node.func.attr in INTEGERS_BY_DEFAULT
            assert whole or "dtype" in named or "out" in named, f"{module}, line {node.lineno}"
