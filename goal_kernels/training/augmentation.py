"""Train-time augmentation on whole batches: dropped regions, dropped or replaced words."""

from __future__ import annotations

import torch
from torch import Tensor

from goal_kernels.training.options import DataSizes

MASKED_SHARE = 0.5  # of the touched words: replaced by the mask token, VSE-infinity
RANDOM_SHARE = 0.1  # of the touched words: replaced by a random word; the rest are removed


def region_dropout(mask: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Drop each region with the given probability; no sample ever loses all of its regions.

    Args:
        mask: [B, K] bool, True for valid regions.
        probability: in [0, 1).
        generator: source of randomness, on the device of `mask`.
    Returns: [B, K] bool, a subset of `mask`. A sample that would be left empty keeps all it had.
    """
    _check_probability(probability)
    drawn = torch.rand(mask.shape, generator=generator, device=mask.device)
    kept = mask & (drawn >= probability)
    return torch.where(kept.any(dim=1, keepdim=True), kept, mask)


def word_dropout(
    tokens: Tensor,
    lengths: Tensor,
    sizes: DataSizes,
    probability: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Touch each word with the given probability; the first and last token are left alone.

    Of the touched words half become the mask token, a tenth a random word, and the rest are
    removed, the words behind them moving up.

    Args:
        tokens: [B, L] int64, padded with 0; <start> first and <end> last in every row.
        lengths: [B] int64, tokens in each row.
        sizes: gives the mask token and the ids that random words are drawn from.
        probability: in [0, 1).
        generator: source of randomness, on the device of `tokens`.
    Returns: tokens [B, L] and lengths [B] of the augmented captions.
    """
    _check_probability(probability)
    device = tokens.device
    position = torch.arange(tokens.shape[1], device=device)
    valid = position < lengths[:, None]  # [B, L]
    is_word = (position > 0) & (position < lengths[:, None] - 1)
    drawn = torch.rand(tokens.shape, generator=generator, device=device) / max(probability, 1e-12)
    random_words = torch.randint(
        sizes.first_word_id,
        sizes.vocabulary_size,
        tokens.shape,
        generator=generator,
        device=device,
    )
    masked = is_word & (drawn < MASKED_SHARE)
    replaced = is_word & (drawn >= MASKED_SHARE) & (drawn < MASKED_SHARE + RANDOM_SHARE)
    removed = is_word & (drawn >= MASKED_SHARE + RANDOM_SHARE) & (drawn < 1)
    tokens = tokens.masked_fill(masked, sizes.mask_id).where(~replaced, random_words)
    kept = valid & ~removed
    order = torch.argsort((~kept).int(), dim=1, stable=True)  # kept tokens first, in order
    moved = tokens.masked_fill(~kept, 0).gather(1, order)
    return moved, kept.sum(dim=1)


def _check_probability(probability: float) -> None:
    if not 0 <= probability < 1:
        raise ValueError(
            f"probability: expected a number in [0, 1), got {probability}; 0 switches it off"
        )
