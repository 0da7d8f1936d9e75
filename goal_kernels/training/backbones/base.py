"""A network that turns images into the cells of a feature map, and can be frozen from below."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from goal_kernels.training.options import BLOCKS, check_fixed_blocks

# Where networks keep their stages, from the image on: one list of modules, or several attributes.
STAGES = (
    ("layer1", "layer2", "layer3", "layer4"),
    ("s1", "s2", "s3", "s4"),
    ("stages",),
    ("layers",),
    ("blocks",),
    ("features",),
    ("trunk_output",),
    ("encoder.stages",),
    ("encoder.layers",),
    ("encoder.layer",),
)


class Backbone(nn.Module):
    """[B, 3, H, W] images to [B, cells, channels].

    BatchNorm always runs on its stored statistics, as in VSE++ and VSE-infinity: batches of raw
    images are too small to estimate them. Its scale and shift train with the block they are in.

    Args:
        body: the network.
        channels: width of a cell.
        to_cells: from the network and images to [B, cells, channels].
        unused: beginnings of names of parameters that cells do not depend on; they never train.
    """

    def __init__(
        self,
        body: nn.Module,
        channels: int,
        to_cells: Callable[[nn.Module, Tensor], Tensor],
        unused: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.body = body
        self.channels = channels
        self.to_cells = to_cells
        self.unused = unused
        self.fixed_blocks = 0
        self._counted: dict[tuple[int, int], int] = {}
        self.set_fixed_blocks(0)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] float to [B, cells, channels]."""
        return self.to_cells(self.body, images)

    def count_cells(self, height: int, width: int) -> int:
        """Number of cells of images of that size; found once by trying."""
        if (height, width) not in self._counted:
            some = next(self.parameters())
            training = self.training
            self.eval()
            with torch.no_grad():
                cells = self(torch.zeros(1, 3, height, width, dtype=some.dtype, device=some.device))
            self.train(training)
            self._counted[height, width] = cells.shape[1]
        return self._counted[height, width]

    def set_fixed_blocks(self, fixed_blocks: int) -> None:
        """Freeze the first blocks and let the others train.

        Args:
            fixed_blocks: 0 to 4. A block is a quarter of the network's stages, a whole stage of a
                ResNet; the first one includes the stem. 4 freezes everything.
        Raises: ValueError when it is out of range, or the network's stages are not known.
        """
        check_fixed_blocks("fixed_blocks", fixed_blocks)
        frozen = {parameter for block in self._blocks()[:fixed_blocks] for parameter in block}
        if 0 < fixed_blocks < BLOCKS and not frozen:
            raise ValueError(
                f"fixed_blocks: the stages of a {type(self.body).__name__} are not known, so only "
                f"0 or {BLOCKS} can be frozen, got {fixed_blocks}"
            )
        for name, parameter in self.body.named_parameters():
            fixed = fixed_blocks == BLOCKS or parameter in frozen or name.startswith(self.unused)
            parameter.requires_grad_(not fixed)
        self.fixed_blocks = fixed_blocks
        self.train(self.training)

    def train(self, mode: bool = True) -> Backbone:
        """Train what is not frozen; BatchNorm keeps its stored statistics."""
        super().train(mode)
        if not mode:
            return self
        if self.fixed_blocks == BLOCKS:
            self.body.eval()
        for part in self._stages()[: self.fixed_blocks]:
            for stage in part:
                stage.eval()
        for module in self.body.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def _stages(self) -> list[list[nn.Module]]:
        """The stages in four parts of nearly equal number; empty ones where none are known."""
        for paths in STAGES:
            found = [_at(self.body, path) for path in paths]
            stages = [module for module in found if isinstance(module, nn.Module)]
            if len(stages) < len(paths):
                continue
            if len(stages) == 1:
                stages = list(stages[0].children())
            ends = [round(len(stages) * part / BLOCKS) for part in range(BLOCKS + 1)]
            return [stages[ends[part] : ends[part + 1]] for part in range(BLOCKS)]
        return [[] for _ in range(BLOCKS)]

    def _blocks(self) -> list[list[nn.Parameter]]:
        """Parameters of the four blocks; what comes before the first stage belongs to the first."""
        blocks = [[p for stage in part for p in stage.parameters()] for part in self._stages()]
        staged = {parameter for block in blocks for parameter in block}
        if staged:
            blocks[0] += takewhile(lambda p: p not in staged, self.body.parameters())
        return blocks


def _at(module: nn.Module, path: str) -> nn.Module | None:
    """The submodule at a dotted path, if there is one."""
    found: nn.Module | None = module
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def flattened(feature_map: Tensor) -> Tensor:
    """[B, C, h, w] to [B, h * w, C], row by row."""
    return feature_map.flatten(2).transpose(1, 2)
