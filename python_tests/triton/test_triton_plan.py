"""The table that chooses how a call is mined: complete, in order, and backed by what it names."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch

from goal_kernels.backends.gpu.plan import (
    IEEE,
    NOT_MEASURED,
    SMALL_BATCH,
    STRATEGIES,
    STRIP,
    TABLE,
    TILE,
    Rule,
    Subject,
    choose,
    product_kind,
)
from goal_kernels.backends.gpu.runtime import INTERPRETED_CAPABILITY, device_capability

ROOT = Path(__file__).parent.parent.parent
CAPABILITIES = ((8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0))
KINDS = ("bfloat16", "float16", IEEE, "high", "medium")
SIZES = (1, 128**2, SMALL_BATCH**2, SMALL_BATCH**2 + 1, 65536**2)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_call_has_a_row(capability: tuple[int, int], kind: str) -> None:
    for pairs, width in product(SIZES, (1, 512, 1024, 8192)):
        assert choose(Subject(capability, kind, pairs, width)).strategy in STRATEGIES


def test_each_row_decides_something() -> None:
    """A row behind one that takes everything would be dead."""
    subjects = product(CAPABILITIES, KINDS, SIZES, (512,))
    deciding = {id(choose(Subject(*subject))) for subject in subjects}
    assert deciding == {id(rule) for rule in TABLE}


@pytest.mark.parametrize("rule", TABLE, ids=lambda rule: rule.strategy)
def test_evidence_is_a_result_or_says_that_there_is_none(rule: Rule) -> None:
    measured = not rule.evidence.startswith(NOT_MEASURED)
    assert not measured or (ROOT / "bench" / "results" / rule.evidence.split()[0]).is_file()


def test_the_choice_at_the_edges() -> None:
    small, large = Subject((9, 0), "bfloat16", SMALL_BATCH**2, 512), 65536**2
    assert choose(small).strategy == TILE
    assert choose(small._replace(pairs=small.pairs + 1)).strategy == STRIP
    assert choose(small._replace(pairs=large, kind=IEEE)).strategy == TILE
    assert choose(small._replace(pairs=large, capability=(10, 0))).strategy == STRIP


def test_ranges_are_half_open() -> None:
    rule = Rule(STRIP, "", ("high",), ((8, 0), (9, 0)), (10, 20), (100, 200))
    inside = Subject((8, 0), "high", 10, 100)
    assert rule.holds(inside)
    for change in (
        {"capability": (9, 0)},
        {"kind": "medium"},
        {"pairs": 20},
        {"pairs": 9},
        {"width": 200},
        {"width": 99},
    ):
        assert not rule.holds(inside._replace(**change))


def test_kinds() -> None:
    assert product_kind(torch.bfloat16, "high") == "bfloat16"
    assert product_kind(torch.float32, "highest") == IEEE
    assert product_kind(torch.float32, "medium") == "medium"
    assert device_capability(torch.device("cpu")) == INTERPRETED_CAPABILITY
