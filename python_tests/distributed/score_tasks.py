"""A step of a model that scores and matches pairs, as the processes of the tests take it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from pytorch_lightning.plugins.precision import Precision
from tasks import REGION_DIM, WORDS, make_batch, make_captioned, own_batch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from goal_kernels.distributed.gather import world_size
from goal_kernels.training.data import Batch
from goal_kernels.training.joint_loss import ScoreLoss, joint_loss
from goal_kernels.training.matching_loss import MatchingLoss
from goal_kernels.training.model import build_model
from goal_kernels.training.objectives import make_objective
from goal_kernels.training.options import (
    DataSizes,
    FusionOptions,
    ImageOptions,
    ScoreOptions,
    TextOptions,
)
from goal_kernels.training.parallel_steps import BatchShare, first_pass
from goal_kernels.training.warmup import WarmedLoss, WarmupSchedule


class ScoreStep(nn.Module):
    """What DistributedDataParallel wraps under Lightning: a module whose forward is the step."""

    def __init__(self, chunks: int, objective: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        options = ScoreOptions(
            kind="late", width=4, objective=objective, block=30, pooling="learned"
        )
        image, text = ImageOptions(mlp=False), TextOptions(word_dim=6)
        sizes = DataSizes(REGION_DIM, WORDS)
        fusion = FusionOptions(layers=1, width=4, heads=2, aligned=True, pairs=9)
        self.model = build_model(image, text, sizes, 8, scores=options, fusion=fusion).double()
        assert self.model.scorer is not None
        assert self.model.fusion is not None
        nn.init.normal_(self.model.fusion.head.weight)
        self.matching = MatchingLoss(self.model.fusion)
        self.loss = WarmedLoss(make_objective("info_nce"), WarmupSchedule(), "auto")
        self.score_loss = ScoreLoss(self.model.scorer, options, WarmupSchedule(), "auto")
        self.chunks = chunks

    def forward(self, batch: Batch, trainer: Any) -> tuple[Tensor, Any]:
        share = BatchShare.of(batch)
        encoded, second_pass = first_pass(self.model, batch, self.chunks, trainer)
        relation = batch.relation(mask_same_image=True)
        losses = self.loss, self.score_loss, self.matching
        loss, *_ = joint_loss(*losses, encoded, share, 0, 0, relation)
        return loss, second_pass


def scored(rows: list[int], chunks: int, objective: str, captioned: bool) -> list[Tensor]:
    """Loss and gradients of two steps as Lightning takes them."""
    step = ScoreStep(chunks, objective)
    parallel = step if world_size() == 1 else DistributedDataParallel(step)
    trainer = SimpleNamespace(model=parallel, precision_plugin=Precision())
    make = make_captioned if captioned else make_batch
    found = []
    for number in range(2):
        loss, second_pass = parallel(own_batch(make(sum(rows), number), rows), trainer)
        step.zero_grad()
        loss.backward()
        second_pass()
        found += [loss.detach()[None]]
        found += [torch.cat([p.grad.flatten() for p in step.parameters()])]
    return found
