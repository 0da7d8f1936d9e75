# mypy: allow-untyped-defs, allow-untyped-decorators
"""The built-in objective elements in Triton: twins of `goal_kernels.elements`, float32.

p and n are the similarities of anchors to their positive and to their hardest negative. Divisions
round correctly, so that zero, infinity and NaN come out as they do in torch.
"""

from __future__ import annotations

import triton
import triton.language as tl

from goal_kernels.backends.triton.weigh_configs import PAIR_CODES, TRIPLET_CODES
from goal_kernels.constants import CIRCLE_OFFSET

NCA = tl.constexpr(TRIPLET_CODES["nca"])
CIRCLE = tl.constexpr(TRIPLET_CODES["circle"])
HINGE = tl.constexpr(TRIPLET_CODES["hinge"])
CONSTANT_PAIR = tl.constexpr(PAIR_CODES["constant"])
LINEAR_PAIR = tl.constexpr(PAIR_CODES["linear"])
SIGMOID_PAIR = tl.constexpr(PAIR_CODES["sigmoid"])
LINEAR_MS_PAIR = tl.constexpr(PAIR_CODES["linear_ms"])
OFFSET = tl.constexpr(CIRCLE_OFFSET)


@triton.jit
def inverse(x):
    """1 / x, correctly rounded."""
    return tl.div_rn(tl.full(x.shape, 1.0, tl.float32), x)


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return inverse(1.0 + tl.exp(-x))


@triton.jit
def triplet_weight(p, n, tau, margin, TRIPLET: tl.constexpr):
    """T, the shape of p."""
    if TRIPLET == NCA:
        weight = sigmoid(-tau * (p - n))
    elif TRIPLET == CIRCLE:
        weight = sigmoid(-tau * (p * (2.0 - p) - n * n - OFFSET))
    elif TRIPLET == HINGE:
        violated = margin + n - p
        weight = tl.where(violated != violated, violated, (violated > 0.0).to(tl.float32))
    else:
        weight = tl.full(p.shape, 1.0, tl.float32)
    return weight


@triton.jit
def pair_weights(p, n, relative_positive, relative_negative, alpha, beta, lam, PAIR: tl.constexpr):
    """P+ and P-; the relative similarities count for the _ms elements only."""
    if PAIR == CONSTANT_PAIR:
        positive = tl.full(p.shape, 1.0, tl.float32)
        negative = positive
    elif PAIR == LINEAR_PAIR:
        positive = 1.0 - p
        negative = n
    elif PAIR == SIGMOID_PAIR:
        positive = sigmoid(-alpha * (p - lam))
        negative = sigmoid(beta * (n - lam))
    elif PAIR == LINEAR_MS_PAIR:
        positive = (1.0 - relative_positive) * (1.0 - p)
        negative = (1.0 + relative_negative) * n
    else:
        positive = inverse(tl.exp(alpha * (p - lam)) + relative_positive)
        negative = inverse(tl.exp(-beta * (n - lam)) + relative_negative)
    return positive, negative


@triton.jit
def anchor_value(p, n, margin, TRIPLET: tl.constexpr, PAIR: tl.constexpr):
    """What an anchor adds to the reported value: the violation, or the hinge loss itself."""
    value = n - p
    if TRIPLET == HINGE and PAIR == CONSTANT_PAIR:
        value += margin
        value = tl.where(value <= 0.0, 0.0, value)  # NaN stays NaN
    return value
