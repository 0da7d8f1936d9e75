"""Image-text matching: whether a caption belongs to an image, on positives and mined negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

import goal_kernels as gk
from goal_kernels.distributed import GatheredPairs, sharing
from goal_kernels.training.fusion import Fusion
from goal_kernels.training.parallel_steps import BatchShare, shared_tokens
from goal_kernels.training.scoring import TokenSet
from goal_kernels.training.warmup import WarmupSchedule
from goal_kernels.whole_batch.shares import current_share


class MatchingLoss:
    """Loss of the matching head over the pairs of all processes and two negatives of each.

    Equals, s being logits of a pair j, of its image with another text, and of its text with
    another image: sum_j softplus(-s_j) + sum_n [softplus(s_n) + ranking_weight softplus(s_n - s_j)]
    times `weight`; of fewer pairs than all the sum is scaled up. Each process fuses its share.
    Source: cross entropy of positives and one negative of either side as in ALBEF (Li et al.,
    NeurIPS 2021).

    Args: fusion: of the model.

    Attributes: schedule: how much of the loss counts; may be replaced before training.
    """

    def __init__(self, fusion: Fusion) -> None:
        self.fusion, self.options = fusion, fusion.options
        self.schedule = WarmupSchedule(0, self.options.blend_steps)

    @property
    def starts_late(self) -> bool:
        """Whether there are steps without it."""
        return self.options.start_epochs > 0

    def start_after(self, steps_per_epoch: int) -> None:
        """Turn `start_epochs` into optimiser steps."""
        start = round(self.options.start_epochs * steps_per_epoch)
        self.schedule = replace(self.schedule, warmup_steps=start)

    def __call__(
        self,
        tokens: Sequence[Tensor],
        share: BatchShare,
        pairs: GatheredPairs,
        mined: gk.MiningStatistics,
        step: int,
        seed: int,
    ) -> tuple[Tensor, Tensor]:
        """Loss of a batch, [] float32, and the share of negatives below their positive, [].

        Args:
            tokens: values and weights of the images, then of the captions, of this process.
            share: of this process.
            pairs: of all processes. mined: their negatives.
            step: optimiser steps taken so far.
            seed: of random negatives, another one each step.
        """
        weight = self.schedule.weight(step)
        if weight == 0:
            nothing = tokens[0].new_zeros(())
            return nothing, nothing
        random_share = 1 - weight * (1 - self.options.random_share)
        chosen = choose_pairs(pairs, mined, random_share, self.options.pairs, seed)
        with sharing():
            own = current_share()
            images, texts = shared_tokens(tokens, share)
            owner, text, other_text, other_image = chosen[:, own.part(chosen.shape[1])]
            columns = torch.stack([text, other_text, text])
            rows = torch.stack([owner, owner, other_image])
            counted = (rows >= 0) & (columns >= 0) & (owner >= 0)
            rows, columns = (index.clamp_min(0).flatten() for index in (rows, columns))
            sides = (TokenSet(*(x[i] for x in s)) for s, i in ((images, rows), (texts, columns)))
            logits = self.fusion.pairs(*sides).view(3, -1)
            positive, negative = logits[0], logits[1:]
            signs = torch.tensor([-1.0, 1.0, 1.0], device=logits.device)[:, None]
            terms = F.softplus(signs * logits)
            ranked = self.options.ranking_weight * F.softplus(negative - positive)
            terms = torch.cat([terms[:1], terms[1:] + ranked])
            loss = torch.where(counted, terms, 0.0).sum()
            below = (negative < positive) & counted[1:]
            found = torch.stack([loss.detach(), below.sum(), counted[1:].sum()])
            total, right, number = own.add(found).unbind()
        # Gradients of parameters are averaged over processes; the value is that of all of them.
        local = loss * len(share.rows)
        loss = local + (total - local.detach())
        scale = self.options.weight * weight * len(pairs.text_embeddings) / chosen.shape[1]
        return scale * loss, right / number.clamp_min(1)


def choose_pairs(
    pairs: GatheredPairs,
    mined: gk.MiningStatistics,
    random_share: float,
    count: int | None,
    seed: int,
) -> Tensor:
    """Image, text, negative text of the image and negative image of the text: [4, P] int64.

    -1 stands for none. All M texts, or so many of them as `count`, drawn. Negatives are those that
    mining found, or drawn from all that are none of the anchor's own: with probability
    `random_share`, and where mining found none in the batch (a memory's rows are only embeddings).
    The same in every process.
    """
    images, texts, ids, of_texts, owner = pairs
    exempt = None if owner is None else owner < 0
    drawn = gk.mine(
        torch.zeros_like(images[:, :1]),
        torch.zeros_like(texts[:, :1]),
        text_to_image=owner,
        image_ids=ids,
        text_ids=of_texts,
        exempt_texts=exempt,
        negatives=gk.Sampled(1.0, seed),
    )
    every = torch.arange(len(texts), device=texts.device)
    owner = every if owner is None else owner
    random = torch.stack([drawn.hardest_text[owner.clamp_min(0)], drawn.hardest_image])
    hard = torch.stack([mined.hardest_text[: len(every)], mined.hardest_image[: len(every)]])
    sizes = hard.new_tensor([[len(texts)], [len(images)]])
    generator = torch.Generator(owner.device)
    generator.manual_seed(seed)
    coins = torch.rand(hard.shape, generator=generator, device=owner.device)
    keep = (hard >= 0) & (hard < sizes) & (coins >= random_share)
    found = torch.cat([owner[None], every[None], torch.where(keep, hard, random)])
    if count is None or count >= len(every):
        return found
    return found[:, torch.randperm(len(every), generator=generator, device=owner.device)[:count]]
