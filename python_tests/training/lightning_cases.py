"""A small module and a trainer that leaves no files."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor

from goal_kernels.training.data_module import RetrievalDataModule
from goal_kernels.training.lightning_module import RetrievalModule
from goal_kernels.training.options import TextOptions


def make_module(data: RetrievalDataModule, **options) -> RetrievalModule:
    torch.manual_seed(0)
    options.setdefault("text", TextOptions(word_dim=8))
    return RetrievalModule(data.sizes, embed_dim=16, lr=0.01, **options)


def make_trainer(epochs: int, **options) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        gradient_clip_val=2.0,
        **options,
    )


def parameters(module: RetrievalModule) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])
