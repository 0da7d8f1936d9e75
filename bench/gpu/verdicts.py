"""One check for several contestants: what one of them does wrong does not hide the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from bench.gpu.variants import Variant
from bench.gpu.worker import describe_error, device_is_lost
from goal_kernels import BackendUnavailableError

REFUSALS = (BackendUnavailableError, NotImplementedError)
"""How a backend says that it does not serve a call; honest, so no failure."""


def check_each(
    names: Sequence[str], tell: Callable[[str], None], check: Callable[[str], object]
) -> dict[str, Any]:
    """Run `check` for every name.

    Returns: passed (names), failures, refused and memory (name -> why). Errors of the device are
    raised: the process is lost, and who is at work has been told.
    """
    found: dict[str, Any] = {"passed": [], "failures": {}, "refused": {}, "oom": {}}
    for name in names:
        tell(name)
        if found["oom"]:
            torch.cuda.empty_cache()  # only now has the failed attempt let go of its memory
        try:
            check(name)
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()  # an error of this one's kernels must not be the next's
        except REFUSALS as error:
            found["refused"][name] = str(error)
        except torch.OutOfMemoryError as error:
            found["oom"][name] = str(error).partition("\n")[0]
        except Exception as error:
            if device_is_lost():
                raise
            found["failures"][name] = describe_error(error)
        else:
            found["passed"].append(name)
    return found


def check_variants(
    names: Sequence[str], tell: Callable[[str], None], check: Callable[[Variant], object]
) -> dict[str, Any]:
    """`check_each` for variants of the library, each within its own context."""

    def within(name: str) -> None:
        variant = Variant.parse(name)
        with variant.used():
            check(variant)

    return check_each(names, tell, within)
