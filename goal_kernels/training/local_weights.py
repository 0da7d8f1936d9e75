"""Weights of a backbone from a local file, whatever program wrote it, without running its code."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from goal_kernels.extras import load_package

ARGUMENT = "model.image.weights"
CONTAINERS = ("state_dict", "model_state_dict", "model", "module", "teacher", "student")
SHOWN = 4  # names of parameters in a message

_loading: ContextVar[bool] = ContextVar("checkpoint loading", default=False)


@contextmanager
def checkpoint_loading() -> Iterator[None]:
    """Build models whose weights come from a checkpoint afterwards.

    The files that their options name are then not read, and may be gone.
    """
    token = _loading.set(True)
    try:
        yield
    finally:
        _loading.reset(token)


def is_checkpoint_loading() -> bool:
    """Whether a model is being built for the weights of a checkpoint."""
    return _loading.get()


def fill(
    body: nn.Module,
    weights: str | None,
    pretrained: bool,
    unused: tuple[str, ...] = (),
    renamed: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
) -> None:
    """Give a network its first weights, in place.

    Args:
        body: the network.
        weights: local file; None keeps the random weights, and warns.
        pretrained: False keeps the random weights without a warning: a checkpoint's follow.
        unused: see `load_weights`.
        renamed: from the names of the file to those of the network.
    """
    if not pretrained:
        return
    if weights is None:
        warnings.warn(
            f"{ARGUMENT}: none given, so the backbone starts from random weights; published "
            "models start from trained ones",
            stacklevel=2,
        )
        return
    load_weights(body, renamed(read_state(weights)), unused)


def read_state(path: str) -> dict[str, Tensor]:
    """The tensors of a file by name.

    Args:
        path: a `.safetensors` file, or one of `torch.save` with tensors and plain types only; a
            state may lie inside a checkpoint ("state_dict", "model", ...) or in several parts.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no state, or things that only running its code could read.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"{ARGUMENT}: expected a local file of weights, found no {path}; nothing is "
            "downloaded, get the file yourself, or leave the option out for random weights"
        )
    if file.suffix == ".safetensors":
        load = load_package("safetensors.torch", "grid", ARGUMENT).load_file
    else:
        load = partial(torch.load, map_location="cpu", weights_only=True)
    try:
        content = load(str(file))
    except Exception as error:  # on a torn file the readers raise almost anything
        raise ValueError(
            f"{ARGUMENT}: {path} is no file of tensors that can be read safely "
            f"({first_line(error)}); get it again, or write its state_dict with "
            "torch.save or safetensors"
        ) from error
    state = _tensors(content)
    if not state:
        raise ValueError(f"{ARGUMENT}: expected a state_dict in {path}, found no tensors in it")
    return state


def first_line(error: Exception) -> str:
    """What an error says in short; the rest of torch's is advice to trust the file."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _tensors(content: Any) -> dict[str, Tensor]:
    """All tensors of nested dictionaries, under dotted names; what else is there is left out."""
    if not isinstance(content, Mapping):
        return {}
    container = next((key for key in CONTAINERS if isinstance(content.get(key), Mapping)), None)
    if container is not None:
        return _tensors(content[container])
    found: dict[str, Tensor] = {}
    for key, value in content.items():
        if isinstance(value, Tensor):
            found[str(key)] = value
        else:
            found.update({f"{key}.{name}": inner for name, inner in _tensors(value).items()})
    return found


def load_weights(
    body: nn.Module, state: Mapping[str, Tensor], unused: tuple[str, ...] = ()
) -> None:
    """Fill a network from a state, in which names may begin with something more.

    Wrappers put "module.", "backbone.", "model.encoder." and the like before every name; whatever
    it is, it is found from the names themselves. What the state has beyond (a classifier) is left.

    Args:
        body: the network, filled in place.
        state: tensors by name.
        unused: beginnings of names that may be missing, since nothing reads them.
    Raises: ValueError naming parameters that the state lacks or has in another shape.
    """
    own = body.state_dict()
    prefix = _prefix(own, state)
    given = {name: state[prefix + name] for name in own if prefix + name in state}
    missing = [name for name in own if name not in given and not _optional(name, unused)]
    if missing:
        raise ValueError(
            f"{ARGUMENT}: expected the weights of a {type(body).__name__} as model.image.backbone "
            f"says; of its {len(own)} tensors {len(missing)} are missing, such as "
            f"{', '.join(missing[:SHOWN])}; the file has names such as "
            f"{', '.join(list(state)[:SHOWN])}"
        )
    wrong = [name for name, value in given.items() if value.shape != own[name].shape]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"{ARGUMENT}: {len(wrong)} tensors have another shape, such as {name}: expected "
            f"{list(own[name].shape)}, got {list(given[name].shape)}; the file is of another "
            "variant than model.image.backbone"
        )
    body.load_state_dict(given, strict=False)


def named_by_order(own: Mapping[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state under a network's names, where it has none of them but the same shapes in order.

    Weights of one network were published under the names of several implementations of it.

    Args:
        own: tensors of the network by name.
        state: of the file; what it has behind them (a classifier) is left.
    Returns: the state as it is where a name is known or a shape differs.
    """
    prefix = _prefix(own, state)
    same = [a.shape == b.shape for a, b in zip(own.values(), state.values(), strict=False)]
    if any(prefix + name in state for name in own) or len(same) < len(own) or not all(same):
        return state
    warnings.warn(
        f"{ARGUMENT}: the file has other names, such as {next(iter(state))}; its tensors are taken "
        f"in their order, as all {len(same)} shapes agree",
        stacklevel=2,
    )
    return dict(zip(own, state.values(), strict=False))


def _prefix(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """What the names of the state have before those of the network: where most are found."""
    candidates = {""}
    for name in own:
        ends = [key.removesuffix(name) for key in state if key.endswith("." + name)]
        candidates.update(ends)
        if ends:
            break
    return max(sorted(candidates), key=lambda prefix: sum(prefix + name in state for name in own))


def _optional(name: str, unused: tuple[str, ...]) -> bool:
    """Whether a tensor may be missing: old files do not count batches."""
    return name.endswith("num_batches_tracked") or name.startswith(unused)
