"""How to install what is missing, in the way this copy of the package was installed."""

from __future__ import annotations

import gc
import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit
from urllib.request import url2pathname


class MissingExtraError(ModuleNotFoundError):
    """Something that was asked for needs an extra that is not installed."""


def require(what: str, extra: str, *modules: str) -> None:
    """See that the modules are installed.

    Args: what: needs them, for the message.
    Raises: MissingExtraError with the command that installs them.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise MissingExtraError(f"{what} needs {', '.join(missing)}: {install(extra)}")


@contextmanager
def importing() -> Iterator[None]:
    """Import without collecting garbage: Lightning makes none, and would take a quarter longer."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def install(extra: str) -> str:
    """The command that adds an extra. The package is on no index, so it says where from."""
    root = Path(__file__).resolve().parent.parent
    if (root / "pyproject.toml").is_file():
        return f"pip install -e {shlex.quote(f'{root}[{extra}]')}"
    origin = _origin()
    url = str(origin.get("url", ""))
    folder = Path(url2pathname(urlsplit(url).path)) if url.startswith("file:") else None
    if "dir_info" in origin and folder is not None and folder.is_dir():
        return f"pip install {shlex.quote(f'{folder}[{extra}]')}"
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    if "vcs_info" in origin or "archive_info" in origin:
        return f"pip install {shlex.quote(f'goal-kernels[{extra}] @ {url}')}"
    return f"pip install '.[{extra}]' in the folder of the source of goal-kernels"


def _origin() -> dict:
    """What pip recorded of where the package came from (PEP 610), empty when nothing."""
    try:
        return json.loads(distribution("goal-kernels").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        return {}


class MissingPackageError(ValueError):
    """An option asks for a package that is not installed."""


def load_package(package: str, extra: str, argument: str) -> ModuleType:
    """Import a package that `argument` needs.

    Raises: MissingPackageError naming the argument and the extra that brings the package.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingPackageError(
            f"{argument}: needs {package}, which cannot be imported ({error}); {install(extra)}"
        ) from error
    except RuntimeError as error:  # how a torchvision says so that was made for another torch
        raise MissingPackageError(
            f"{argument}: needs {package}, whose import failed beside torch "
            f"{version('torch')} ({error}); install the {package} that was made for this torch"
        ) from error
