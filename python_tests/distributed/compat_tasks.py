"""What processes run to test the adapters of `goal_kernels.compat`."""

from __future__ import annotations

from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch

# ClipLoss gathers through it, and it keeps the process group that it was imported under: none.
import torch.distributed.nn
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from goal_kernels.compat.open_clip import GOALClipLoss
from goal_kernels.compat.sentence_transformers import GOALLoss
from goal_kernels.distributed.gather import rank, world_size

SCALE = 10.0


class Columns(nn.Module):
    """Columns [B, C, 5] -> C unit embeddings [B, 4], a scale and a bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.projection = nn.Linear(5, 4, dtype=torch.float64)
        self.scale = nn.Parameter(torch.tensor(SCALE, dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor(-SCALE, dtype=torch.float64))

    def forward(self, columns: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        embeddings = F.normalize(self.projection(columns), dim=-1)
        return list(embeddings.unbind(dim=1)), self.scale, self.bias


def _backward(loss_of: Any, rows: list[int], columns: int) -> tuple[float, Tensor]:
    """Loss, and the gradient of the projection after DistributedDataParallel."""
    model = Columns()
    parallel = model if world_size() == 1 else DistributedDataParallel(model)
    torch.manual_seed(3)
    every = torch.randn(sum(rows), columns, 5, dtype=torch.float64)
    loss = loss_of(*parallel(every.split(rows)[rank()]))
    loss.backward()
    assert model.scale.grad is not None
    return loss.item(), model.projection.weight.grad


def adapted_gradient(kind: str, rows: list[int]) -> tuple[float, Tensor]:
    """Of open_clip's or sentence-transformers' adapter, with labels that hide some negatives."""
    labels = (torch.arange(sum(rows)) // 2).split(rows)[rank()]
    if kind == "open_clip":
        clip = GOALClipLoss(rank=rank(), world_size=world_size())
        return _backward(lambda pair, *scalars: clip(*pair, *scalars, image_ids=labels), rows, 2)
    loss = GOALLoss(nn.Identity(), gather_across_devices=True, false_negative_margin=0.1)

    def used(columns: list[Tensor], scale: Tensor, bias: Tensor) -> Tensor:
        return loss.compute_loss_from_embeddings(columns, labels) + 0 * (scale + bias)

    return _backward(used, rows, 3)


def clip_gradients(local_loss: bool, gather_with_grad: bool) -> tuple[Tensor, Tensor]:
    """Of open_clip's `ClipLoss` and of its adapter, one pair a process."""
    # Its file alone: the package imports torchvision, which takes seconds.
    package = find_spec("open_clip")
    assert package is not None
    assert package.submodule_search_locations
    path = Path(package.submodule_search_locations[0]) / "loss.py"
    spec = spec_from_file_location("open_clip_loss", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    options = {
        "local_loss": local_loss,
        "gather_with_grad": gather_with_grad,
        "rank": rank(),
        "world_size": 2,
    }
    losses = (
        module.ClipLoss(**options),
        GOALClipLoss(**options, objective="nca/constant", tau=SCALE),
    )
    return tuple(
        _backward(lambda pair, *scalars, loss=loss: loss(*pair, *scalars), [1, 1], 2)[1]
        for loss in losses
    )
