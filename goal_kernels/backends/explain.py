"""What would run here, and why: for people, logs and bug reports."""

from __future__ import annotations

import torch

from goal_kernels.backends.base import Call, settled_precision
from goal_kernels.backends.choice import AUTO, resolve, verdicts
from goal_kernels.checks import check_precision


def available_backends() -> tuple[str, ...]:
    """Names of the backends that can run on this machine, in the order `auto` tries them."""
    return tuple(backend.name for backend, verdict in verdicts() if verdict.ok)


def explain_backend(
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    precision: str | None = None,
) -> str:
    """Which backend `auto` would take for such a call, and why not the others.

    Args:
        device, dtype: of the embeddings. precision: as in `goal_loss`.
    Returns: a few lines of text: the choice, one line per backend, and what serves other negatives.
    Raises: ValueError for an unknown precision or device.
    """
    check_precision(precision)
    try:
        device_type = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(
            f"device: expected a torch device such as 'cuda', got {device!r}."
        ) from error
    precision = settled_precision(precision, device_type)
    call = Call(device_type, dtype, precision, automatic=True)
    chosen = resolve(AUTO, *call[:3])
    kind = str(dtype).removeprefix("torch.")
    lines = [f"{device_type}, {kind}, precision {precision}: auto takes {chosen!r}"]
    for backend, verdict in verdicts(call):
        state = "can serve this call" if verdict.ok else f"no: {verdict.reason}"
        lines.append(f"  {backend.name:<10} {state}")
    lines.append(
        "  negatives other than the hardest, limits of false negatives: plain torch in blocks on "
        "every backend; reference takes the matrix whole, cpu draws Sampled natively"
    )
    return "\n".join(lines)
