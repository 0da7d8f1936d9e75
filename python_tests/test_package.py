"""The package as a module: names come when they are used, and nothing is loaded before."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from fresh_process import run_fresh

import goal_kernels as gk


def in_another_process(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_loads_no_torch_and_the_registry_is_full() -> None:
    in_another_process("""
import sys
import goal_kernels
from goal_kernels.registry import find_element
assert find_element("pair", "sig").equation
assert {"goal_loss", "registry", "__version__"} <= set(dir(goal_kernels))
assert "torch" not in sys.modules
assert goal_kernels.retrieval.ranks.retrieval_ranks is goal_kernels.retrieval_ranks
from goal_kernels import *
assert GOALLoss is goal_kernels.modules.GOALLoss
""")


def test_a_name_first_used_inside_a_compiled_graph() -> None:
    done = run_fresh("""
import goal_kernels as gk
import torch

@torch.compile(fullgraph=True, backend="eager")
def step(image, text):
    return gk.goal_loss(image, text, "hinge/constant", backend="reference")

pairs = torch.eye(4, 8), torch.eye(4, 8).roll(1, 0)
assert torch.equal(step(*pairs), gk.goal_loss(*pairs, "hinge/constant", backend="reference"))
""")
    assert done.returncode == 0, done.stderr


def test_names_are_those_that_type_checkers_read() -> None:
    """The imports below `if TYPE_CHECKING` name every object of `__all__`, and its own module."""
    tree = ast.parse(Path(gk.__file__).read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    read = {alias.name: node.module for node in block.body for alias in node.names}
    assert sorted(read) == gk.__all__
    for name, module in read.items():
        assert getattr(gk, name) is getattr(import_module(module), name)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'goal_kernels' has no attribute 'goal_los'"):
        gk.goal_los  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'goal_los'"):
        from goal_kernels import goal_los  # noqa: F401
