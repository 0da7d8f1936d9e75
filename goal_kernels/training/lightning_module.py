"""The Lightning shell around the dual encoder: optimiser, schedule, logging, evaluation."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from inspect import signature
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

import goal_kernels as gk
from goal_kernels.training.data import Batch, ImageBatch, TextBatch
from goal_kernels.training.evaluation import Evaluation, evaluate
from goal_kernels.training.model import build_model
from goal_kernels.training.options import DataSizes, ImageOptions, TextOptions, as_options
from goal_kernels.training.warmup import WarmedLoss, WarmupSchedule

LR_DROP_FACTOR = 0.1  # of the learning rate, once; VSE-infinity


class RetrievalModule(pl.LightningModule):
    """Trains a `VSE` model with a GOAL objective after a warm-up on all negatives.

    Args:
        sizes: what the model must know of the data; the command line takes it from there.
        image: the image encoder.
        text: the text encoder.
        embed_dim: width of the joint space.
        objective: "triplet/pair", see `goal-kernels objectives`.
        objective_parameters: hyper-parameters of the objective, e.g. {"margin": 0.2}.
        warmup_steps: optimiser steps of `sum_of_hinges` before the objective.
        blend_steps: optimiser steps over which the objective then takes over.
        mask_same_image: captions of one image are never each other's negatives.
        lr: learning rate of AdamW.
        weight_decay: of AdamW.
        lr_drop_at: fraction of all steps after which the learning rate drops to a tenth.
        backend: of the loss, "auto" or a name from `goal-kernels backends`.
        seed: of the augmentation, together with the step.
    """

    def __init__(
        self,
        sizes: DataSizes | dict[str, int],
        image: ImageOptions | None = None,
        text: TextOptions | None = None,
        embed_dim: int = 1024,
        objective: str = "hinge/constant",
        objective_parameters: dict[str, float] | None = None,
        warmup_steps: int = 0,
        blend_steps: int = 0,
        mask_same_image: bool = True,
        lr: float = 5e-4,
        weight_decay: float = 1e-4,
        lr_drop_at: float = 0.6,
        backend: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        image, text = as_options(ImageOptions, image), as_options(TextOptions, text)
        sizes = as_options(DataSizes, sizes)
        given = dict(locals())
        # Plain types: a checkpoint is then readable without running any code it might hold.
        plain = {
            name: asdict(given[name]) if is_dataclass(given[name]) else given[name]
            for name in signature(type(self)).parameters
        }
        self.save_hyperparameters(plain)
        triplet, _, pair = objective.partition("/")
        options: dict[str, Any] = dict(objective_parameters or {})
        self.objective = gk.Objective(triplet, pair, **options)
        self.model = build_model(image, text, sizes, embed_dim)
        self.loss = WarmedLoss(self.objective, WarmupSchedule(warmup_steps, blend_steps), backend)
        self.lr, self.weight_decay, self.lr_drop_at = lr, weight_decay, lr_drop_at
        self.mask_same_image = mask_same_image
        self.seed = seed
        self.evaluation: Evaluation | None = None
        self._images: list[Tensor] = []
        self._texts: list[Tensor] = []
        self._image_ids: list[Tensor] = []
        self._steps = 0
        self._collapsed_steps = torch.zeros((), dtype=torch.int64)

    def setup(self, stage: str) -> None:
        """Start word vectors from the file that the options name; a checkpoint's follow."""
        if stage != "fit" or self.hparams["text"]["word_vectors"] is None:
            return
        trainer: Any = self.trainer
        coverage = self.model.load_word_vectors(trainer.datamodule.vocabulary.words)
        if coverage is not None and trainer.is_global_zero:
            print(coverage, flush=True)

    def configure_optimizers(self) -> Any:
        """AdamW, with one drop of the learning rate counted in steps."""
        optimizer = torch.optim.AdamW(self.model.parameter_groups(self.lr, self.weight_decay))
        drop_step = round(self.lr_drop_at * self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 1.0 if step < drop_step else LR_DROP_FACTOR
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Loss of one batch, [] float32."""
        # Seeded by the step, so that a resumed run draws what the uninterrupted one would have.
        generator = torch.Generator(self.device).manual_seed(self.seed + (self.global_step << 20))
        images, texts = self.model(self.model.augment(batch, generator))
        ids = batch.image_ids if self.mask_same_image else None
        loss, statistics = self.loss(images, texts, ids, self.global_step)
        self.log("train/loss", loss.detach(), prog_bar=True)
        self._log_statistics(statistics)
        return loss

    def _log_statistics(self, statistics: gk.MiningStatistics) -> None:
        """Log what mining found and count collapsed steps; the device is never waited for."""
        self.log_dict(
            {
                "mining/mean_positive": statistics.mean_positive,
                "mining/mean_hardest_negative": statistics.mean_hardest_negative,
                "mining/active_fraction": statistics.active_fraction,
            }
        )
        self._collapsed_steps += statistics.collapsed
        self._steps += 1

    def on_train_epoch_start(self) -> None:
        """Start counting collapsed steps."""
        self._collapsed_steps = torch.zeros((), dtype=torch.int64, device=self.device)
        self._steps = 0

    def on_train_epoch_end(self) -> None:
        """Warn when most steps of the epoch ran on collapsed embeddings.

        Most, since the first steps of a healthy run may start from embeddings that are all alike.
        """
        collapsed = int(self._collapsed_steps)
        if 2 * collapsed > self._steps:
            rank_zero_warn(
                f"COLLAPSED: in {collapsed} of {self._steps} steps of epoch "
                f"{self.current_epoch + 1} all similarities were nearly equal, so nothing is "
                "learnt. Warm up longer (--model.warmup_steps), blend in (--model.blend_steps) or "
                "lower the learning rate (--model.lr)."
            )

    def validation_step(
        self, batch: ImageBatch | TextBatch, _: int, dataloader_idx: int = 0
    ) -> None:
        """Encode images (first loader) or captions (second), each exactly once."""
        if isinstance(batch, ImageBatch):
            self._images.append(self.model.encode_images(batch).float())
        else:
            self._texts.append(self.model.encode_texts(batch).float())
            self._image_ids.append(batch.image_ids)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Rank, log `val/...` and `val/rsum`."""
        self._finish_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """Rank, log `test/...` and keep everything in `self.evaluation`."""
        self._finish_evaluation("test")

    def _finish_evaluation(self, stage: str) -> None:
        parts = (self._images, self._texts, self._image_ids)
        self.evaluation = evaluate(*(torch.cat(part).cpu() for part in parts))
        for part in parts:
            part.clear()
        metrics = self.evaluation.metrics
        for direction in ("i2t", "t2i"):
            for name, value in metrics[direction].items():
                self.log(f"{stage}/{direction}_{name}", float(value))
        self.log(f"{stage}/rsum", float(metrics["rsum"]), prog_bar=True)
