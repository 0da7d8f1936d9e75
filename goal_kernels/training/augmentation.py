"""Train-time augmentation on whole batches: parts of images and words left out at random."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from goal_kernels.training.data import TextBatch
from goal_kernels.training.options import DataSizes
from goal_kernels.training.tokenizers import NO_WORD

MASKED_SHARE = 0.5  # of the touched words: replaced by the mask token, VSE-infinity
RANDOM_SHARE = 0.1  # of the touched words: replaced by a random word; the rest are removed
WHOLE_SHARE = 0.2  # of images keep every cell in size augmentation, VSE-infinity


def region_dropout(mask: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Drop each region with the given probability; no sample ever loses all of its regions.

    Args:
        mask: [B, K] bool, True for valid regions.
        probability: in [0, 1).
        generator: source of randomness, on the device of `mask`.
    Returns: [B, K] bool, a subset of `mask`. A sample that would be left empty keeps all it had.
    """
    drawn = _uniform(mask.shape, generator, mask.device)
    return _never_empty(mask & (drawn >= probability), mask)


def size_augmentation(mask: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Drop cells of feature maps, another share in every image.

    Four images in five draw u uniform in (0.2, 1) and lose each cell with `probability` * u.

    Args:
        mask: [B, K] bool, True for valid cells.
        probability: in [0, 1); 0.2 in VSE-infinity.
        generator: source of randomness, on the device of `mask`.
    Returns: [B, K] bool, a subset of `mask`. A sample that would be left empty keeps all it had.
    Source: VSE-infinity, the size augmentation of its grid encoder.
    """
    share = _uniform((mask.shape[0], 1), generator, mask.device)  # [B, 1]
    drawn = _uniform(mask.shape, generator, mask.device)
    kept = (share <= WHOLE_SHARE) | (drawn >= probability * share)
    return _never_empty(mask & kept, mask)


def word_dropout(
    batch: TextBatch, sizes: DataSizes, probability: float, generator: torch.Generator
) -> TextBatch:
    """Touch each word with the given probability; special tokens are left alone.

    Of the touched words half become the mask token, a tenth random words, and the rest are
    removed, the words behind them moving up. A word of several pieces is touched as a whole: every
    piece is masked, replaced by a piece drawn for it alone, or removed.

    Args:
        batch: B captions.
        sizes: gives the mask token and the ids that random words are drawn from.
        probability: in [0, 1).
        generator: source of randomness, on the device of the tokens.
    Returns: the augmented captions; words that are left keep their numbers in `words`.
    Source: VSE-infinity.
    """
    tokens, words = batch.tokens, batch.words
    device = tokens.device
    position = torch.arange(tokens.shape[1], device=device)
    valid = position < batch.lengths[:, None]  # [B, L]
    is_word = words != NO_WORD
    drawn = _uniform(tokens.shape, generator, device) / max(probability, 1e-12)
    drawn = drawn.gather(1, _first_piece(words))
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
    return batch._replace(
        tokens=tokens.masked_fill(~kept, 0).gather(1, order),
        lengths=kept.sum(dim=1),
        words=words.masked_fill(~kept, NO_WORD).gather(1, order),
    )


def _uniform(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """U(0, 1) in float32, whatever the default: halves are too coarse for a probability."""
    return torch.rand(shape, generator=generator, device=device, dtype=torch.float32)


def _first_piece(words: Tensor) -> Tensor:
    """[B, L] position of the first piece of the word that each token belongs to."""
    position = torch.arange(words.shape[1], device=words.device)
    starts = torch.ones_like(words, dtype=torch.bool)
    starts[:, 1:] = words[:, 1:] != words[:, :-1]
    return (position * starts).cummax(dim=1).values


def _never_empty(kept: Tensor, mask: Tensor) -> Tensor:
    """[B, K] `kept`, except for samples that would be left with nothing."""
    return torch.where(kept.any(dim=1, keepdim=True), kept, mask)
