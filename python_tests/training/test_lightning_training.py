"""What the shell adds to training: chunks, mixed precision, warm-up in epochs, holds, freezing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pl = pytest.importorskip("pytorch_lightning")

from lightning_cases import make_module, make_trainer, parameters  # noqa: E402
from pytorch_lightning.plugins.precision import MixedPrecision  # noqa: E402
from pytorch_lightning.strategies import DDPStrategy  # noqa: E402

from goal_kernels.training.data_module import RetrievalDataModule  # noqa: E402
from goal_kernels.training.parallel_steps import require_unused_parameters  # noqa: E402
from goal_kernels.training.warmup import CollapseHold, WarmupSchedule  # noqa: E402


@pytest.fixture
def data(folder: Path) -> RetrievalDataModule:
    return RetrievalDataModule(str(folder), batch_size=12)


def without_batch_norm(module: pl.LightningModule) -> pl.LightningModule:
    for part in list(module.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.BatchNorm1d):
                setattr(part, name, nn.Identity())
    return module


class Watch(pl.Callback):
    """Keeps gradients as the optimiser sees them, and what `look` returns, of every step."""

    def __init__(self, look=lambda module: None) -> None:
        self.look = look
        self.gradients: list[Tensor] = []
        self.seen: list = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        found = [p.grad for p in pl_module.parameters() if p.grad is not None]
        self.gradients.append(torch.cat([gradient.flatten().clone() for gradient in found]))
        self.seen.append(self.look(pl_module))


def train(data, module, epochs: int = 1, **options) -> Watch:
    watch = Watch(options.pop("look", lambda module: None))
    trainer = make_trainer(epochs, callbacks=[watch], limit_val_batches=0, **options)
    trainer.fit(module, datamodule=data)
    return watch


@pytest.mark.parametrize(
    ("accumulated_batches", "captions", "mined"),
    [(1, None, False), (2, None, False), (1, 1, False), (1, 0, True)],
)
def test_chunks_train_as_the_whole_batch(
    folder: Path, tmp_path: Path, accumulated_batches: int, captions: int | None, mined: bool
) -> None:
    batch = 12 if captions is None else 6
    file = str(tmp_path / "mined.npz") if mined else None
    if file is not None:
        np.savez(file, i2t_indices=(np.arange(24)[:, None] * 2 + [2, 5, 9]) % 48)
    data = RetrievalDataModule(
        str(folder), batch_size=batch, captions_per_image=captions, explicit_negatives=file
    )
    modules, watches = [], []
    for chunks in (1, 4):
        options = {"accumulate_negatives": chunks, "warmup_steps": 2, "blend_steps": 1}
        modules.append(without_batch_norm(make_module(data, **options)))
        batches = {"accumulate_grad_batches": accumulated_batches}
        epochs = accumulated_batches  # of four batches, for four steps
        watches.append(train(data, modules[-1], epochs, precision="64-true", **batches))
    assert len(watches[0].gradients) == 4
    for whole, chunked in zip(*(watch.gradients for watch in watches), strict=True):
        torch.testing.assert_close(chunked, whole, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(*map(parameters, modules), rtol=1e-8, atol=1e-8)


def test_the_loss_of_images_with_their_captions_decreases(folder: Path) -> None:
    data = RetrievalDataModule(str(folder), batch_size=12, captions_per_image=0)
    losses = train(
        *(data, make_module(data, warmup_steps=20, negatives="semi_hard", lr_drop_at=1.0), 20),
        look=lambda m: m.trainer.callback_metrics["train/loss"].item(),
    ).seen
    assert len(losses) == 40
    assert sum(losses[16:20]) < 0.6 * sum(losses[:4])
    assert sum(losses[36:]) < 0.85 * sum(losses[20:24])


def test_accumulated_batches_draw_their_own_dropout(data: RetrievalDataModule) -> None:
    module = make_module(data)
    drawn = []
    original = module.model.augment

    def augment(batch, generator):
        drawn.append(generator.initial_seed())
        return original(batch, generator)

    module.model.augment = augment
    train(data, module, accumulate_grad_batches=2)
    assert len(set(drawn)) == len(drawn) == 4


def test_more_chunks_than_pairs_are_refused(data: RetrievalDataModule) -> None:
    with pytest.raises(ValueError, match=r"model\.accumulate_negatives.*13 chunks of 12 pairs"):
        train(data, make_module(data, accumulate_negatives=13))
    with pytest.raises(ValueError, match=r"model\.accumulate_negatives.*got 0"):
        make_module(data, accumulate_negatives=0)


def seen_by_the_loss(module: pl.LightningModule) -> list:
    """Dtypes that reach the loss, filled during training."""
    dtypes: list = []
    original = module.loss.forward

    def forward(pairs, **rest):
        dtypes.append((*(side.dtype for side in pairs[:2]), torch.is_autocast_enabled("cpu")))
        return original(pairs, **rest)

    module.loss.forward = forward
    return dtypes


@pytest.mark.parametrize("chunks", [1, 3])
def test_bfloat16_training_has_its_loss_in_float32(data: RetrievalDataModule, chunks: int) -> None:
    half, full = (make_module(data, accumulate_negatives=chunks) for _ in range(2))
    dtypes, products = seen_by_the_loss(half), []
    half.model.image_encoder.register_forward_hook(
        lambda *_: products.append(torch.is_autocast_enabled("cpu"))
    )
    few = {"limit_train_batches": 2}
    gradients = train(data, half, precision="bf16-mixed", **few).gradients
    assert set(dtypes) == {(torch.float32, torch.float32, False)}
    assert products == [True] * 2 * (2 * chunks if chunks > 1 else 1)
    expected = train(data, full, **few).gradients
    # Products of 8 bits change a gradient by some percent, and not its direction.
    assert torch.cosine_similarity(gradients[0], expected[0], dim=0) > 0.95
    assert all(p.dtype == torch.float32 for p in half.parameters())


@pytest.mark.parametrize("chunks", [1, 3])
def test_a_gradient_scaler_changes_nothing_but_skips_overflows(
    data: RetrievalDataModule, chunks: int
) -> None:
    class Scaled(MixedPrecision):
        """float32 with a scaler: what float16 does, on a CPU, to be compared exactly."""

        def autocast_context_manager(self):
            return torch.autocast("cpu", enabled=False)

    def trained(scaler: torch.amp.GradScaler | None):
        module = make_module(data, accumulate_negatives=chunks)
        plugins = [Scaled("16-mixed", "cpu", scaler)] if scaler else []
        return module, train(data, module, plugins=plugins, limit_train_batches=2)

    plain, expected = trained(None)
    scaled, watch = trained(torch.amp.GradScaler("cpu", init_scale=2.0**12))
    assert torch.equal(parameters(plain), parameters(scaled))
    assert torch.equal(watch.gradients[0], expected.gradients[0])
    before = parameters(make_module(data))
    overflowing, _ = trained(torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=0.9))
    assert torch.equal(parameters(overflowing), before)


def test_warm_up_in_epochs_is_counted_in_steps_of_the_optimiser(
    data: RetrievalDataModule,
) -> None:
    module = make_module(data, warmup_epochs=1.5, blend_steps=1, warmup_margin=0.3)
    seen = train(
        data, module, 4, accumulate_grad_batches=2, look=lambda m: m.loss.weight(m.global_step)
    ).seen
    assert module.loss.schedule == WarmupSchedule(3, 1, 0.3)
    assert seen == [0, 0, 0, 0.5, 1, 1, 1, 1]


def test_epochs_are_known_where_training_is_planned_in_steps(data: RetrievalDataModule) -> None:
    module = make_module(data, warmup_epochs=0.5, lr_drop_epochs=[1])
    seen = train(
        data, module, -1, max_steps=6, look=lambda m: m.optimizers().param_groups[0]["lr"]
    ).seen
    assert module.loss.schedule.warmup_steps == 2
    assert seen == pytest.approx([0.01] * 4 + [0.001] * 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup_steps": 3, "warmup_epochs": 1.0}, r"model\.warmup_steps, model\.warmup_epochs"),
        ({"warmup_epochs": -1.0}, r"model\.warmup_epochs: expected a number >= 0"),
    ],
)
def test_unusable_warm_up(data: RetrievalDataModule, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_module(data, **options)


def test_drops_in_epochs(data: RetrievalDataModule) -> None:
    module = make_module(data, lr_drop_epochs=[1, 2], optimizer="adam")
    seen = train(data, module, 3, look=lambda m: m.optimizers().param_groups[0]["lr"]).seen
    assert seen == pytest.approx([0.01] * 4 + [0.001] * 4 + [0.0001] * 4)
    assert isinstance(module.optimizers().optimizer, torch.optim.Adam)


class Collapsing(nn.Module):
    """Embeddings that are all equal in the steps of `collapsed`."""

    def __init__(self, collapsed: range) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.eye(12))
        self.collapsed = collapsed
        self.step = 0

    def augment(self, batch, generator):
        return batch

    def parameter_groups(self, lr, weight_decay):
        return [{"params": [self.rows], "lr": 0.0, "weight_decay": 0.0}]

    def forward(self, batch):
        equal = self.step in self.collapsed
        self.step += 1
        rows = self.rows[:1].expand(12, -1) if equal else self.rows
        return rows, rows


def test_collapse_holds_the_warm_up_also_across_a_resume(
    data: RetrievalDataModule, tmp_path: Path
) -> None:
    def held_module():
        module = make_module(data, warmup_steps=1, hold_on_collapse=True)
        module.loss.hold = CollapseHold(patience=2)
        module.model = Collapsing(range(2, 6))
        seen: list[float] = []
        module.loss.register_forward_pre_hook(
            lambda loss, _, given: seen.append(loss.weight(given["step"])), with_kwargs=True
        )
        return module, seen

    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            if trainer.global_step == 4:
                trainer.save_checkpoint(tmp_path / "held.ckpt")

    whole, seen = held_module()
    make_trainer(3, callbacks=[Save()], limit_val_batches=0).fit(whole, datamodule=data)
    # Steps 2 and 3 collapse: held from step 4 on. Steps 6 and 7 do not: released after them.
    assert seen == [0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1]

    state = torch.load(tmp_path / "held.ckpt", weights_only=True)["warmup"]
    assert state["hold"] == {"patience": 2, "held": True, "streak": 0, "delay": 3}
    assert (state["steps"], state["collapsed_steps"]) == (4, 2)
    second, rest = held_module()
    second.model.step = 4
    make_trainer(3, limit_val_batches=0).fit(
        second, datamodule=data, ckpt_path=str(tmp_path / "held.ckpt")
    )
    assert rest == seen[4:]
    assert second.loss.hold == whole.loss.hold


def test_a_frozen_backbone_and_the_ramp_after_it(data: RetrievalDataModule) -> None:
    module = make_module(data, frozen_epochs=1, unfreezing_epochs=1)
    blocks: list[int] = []
    module.model.set_trainable = blocks.append
    losses: list[Tensor] = []
    module.loss.register_forward_hook(lambda _, given, found: losses.append(found[0].detach()))
    returned: list[Tensor] = []

    class Returned(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            returned.append(outputs["loss"])

    make_trainer(3, callbacks=[Returned()], limit_val_batches=0).fit(module, datamodule=data)
    assert blocks == [4, 4, 3, 2]  # once more at the start, for runs that resume
    factors = [(got / loss).item() for got, loss in zip(returned, losses, strict=True)]
    assert factors == pytest.approx([1] * 4 + [0, 0.25, 0.5, 0.75] + [1] * 4)


@pytest.mark.parametrize("allowed", [True, False])
def test_freezing_for_a_while_needs_a_strategy_that_allows_it(allowed: bool) -> None:
    trainer = SimpleNamespace(strategy=DDPStrategy(find_unused_parameters=allowed))
    if allowed:
        require_unused_parameters(trainer)
    else:
        with pytest.raises(ValueError, match=r"ddp_find_unused_parameters_true"):
            require_unused_parameters(trainer)


def test_negatives_by_name_reach_the_loss_with_a_seed_of_the_step(
    data: RetrievalDataModule,
) -> None:
    def look(module: pl.LightningModule) -> tuple:
        skipped = module.trainer.callback_metrics.get("mining/skipped_negatives")
        return module.loss.objective_loss.negatives, skipped

    module = make_module(data, negatives="sampled:0.5", false_negative_ratio=0.9)
    negatives, skipped = zip(*train(data, module, look=look).seen, strict=True)
    assert {drawn.temperature for drawn in negatives} == {0.5}
    assert len({drawn.seed for drawn in negatives}) == 4
    assert min(skipped) > 0
    assert train(data, make_module(data), look=look).seen == [("hardest", None)] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"negative_memory": -1},
            r"model\.negative_memory: expected a number of rows >= 0, got -1",
        ),
        (
            {"memory_momentum": 0.9},
            r"model\.memory_momentum: expected 0 without a memory, got 0\.9",
        ),
        (
            {"negative_memory": 8, "memory_momentum": 1.0},
            r"model\.memory_momentum: expected a number in \[0, 1\), got 1\.0",
        ),
        (
            {"negative_memory": 8, "mask_same_image": False},
            r"model\.mask_same_image: expected true with model\.negative_memory",
        ),
    ],
)
def test_unusable_memory(data: RetrievalDataModule, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_module(data, **options)


@pytest.mark.parametrize("captions", [None, 2])
def test_a_memory_knows_the_images_that_come_again(folder: Path, captions: int | None) -> None:
    """Batches of all 24 images: whatever the memory holds of them is no negative of themselves."""
    batch = 48 if captions is None else 24
    data = RetrievalDataModule(str(folder), batch_size=batch, captions_per_image=captions)
    module = make_module(data, negative_memory=200)
    ids: list[Tensor] = []
    module.loss.register_forward_pre_hook(lambda _, given: ids.append(given[0].image_ids))
    train(data, module, epochs=3)
    memory = module.loss.memory.get_extra_state()
    images = torch.cat(ids)
    assert len(images) == 3 * batch
    assert torch.equal(memory["image_ids"], images)
    assert memory["text_ids"].bincount().tolist() == [6] * 24
