"""Options, parametrisation, and the fixture that holds the contests of benchmarks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch

from bench.cases import (
    DEFAULT_SUITE,
    PRECISIONS,
    SUITES,
    Case,
    Suite,
    memory_cases,
    timed_cases,
)
from bench.contest import ContestResult, hold_contest
from bench.lineup import COMPILED, PRODUCTS, line_up
from bench.machine import describe_machine

PLANS: dict[str, Callable[[Suite, str], Iterator[Case]]] = {
    "steps": timed_cases,
    "memory": memory_cases,
}
DEFAULT_THREADS = 2
UNWEIGHED = (*PRODUCTS, COMPILED)
"""Not in the memory plan: products make no gradients, and compiling needs more than the step."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("goal_kernels")
    group.addoption(
        "--suite", choices=tuple(SUITES), default=DEFAULT_SUITE, help="sizes and effort"
    )
    group.addoption("--device", choices=("cpu", "cuda"), default="cpu")
    group.addoption("--threads", type=int, default=DEFAULT_THREADS, help="torch's threads")
    group.addoption("--precision", choices=PRECISIONS, action="append", default=[])


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("device") == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError("--device cuda: no CUDA device here; use --device cpu.")
    threads, cores = config.getoption("threads"), os.cpu_count() or 1
    if not 1 <= threads <= cores:
        raise pytest.UsageError(f"--threads: expected 1 to {cores} on this machine, got {threads}.")
    torch.set_num_threads(threads)


def chosen_suite(config: pytest.Config) -> Suite:
    """The suite that --suite names, with the precisions of --precision if there are any."""
    suite = SUITES[config.getoption("suite")]
    precisions = tuple(dict.fromkeys(config.getoption("precision")))
    return replace(suite, precisions=precisions) if precisions else suite


def plan(config: pytest.Config, name: str) -> list[Case]:
    """The cases of one plan under these options."""
    return list(PLANS[name](chosen_suite(config), config.getoption("device")))


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Which methods are not measured here, and why."""
    refused = {
        f"{name}: {verdict.reason}"
        for case in plan(config, "steps")
        for name, verdict in line_up(case, chosen_suite(config))
        if not verdict.ok
    }
    return [f"not measured: {line}" for line in sorted(refused)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One benchmark per case and method; those of one case follow one another."""
    if "method" not in metafunc.fixturenames:
        return
    name = metafunc.function.__name__.removeprefix("bench_")
    pairs = [
        pytest.param(case, method, id=f"{case}-{method}")
        for case in plan(metafunc.config, name)
        for method, verdict in line_up(case, chosen_suite(metafunc.config))
        if verdict.ok and (name != "memory" or method not in UNWEIGHED)
    ]
    metafunc.parametrize(("case", "method"), pairs)


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    machine_info["goal_kernels"] = {
        **describe_machine(config.getoption("device")),
        "precisions": list(chosen_suite(config).precisions),
        "suite": config.getoption("suite"),
        "selected": config.getoption("keyword"),
    }


@pytest.fixture(scope="session")
def contest(request: pytest.FixtureRequest) -> Callable[[Case], ContestResult]:
    """The contest of a case, held once when its first method is asked for."""
    suite = chosen_suite(request.config)
    return lru_cache(maxsize=1)(lambda case: hold_contest(case, suite))
