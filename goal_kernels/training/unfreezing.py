"""Which part of an image backbone trains at which epoch."""

from __future__ import annotations

from dataclasses import dataclass

BLOCKS = 4  # of a backbone; that many fixed ones freeze it as a whole


@dataclass(frozen=True)
class Unfreezing:
    """A backbone that is frozen first and then trains from its last block to its first.

    Attributes:
        frozen_epochs: epochs with the whole backbone frozen. In the epoch after them the loss is
            multiplied by the share of the epoch that is done, so that the backbone starts gently.
        stage_epochs: epochs with 3, then 2, then 1 fixed blocks; 0 skips these stages.

    Source: VSE-infinity's training on grid features: frozen for one epoch, then all at once.
    """

    frozen_epochs: int = 0
    stage_epochs: int = 0

    def __post_init__(self) -> None:
        for name, argument in (("frozen_epochs", "frozen"), ("stage_epochs", "unfreezing")):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"model.{argument}_epochs: expected a number of epochs >= 0, got "
                    f"{getattr(self, name)}"
                )

    @property
    def planned(self) -> bool:
        """Whether anything changes during training."""
        return self.frozen_epochs > 0 or self.stage_epochs > 0

    def fixed_blocks(self, epoch: int) -> int:
        """Blocks that do not train in `epoch` (0 is the first): 4, all, to 0, none."""
        if epoch < self.frozen_epochs:
            return BLOCKS
        if self.stage_epochs == 0:
            return 0
        return max(0, BLOCKS - 1 - (epoch - self.frozen_epochs) // self.stage_epochs)

    def loss_factor(self, epoch: int, done: float) -> float:
        """Factor of the loss, `done` being the share of the epoch's batches seen, in [0, 1]."""
        return done if self.frozen_epochs > 0 and epoch == self.frozen_epochs else 1.0
