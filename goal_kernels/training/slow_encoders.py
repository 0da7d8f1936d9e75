"""An exponential average of the encoders, whose embeddings change slowly enough to be stored."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from goal_kernels.training.data import Batch
from goal_kernels.training.parallel_steps import split_batch
from goal_kernels.training.pooling import widened


class SlowEncoders(Callback):
    """What a `NegativeMemory` stores, as in MoCo and ALBEF, without gradient and dropout.

    Resume points hold the average; it has no part in evaluation.

    Args: momentum: the share of itself that the average keeps each optimiser step, in [0, 1).
    """

    def __init__(self, momentum: float) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(
                f"model.memory_momentum: expected a number in [0, 1), got {momentum}; 0.995 is "
                "usual"
            )
        self.momentum = momentum
        self._average: AveragedModel | None = None
        self._state: dict[str, Any] = {}
        self._step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with the weights of the model, or where the resumed run was."""
        average = get_ema_multi_avg_fn(self.momentum)
        model: Any = pl_module.model
        self._average = AveragedModel(model, multi_avg_fn=average, use_buffers=True).eval()
        self._average.n_averaged += 1  # the first update averages too
        if self._state:
            self._average.load_state_dict(self._state)
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Follow the model, once an optimiser step."""
        assert self._average is not None
        model: Any = pl_module.model
        if trainer.global_step > self._step:
            self._average.update_parameters(model)
        self._step = trainer.global_step

    @torch.no_grad()
    def encode(self, batch: Batch, chunks: int) -> tuple[Tensor, Tensor]:
        """Embeddings of images and of captions, [N, D] and [M, D], made in so many chunks."""
        assert self._average is not None
        model: Any = self._average.module
        parts = [
            (model.encode_images(part.image_part), model.encode_texts(part.text_part))
            for part in split_batch(batch, chunks)
        ]
        images, texts = (widened(torch.cat(side)) for side in zip(*parts, strict=True))
        return images, texts

    def state_dict(self) -> dict[str, Any]:
        """The average, for resume points."""
        return {} if self._average is None else self._average.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up when training starts."""
        self._state = state_dict
