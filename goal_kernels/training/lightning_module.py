"""The Lightning shell around the model: optimiser, schedules, logging, evaluation."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

import goal_kernels as gk
from goal_kernels.distributed import synchronize_batch_norm
from goal_kernels.negatives import named_negatives
from goal_kernels.training.accumulation import seeded
from goal_kernels.training.data import Batch, ImageBatch, TextBatch
from goal_kernels.training.evaluation import EncodedParts, Evaluation, by_name, families_of
from goal_kernels.training.joint_loss import ScoreLoss, joint_loss
from goal_kernels.training.local_weights import is_checkpoint_loading
from goal_kernels.training.matching_loss import MatchingLoss
from goal_kernels.training.model import build_model
from goal_kernels.training.objectives import make_objective
from goal_kernels.training.optimisation import (
    DroppedRate,
    DropSchedule,
    Unfreezing,
    check_amounts,
    check_rates,
    make_optimizer,
)
from goal_kernels.training.options import (
    DataSizes,
    FusionOptions,
    ImageOptions,
    ScoreOptions,
    TextOptions,
    as_options,
    plain,
    without_effect,
)
from goal_kernels.training.parallel_steps import (
    BatchShare,
    augment_share,
    first_pass,
    require_unused_parameters,
)
from goal_kernels.training.slow_encoders import SlowEncoders
from goal_kernels.training.warmup import (
    CollapsedSteps,
    CollapseHold,
    WarmedLoss,
    WarmupSchedule,
    check_memory,
)


class RetrievalModule(pl.LightningModule):
    """Trains a `VSE` model with a GOAL objective after a warm-up on all negatives.

    Args:
        sizes: what the model must know of the data; the command line takes it from there.
        image: the image encoder.
        text: the text encoder.
        scores: of pairs, from regions and words, trained beside the embeddings; off by default.
        fusion: cross attention with a matching head, which re-ranks; off by default.
        embed_dim: width of the joint space.
        objective: of the embeddings: "triplet/pair" or, for those that are not normalised,
            "triplet/pair/direction", see `goal-kernels objectives`; or a baseline over all
            negatives, "sum_of_hinges" or "info_nce" (similarities are multiplied by tau).
        objective_parameters: hyper-parameters of the objective, e.g. {"margin": 0.2}.
        warmup_steps: optimiser steps of `sum_of_hinges` before the objective.
        warmup_epochs: the same in epochs, which may be fractions; give one of the two.
        warmup_margin: of those hinges, a similarity; null: that of the objective.
        blend_steps: optimiser steps over which the objective then takes over.
        hold_on_collapse: stay in the warm-up, or go back to it, while training is collapsed.
        mask_same_image: captions of one image are never each other's negatives; false for the
            papers' behaviour, where they are (not with data.captions_per_image).
        negatives: which candidates become an anchor's: "hardest"; "semi_hard", the hardest below
            the positive; "skip:N", the hardest but N others; "top:N", the N hardest, averaged;
            "sampled:T", drawn with probability ~ exp(similarity / T), anew each step.
        false_negative_margin: leave out candidates that score above the positive by more than this.
        false_negative_ratio: leave out candidates that score above the positive times this.
        negative_memory: images and texts of earlier batches, so many of each, that are negatives of
            the objective too; 0: none.
        memory_momentum: the memory holds embeddings by an average of the encoders, which keeps this
            share of itself each step, say 0.995; 0: those by the encoders themselves.
        accumulate_negatives: chunks that a batch is encoded in, twice, to need the memory of one;
            every pair still meets the negatives of the whole batch. 1 encodes it at once.
        optimizer: "adamw" or "adam".
        lr: learning rate.
        weight_decay: of the optimiser.
        lr_drop_at: fraction of all steps after which the learning rate drops to a tenth; 0.6 when
            none of the three is given.
        lr_drop_epochs: it drops at the start of each of these epochs, counted from 0, instead.
        lr_drop_steps: it drops after each of these numbers of optimiser steps, instead.
        frozen_epochs: epochs with the image backbone frozen; the loss is ramped up in the next one.
        unfreezing_epochs: epochs with 3, then 2, then 1 of its 4 blocks still frozen.
        backend: of the loss, "auto" or a name from `goal-kernels backends`.
        seed: of the augmentation, together with the step.
    """

    def __init__(
        self,
        sizes: DataSizes | dict[str, int],
        image: ImageOptions | None = None,
        text: TextOptions | None = None,
        scores: ScoreOptions | None = None,
        fusion: FusionOptions | None = None,
        embed_dim: int = 1024,
        objective: str = "hinge/constant",
        objective_parameters: dict[str, float] | None = None,
        warmup_steps: int = 0,
        warmup_epochs: float = 0.0,
        warmup_margin: float | None = None,
        blend_steps: int = 0,
        hold_on_collapse: bool = False,
        mask_same_image: bool = True,
        negatives: str = "hardest",
        false_negative_margin: float | None = None,
        false_negative_ratio: float | None = None,
        negative_memory: int = 0,
        memory_momentum: float = 0.0,
        accumulate_negatives: int = 1,
        optimizer: str = "adamw",
        lr: float = 5e-4,
        weight_decay: float = 1e-4,
        lr_drop_at: float | None = None,
        lr_drop_epochs: list[int] | None = None,
        lr_drop_steps: list[int] | None = None,
        frozen_epochs: int = 0,
        unfreezing_epochs: int = 0,
        backend: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        image, text = as_options(ImageOptions, image), as_options(TextOptions, text)
        sizes, scores = as_options(DataSizes, sizes), as_options(ScoreOptions, scores)
        fusion = as_options(FusionOptions, fusion)
        self.save_hyperparameters(plain(type(self), locals()))
        check_amounts(warmup_steps, warmup_epochs, accumulate_negatives)
        check_rates(lr=lr, weight_decay=weight_decay)
        check_memory(negative_memory, mask_same_image, memory_momentum)
        self.objective = make_objective(objective, objective_parameters)
        pretrained = not is_checkpoint_loading()
        self.model = build_model(image, text, sizes, embed_dim, pretrained, scores, fusion)
        schedule = WarmupSchedule(warmup_steps, blend_steps, warmup_margin)
        scorer, matcher = self.model.scorer, self.model.fusion
        self.loss = WarmedLoss(
            self.objective,
            schedule,
            backend,
            CollapseHold() if hold_on_collapse else None,
            negative_memory,
            mined_for_matching=matcher is not None and scorer is None,
            negatives=named_negatives(negatives, "model.negatives"),
            false_negative_margin=false_negative_margin,
            false_negative_ratio=false_negative_ratio,
        )
        self.score_loss = (
            ScoreLoss(scorer, scores, schedule, backend, matcher is not None) if scorer else None
        )
        self.matching_loss = MatchingLoss(matcher) if matcher else None
        self.lr_drops = DropSchedule(lr_drop_at, lr_drop_epochs, lr_drop_steps)
        self.unfreezing = Unfreezing(frozen_epochs, unfreezing_epochs)
        self.mask_same_image = mask_same_image
        self.accumulate_negatives = accumulate_negatives
        self.seed = seed
        self.evaluation: Evaluation | None = None
        self.statistics: gk.MiningStatistics | None = None
        self._parts = EncodedParts()
        self._collapse = CollapsedSteps()
        self._second_pass: Callable[[], None] | None = None
        self.slow = SlowEncoders(memory_momentum) if memory_momentum else None

    def configure_model(self) -> None:
        """Make several processes train as one, before a strategy wraps this module."""
        if self.trainer.world_size > 1:
            synchronize_batch_norm(self.model)
            # Batch statistics are equal everywhere already, and buffers that grow with the batch
            # may differ in size between processes: there is nothing to broadcast.
            self._ddp_params_and_buffers_to_ignore = [name for name, _ in self.named_buffers()]
            if self.unfreezing.planned or (self.matching_loss and self.matching_loss.starts_late):
                require_unused_parameters(self.trainer)

    def configure_callbacks(self) -> list[Any]:
        """The average of the encoders follows them."""
        return [] if self.slow is None else [self.slow]

    def setup(self, stage: str) -> None:
        """Start word vectors from the file that the options name; a checkpoint's follow.

        Raises: ValueError when the options of model and data contradict each other.
        """
        trainer: Any = self.trainer
        if stage != "fit":
            return
        several = getattr(trainer.datamodule, "captions_per_image", None) is not None
        if several and not self.mask_same_image:
            raise ValueError(
                "model.mask_same_image: expected true with data.captions_per_image, where captions "
                "of one image are never each other's negatives, got false; leave one of them out"
            )
        for part, kind in (("scores", ScoreOptions), ("fusion", FusionOptions)):
            # Not an error: recipes that switch a part off keep what their base says of it.
            said = without_effect(part, as_options(kind, self.hparams[part]))
            if said and trainer.is_global_zero:
                print(f"WARNING: {said}", file=sys.stderr)
        if self.hparams["text"]["word_vectors"] is None:
            return
        coverage = self.model.load_word_vectors(trainer.datamodule.vocabulary.words)
        if coverage is not None and trainer.is_global_zero:
            print(coverage, flush=True)

    def configure_optimizers(self) -> Any:
        """The optimiser, with drops of the learning rate counted in steps."""
        options = self.hparams
        groups = self.model.parameter_groups(options["lr"], options["weight_decay"])
        optimizer = make_optimizer(options["optimizer"], groups)
        total_steps = self.trainer.estimated_stepping_batches
        steps_per_epoch = self._steps_per_epoch()
        if options["warmup_epochs"]:
            warmup_steps = round(options["warmup_epochs"] * steps_per_epoch)
            for loss in filter(None, (self.loss, self.score_loss)):
                loss.schedule = replace(loss.schedule, warmup_steps=warmup_steps)
        if self.matching_loss is not None:
            self.matching_loss.start_after(steps_per_epoch)
        rate = DroppedRate(self.lr_drops.drop_steps(total_steps, steps_per_epoch))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, rate),
                "interval": "step",
            },
        }

    def _steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch."""
        trainer = self.trainer
        if trainer.train_dataloader is None:  # training that is planned in steps has not looked yet
            trainer.fit_loop.setup_data()
        return math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)

    def on_train_start(self) -> None:
        """Freeze what does not train now, also when the run resumes within an epoch."""
        self._freeze()

    def on_train_epoch_start(self) -> None:
        """Start counting collapsed steps."""
        self._collapse = CollapsedSteps()
        self._freeze()

    def _freeze(self) -> None:
        if self.unfreezing.planned:
            self.model.set_trainable(self.unfreezing.fixed_blocks(self.current_epoch))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch, [] float32."""
        # Seeded by the step, a resumed run draws what the uninterrupted one would have.
        micro_batch = batch_idx % self.trainer.accumulate_grad_batches
        seed = self.seed + (self.global_step << 20) + (micro_batch << 50)
        generator = torch.Generator(self.device)
        generator.manual_seed(seed)
        share = BatchShare.of(batch)
        batch = augment_share(self.model, batch, share, generator)
        self.log("warmup/objective_weight", self.loss.weight(self.global_step))
        if self.loss.hold is not None:
            self.log("warmup/held", float(self.loss.hold.held))
        with seeded(self.device, self.seed, self.global_step, micro_batch, share.rank):
            loss, statistics, found = joint_loss(
                *(self.loss, self.score_loss, self.matching_loss, self._encode(batch), share),
                *(self.global_step, seed, batch.relation(self.mask_same_image)),
                None if self.slow is None else self.slow.encode(batch, self.accumulate_negatives),
            )
        self.log_dict(found)
        self.log("train/loss", loss.detach(), prog_bar=True)
        self.statistics = statistics
        self._collapse.count(statistics)
        done = batch_idx / self.trainer.num_training_batches
        return loss * self.unfreezing.loss_factor(self.current_epoch, done)

    def _encode(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the model makes of a batch; in chunks, a second pass is left for `backward`."""
        if self.accumulate_negatives == 1:
            return self.model(batch)
        embeddings, self._second_pass = first_pass(
            self.model, batch, self.accumulate_negatives, self.trainer
        )
        return embeddings

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Backward of the loss, then of the chunks when there are any."""
        loss.backward(*args, **kwargs)
        if self._second_pass is not None:
            second_pass, self._second_pass = self._second_pass, None
            second_pass()

    def on_train_epoch_end(self) -> None:
        """Warn when most steps of the epoch ran on collapsed embeddings."""
        if warning := self._collapse.warning(self.current_epoch + 1):
            rank_zero_warn(warning)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state of the loss and the collapsed steps of this epoch."""
        resumable = "optimizer_states" in checkpoint  # else it is a file of weights
        state = self.loss.resume_state(with_memory=resumable)
        collapse = self._collapse
        counts = {"steps": collapse.steps, "collapsed_steps": int(collapse.collapsed)}
        checkpoint["warmup"] = {**state, **counts}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the state of the loss; weights alone (for evaluation) may come without."""
        if (state := checkpoint.get("warmup")) is not None:
            self.loss.load_resume_state(state)
            self._collapse = CollapsedSteps(state["steps"], state["collapsed_steps"])

    def validation_step(
        self, batch: ImageBatch | TextBatch, _: int, dataloader_idx: int = 0
    ) -> None:
        """Encode images (first loader) or captions (second), each exactly once."""
        if isinstance(batch, ImageBatch):
            self._parts.images.append(self.model.image_side(batch))
        else:
            self._parts.add_texts(self.model.text_side(batch), batch)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Rank, log `val/...` and `val/rsum`."""
        self._finish_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """Rank, log `test/...` and keep everything in `self.evaluation`."""
        self._finish_evaluation("test")

    def _finish_evaluation(self, stage: str) -> None:
        """Rank and log."""
        parts, self._parts = self._parts, EncodedParts()
        trainer: Any = self.trainer
        with torch.autocast(self.device.type, enabled=False):
            self.evaluation = parts.evaluate(self.model, families_of(trainer.datamodule, stage))
        # Every process has found the same; the largest of equal numbers is that number.
        options: Any = {"sync_dist": trainer.world_size > 1, "reduce_fx": "max"}
        self.log_dict(by_name(stage, self.evaluation), **options)
        self.log(f"{stage}/rsum", self.evaluation.metrics["rsum"], prog_bar=True, **options)
