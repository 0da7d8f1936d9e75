"""The average of the encoders whose embeddings `model.negative_memory` stores."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pytorch_lightning")

import torch
from lightning_cases import make_module, make_trainer

from goal_kernels.training.data_module import RetrievalDataModule
from goal_kernels.training.slow_encoders import SlowEncoders


def test_the_average_follows_once_an_optimiser_step() -> None:
    module: Any = SimpleNamespace(model=torch.nn.BatchNorm1d(3))
    trainer: Any = SimpleNamespace(global_step=7)

    def begun(**state: Any) -> SlowEncoders:
        slow = SlowEncoders(0.75)
        slow.load_state_dict(state)
        slow.on_train_start(trainer, module)
        return slow

    def average(slow: SlowEncoders) -> list[float]:
        state = slow.state_dict()
        return [state[f"module.{name}"].mean().item() for name in ("weight", "running_mean")]

    slow = begun()
    for grown in (module.model.weight.data, module.model.running_mean):
        grown += 4
    slow.on_train_batch_end(trainer, module)
    assert average(slow) == [1.0, 0.0]  # gradients are still accumulated
    trainer.global_step = 8
    slow.on_train_batch_end(trainer, module)
    slow.on_train_batch_end(trainer, module)
    assert average(slow) == [2.0, 1.0]
    assert average(begun(**slow.state_dict())) == [2.0, 1.0]
    assert average(begun()) == [5.0, 4.0]


@pytest.mark.parametrize(("chunks", "captions"), [(1, None), (3, 2)])
def test_the_memory_holds_what_the_average_says(
    folder: Path, chunks: int, captions: int | None
) -> None:
    """A batch of all images, encoded by the start weights since momentum is nearly 1."""
    batch = 48 if captions is None else 24
    data = RetrievalDataModule(str(folder), batch_size=batch, captions_per_image=captions)
    options = {"negative_memory": batch, "accumulate_negatives": chunks}
    module = make_module(data, memory_momentum=1 - 1e-9, **options)
    start = {name: weight.clone() for name, weight in module.model.state_dict().items()}
    batches: list[Any] = []
    module.model.register_forward_pre_hook(lambda _, given: batches.append(given[0]))
    trainer = make_trainer(2, limit_val_batches=0)
    trainer.fit(module, datamodule=data)
    trained = module.model.image_encoder.state_dict()
    assert any(not rows.equal(start[f"image_encoder.{name}"]) for name, rows in trained.items())
    module.model.load_state_dict(start)
    module.model.eval()
    last = batches[-1] if chunks == 1 else None
    memory = module.loss.memory.get_extra_state()
    assert len(memory["image"]) == batch
    if last is not None:
        with torch.no_grad():
            torch.testing.assert_close(memory["image"], module.model.encode_images(last.image_part))
            torch.testing.assert_close(memory["text"], module.model.encode_texts(last.text_part))
    assert all(name.startswith("model.") for name in module.state_dict())
