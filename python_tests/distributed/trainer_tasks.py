"""What the processes run that needs Lightning, whose import takes seconds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from pytorch_lightning.plugins.precision import Precision
from tasks import make_batch, make_model, own_batch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from goal_kernels.distributed import DistributedGOALLoss
from goal_kernels.distributed.gather import rank, world_size
from goal_kernels.training.data import Batch
from goal_kernels.training.finite import LOOK_EVERY, FiniteLoss, NotFiniteError
from goal_kernels.training.parallel_steps import first_pass


class TrainingStep(nn.Module):
    """What DistributedDataParallel wraps under Lightning: a module whose forward is the step."""

    def __init__(self, chunks: int) -> None:
        super().__init__()
        self.model = make_model(batch_norm=False)
        self.loss = DistributedGOALLoss("nca/sigmoid_ms", backend="reference")
        self.chunks = chunks

    def forward(self, batch: Batch, trainer: Any) -> tuple[Tensor, Any]:
        embeddings, second_pass = first_pass(self.model, batch, self.chunks, trainer)
        return self.loss(*embeddings, batch.image_ids), second_pass


def accumulated_by_the_trainer(rows: list[int], chunks: int, find_unused: bool) -> list[Tensor]:
    """Gradients of two steps as Lightning takes them: step, zero_grad, backward, second pass."""
    step = TrainingStep(chunks)
    alone = world_size() == 1
    parallel = step if alone else DistributedDataParallel(step, find_unused_parameters=find_unused)
    trainer = SimpleNamespace(model=parallel, precision_plugin=Precision())
    gradients = []
    for number in range(2):
        loss, second_pass = parallel(own_batch(make_batch(sum(rows), number), rows), trainer)
        step.zero_grad()
        loss.backward()
        second_pass()
        gradients.append(torch.cat([p.grad.flatten() for p in step.parameters()]))
    return gradients


def steps_until_not_finite(bad_rank: int, first: int) -> int:
    """The step at which a process stops when one of them has NaN losses from `first` on."""
    finite = FiniteLoss(allowed=2)
    split = SimpleNamespace(features=None)
    data = SimpleNamespace(split=lambda _: split)
    module = SimpleNamespace(device=torch.device("cpu"))
    for step in range(1, 4 * LOOK_EVERY):
        trainer = SimpleNamespace(world_size=world_size(), global_step=step, datamodule=data)
        spoiled = step >= first and rank() == bad_rank
        outputs = {"loss": torch.tensor(float("nan") if spoiled else 1.0)}
        batch = SimpleNamespace(image_ids=torch.arange(3))
        try:
            finite.on_train_batch_end(trainer, module, outputs, batch, 0)  # type: ignore[arg-type]
        except NotFiniteError:
            return step
    return -1
