"""In which order training sees the pairs, on how many processes, and from where on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from goal_kernels.training.distinct_images import check_distinct, distinct_order


class ShuffledSampler(Sampler):
    """A permutation of 0..size-1 that depends on (seed, epoch) alone, dealt out to the processes.

    What it numbers are pairs, or images that come with several captions; it gives (epoch, number),
    since some of what belongs to a number is drawn anew each epoch.
    The order is cut into steps of `world_size * batch_size` numbers, of which process `rank` takes
    the `rank`-th part; put side by side, the parts of a step are the step that one process with
    the same seed would take. The incomplete last step is left out.

    The trainer calls `set_epoch` before each epoch, so that a resumed run sees the order that the
    uninterrupted one would have seen. An epoch that was begun before is resumed at
    `start_at`; the length stays that of a whole epoch.

    Args:
        size: how many there are.
        seed: of the order, together with the epoch.
        rank, world_size: which of how many processes this is.
        batch_size: how many one process takes a step.
        image_of_caption: int64 [size]; when given, an image comes at most once in a step.
        noun: what they are.
    Raises: ValueError when a number is out of range or no such order exists.
    """

    def __init__(
        self,
        size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        batch_size: int = 1,
        image_of_caption: NDArray[np.int64] | None = None,
        noun: str = "pairs",
    ) -> None:
        if not 1 <= world_size * batch_size <= size:
            raise ValueError(
                f"data.batch_size: expected at most the {size} training {noun}, got "
                f"{world_size * batch_size}; every batch would be dropped as incomplete"
            )
        self.size, self.seed = size, seed
        self.rank, self.world_size, self.batch_size = rank, world_size, batch_size
        self.image_of_caption = image_of_caption
        self.noun = noun
        self.epoch = 0
        self.position = 0
        if image_of_caption is not None:
            check_distinct(image_of_caption, self.step_size)

    @property
    def step_size(self) -> int:
        """How many all processes together take a step."""
        return self.world_size * self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation; epochs count from 0. Another epoch begins at its beginning."""
        if epoch != self.epoch:
            self.start_at(epoch, 0)

    def start_at(self, epoch: int, position: int) -> None:
        """Have iteration begin inside an epoch.

        Args:
            epoch: from 0.
            position: how many finished steps of all processes together have used. The number of
                processes may differ from the one that used them, as long as whole steps are left.
        Raises: ValueError when the position is not the beginning of a step of the epoch.
        """
        if position % self.step_size or not 0 <= position <= self.size:
            raise ValueError(
                f"position: expected a multiple of the {self.step_size} {self.noun} of a step, up "
                f"to {self.size}, got {position}; go on with the batch size and devices of before"
            )
        self.epoch, self.position = epoch, position

    def __len__(self) -> int:
        """Numbers that this process gets in a whole epoch."""
        return self.size // self.step_size * self.batch_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        steps = self._order().reshape(-1, self.world_size, self.batch_size)
        own = steps[self.position // self.step_size :, self.rank].reshape(-1).tolist()
        return iter([(self.epoch, number) for number in own])

    def _order(self) -> NDArray[np.int64]:
        """int64 [steps * step_size], the order of the epoch for all processes."""
        # A pair of small integers seeds a SeedSequence without collisions such as seed + epoch.
        generator = np.random.default_rng([self.seed, self.epoch])
        if self.image_of_caption is not None:
            return distinct_order(self.image_of_caption, self.step_size, generator)
        return generator.permutation(self.size)[: self.size // self.step_size * self.step_size]
