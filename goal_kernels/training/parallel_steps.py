"""DistributedDataParallel under Lightning with two passes a step and with frozen parameters."""

from __future__ import annotations

from collections.abc import Callable

import pytorch_lightning as pl
from pytorch_lightning.overrides.distributed import prepare_for_backward
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from goal_kernels.training.accumulation import ChunkedEncoding
from goal_kernels.training.batch_share import split_batch
from goal_kernels.training.data import Batch
from goal_kernels.training.model import VSE

Embeddings = tuple[Tensor, Tensor]


def first_pass(
    model: VSE, batch: Batch, chunks: int, trainer: pl.Trainer
) -> tuple[Embeddings, Callable[[], None]]:
    """Embed a batch in chunks, inside `training_step`.

    Returns: image and text embeddings [B, D], leaves of a graph; and the second pass, to be run in
        the module's `backward` after that of the loss, once gradients have been cleared.
    """

    def encode(chunk: Batch) -> Embeddings:
        # The trainer's autocast does not reach into `backward`, where the second pass runs.
        with trainer.precision_plugin.forward_context():
            return model(chunk)

    encoding = ChunkedEncoding(encode, split_batch(batch, chunks), model)
    parallel = trainer.model
    if not isinstance(parallel, DistributedDataParallel):
        return encoding.embed(), encoding.backward
    # The reducer averages after the one backward it is prepared for. That is the last chunk's, when
    # the others have left their gradients already; so it must not be prepared after this step.
    averages = parallel.require_backward_grad_sync
    parallel.require_backward_grad_sync = False

    def prepare(embeddings: tuple[Tensor, ...]) -> None:
        parallel.require_backward_grad_sync = averages
        prepare_for_backward(parallel, embeddings)

    return encoding.embed(), lambda: encoding.backward(before_last=prepare)


def require_unused_parameters(trainer: pl.Trainer) -> None:
    """See that DistributedDataParallel can do with parameters that are frozen for a while.

    Raises: ValueError naming the strategy that can.
    """
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get(
        "find_unused_parameters", False
    ):
        raise ValueError(
            "trainer.strategy: expected ddp_find_unused_parameters_true, since "
            "model.frozen_epochs and model.unfreezing_epochs change what trains; got one that "
            "waits for the gradient of every parameter"
        )
