"""How an operator of this library is defined: schema, implementation, fake kernel, autograd.

Autograd is a kernel of its own rather than `torch.library.register_autograd`, which looks at the
schema on every call (20 us, as much as mining a small batch).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch._functorch.autograd_function import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

NAMESPACE = "goal_kernels"

DOUBLE_BACKWARD = (
    "This loss cannot be differentiated twice: its gradient comes from a formula of its own, which "
    "for a GOAL objective is not even the derivative of the value. Detach it, or call backward "
    "without create_graph=True."
)

FORWARD_MODE = (
    "This loss has no forward-mode derivative (torch.func.jvp, jacfwd, dual numbers): its gradient "
    "comes from a formula of its own, which for a GOAL objective is not even the derivative of the "
    "value. Use backward, torch.func.grad or torch.func.vjp."
)

transformed = torch._C._are_functorch_transforms_active
"""Whether a transform of torch.func runs."""

_LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")


def _refuse(ctx: Any, *grads: Tensor) -> None:
    raise RuntimeError(DOUBLE_BACKWARD)


def in_forward_mode() -> bool:
    """Whether tangents may come with tensors: they show nowhere else, least in requires_grad."""
    return forward_ad._current_level >= 0


def is_unwatched(image: Tensor, text: Tensor) -> bool:
    """Whether only its caller would see an operator on CPU tensors that require no gradient.

    Then the implementation may be called as it is: dispatching to Python and back takes longer than
    mining a small batch. A compiler, a mode, a transform, a tracer, autocast or a profiler wants
    the operator.
    """
    return (
        type(image) is Tensor is type(text)
        and image.is_cpu
        and text.is_cpu
        and not torch.compiler.is_dynamo_compiling()
        and torch._C._len_torch_dispatch_stack() == 0
        and not (transformed() or forward_ad._current_level >= 0)
        and torch._C._get_tracing_state() is None
        and not torch._C._is_any_autocast_enabled()
        and not torch.autograd._profiler_enabled()
    )


def refuse_forward_mode(ctx: Any, *tangents: Any) -> Any:
    """The `jvp` of an autograd function. Raises: RuntimeError."""
    raise RuntimeError(FORWARD_MODE)


def _save_nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """For operators whose backward refuses."""


def _outside_autocast(implementation: Callable[..., Any]) -> Callable[..., Any]:
    """Autocast would silently lower the precision of products inside an operator."""

    @wraps(implementation)
    def wrapped(*arguments: Any) -> Any:
        device_type = arguments[0].device.type
        if not torch.is_autocast_enabled(device_type):
            return implementation(*arguments)
        with torch.autocast(device_type, enabled=False):
            return implementation(*arguments)

    return wrapped


def _autograd_kernel(
    operator: Callable[..., Any], backward: Callable[..., Any], setup: Callable[..., None]
) -> Callable[..., Any]:
    """The operator itself where nothing requires a gradient, else a node in the graph."""

    def run(*arguments: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*arguments)

    # One level of torch.func at a time, like the kernels of torch itself: the dispatcher has peeled
    # off the levels above. `torch.autograd.Function` would start over with all of them.
    class GoalKernels(_SingleLevelFunction):
        apply: Callable[..., Any]

        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Any:
            if transformed():  # `apply` turned autograd off, for the transforms around too
                with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
                    output = run(*arguments)
            else:
                output = run(*arguments)
            setup(ctx, arguments, output)
            return output

    GoalKernels.backward = staticmethod(backward)  # type: ignore[method-assign]
    GoalKernels.jvp = staticmethod(refuse_forward_mode)  # type: ignore[method-assign]

    def kernel(*arguments: Any) -> Any:
        wanted = torch.is_grad_enabled() and any(
            isinstance(a, Tensor) and a.requires_grad for a in arguments
        )
        if not (wanted or in_forward_mode()):
            return run(*arguments)
        if not transformed():
            return GoalKernels.apply(*arguments)
        with enable_single_level_autograd_function():
            return GoalKernels.apply(*arguments)

    return kernel


def define_operator(
    name: str,
    schema: str,
    implementation: Callable[..., Any],
    fake: Callable[..., Any],
    backward: Callable[..., Any] = _refuse,
    setup: Callable[..., None] = _save_nothing,
) -> None:
    """Define `goal_kernels::name`.

    Args:
        schema: arguments and results, all positional, without defaults; a tensor comes first.
        implementation: works on tensors of any device, without gradient.
        fake: the same on tensors without data: shapes, dtypes and devices.
        backward, setup: as `torch.library.register_autograd` takes them, with `setup(ctx, inputs,
            output)`; without them differentiating raises.
    """
    _LIBRARY.define(name + schema)
    _LIBRARY.impl(name, _outside_autocast(implementation), "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_LIBRARY)
    operator = getattr(getattr(torch.ops, NAMESPACE), name).default
    _LIBRARY.impl(name, _autograd_kernel(operator, backward, setup), "Autograd")
