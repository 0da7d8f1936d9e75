"""Random noise that is a function of the pair it belongs to, whoever draws it.

The hash of a pair is two rounds of the finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014)
over its numbers; the first needs only the image's.
"""

from __future__ import annotations

import torch
from torch import Tensor


def words(image: Tensor, text: Tensor, direction: int, seed: int) -> tuple[Tensor, Tensor]:
    """What of the hash each side contributes, int64: their sum modulo 2^64 makes the noise.

    Args: image, text: int64, numbers in the batch. direction: 0 or 1, of the anchors.
    """
    of_image = _mixed(image * 2 + direction + _wrapped(seed * 0x9E3779B97F4A7C15))
    return of_image, text * _wrapped(0xD1B54A32D192ED03)


def noise(word: Tensor) -> Tensor:
    """Gumbel noise, float64 (float32 on MPS, which has no other). `word` is used up."""
    word = _mixed(word)
    wide, bits = (torch.float32, 23) if word.device.type == "mps" else (torch.float64, 52)
    number = _shifted(word, 64 - bits)
    return number.to(wide).add_(0.5).mul_(2.0**-bits).log_().neg_().log_().neg_()


def _wrapped(number: int) -> int:
    """The number modulo 2^64 as an int64."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _mixed(word: Tensor) -> Tensor:
    """The finaliser of splitmix64; products wrap. `word` is used up."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        word.bitwise_xor_(_shifted(word, shift)).mul_(_wrapped(factor))
    return word.bitwise_xor_(_shifted(word, 31))


def _shifted(word: Tensor, places: int) -> Tensor:
    """To the right, as if it had no sign."""
    return (word >> places).bitwise_and_((1 << (64 - places)) - 1)
