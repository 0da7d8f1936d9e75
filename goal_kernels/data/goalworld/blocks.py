"""Generating a stretch of images: the unit of work that processes share out.

Every image draws from generators seeded by (seed, split, index, purpose) alone, so the images do
not depend on how the work is cut, and a larger split begins with the images of a smaller one.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from goal_kernels.data.goalworld.captions import Caption, Captioner
from goal_kernels.data.goalworld.config import SPLITS, GoalWorldConfig
from goal_kernels.data.goalworld.features import Detector
from goal_kernels.data.goalworld.scenes import Scene, draw_family
from goal_kernels.data.goalworld.statements import Statement
from goal_kernels.data.goalworld.truth import Evaluator, PackedScenes

# Ids tell the split and the index, whatever the sizes of the splits.
_ID_STRIDE = 10_000_000
_FAMILY, _CAPTIONS, _FEATURES, _PICTURE = range(4)
Task = TypeVar("Task")
Result = TypeVar("Result")

# Tasks in flight for each process: enough to keep it busy, few enough to keep memory bounded.
_AHEAD = 2


@dataclass(frozen=True)
class BlockTask:
    """Which images of which data set to make: ``start`` begins a family, ``stop`` is excluded.

    ``pictures`` is the folder for the rendered images, None for no images.
    """

    config: GoalWorldConfig
    seed: int
    split: str
    start: int
    stop: int
    pictures: Path | None


@dataclass(frozen=True)
class Block:
    """The images ``start .. start + n - 1`` of a split.

    Attributes:
        start: index of the first image.
        features: [n, K, D] in the configured dtype.
        scenes: n scenes.
        captions: n lists of captions.
    """

    start: int
    features: NDArray[np.floating]
    scenes: list[Scene]
    captions: list[list[Caption]]


def image_id(split: str, index: int) -> int:
    """The id of an image: its index, plus ten million for dev and twenty for test."""
    return SPLITS.index(split) * _ID_STRIDE + index


def make_block(task: BlockTask) -> Block:
    """Make the images of a task, and write their pictures where it asks for them."""
    config = task.config
    width = 1 + config.siblings
    captioner = Captioner(config)
    scenes: list[Scene] = []
    captions: list[list[Caption]] = []
    for first in range(task.start, task.stop, width):
        rng = _generator(task, first // width, _FAMILY)
        family = draw_family(rng, config.siblings, config.objects)
        images = range(first, min(first + width, task.stop))
        rngs = [_generator(task, index, _CAPTIONS) for index in images]
        scenes += family[: len(images)]
        captions += captioner.caption_family(family, rngs)
    if task.pictures is not None:
        _render(task, scenes, task.pictures)
    return Block(task.start, _features(task, scenes), scenes, captions)


def scene_record(split: str, index: int, block: Block, siblings: int) -> dict[str, Any]:
    """What ``{split}_scenes.jsonl`` says of image ``index`` of the split."""
    row = index - block.start
    return {
        "id": image_id(split, index),
        "family": index // (1 + siblings),
        **block.scenes[row].to_json(),
        "captions": [caption.statement.to_json() for caption in block.captions[row]],
    }


@dataclass(frozen=True)
class TruthTask:
    """Statements to check against all scenes of a split."""

    statements: Sequence[Statement]
    scenes: PackedScenes


def find_truth(task: TruthTask) -> list[NDArray[np.int32]]:
    """For each statement of a task the ascending rows of the scenes that it is true of."""
    evaluator = Evaluator(task.scenes)
    return [evaluator.true_rows(statement) for statement in task.statements]


def _generator(task: BlockTask, index: int, purpose: int) -> np.random.Generator:
    """The source of randomness of one image (or family) for one purpose."""
    key = (SPLITS.index(task.split), index, purpose)
    return np.random.default_rng(np.random.SeedSequence(task.seed, spawn_key=key))


def _features(task: BlockTask, scenes: Sequence[Scene]) -> NDArray[np.floating]:
    """Features [n, K, D], image by image, so that their bits do not depend on the block."""
    config = task.config
    detector = Detector(config)
    features = np.empty((len(scenes), config.regions, config.dim), dtype=config.dtype)
    for row, scene in enumerate(scenes):
        features[row] = detector.detect(scene, _generator(task, task.start + row, _FEATURES))
    return features


def _render(task: BlockTask, scenes: Sequence[Scene], folder: Path) -> None:
    """Write ``{id}.png`` for each scene."""
    # Pillow is an optional dependency that nothing but pictures needs.
    from goal_kernels.data.goalworld.rendering import render_scene

    folder.mkdir(parents=True, exist_ok=True)
    for row, scene in enumerate(scenes):
        index = task.start + row
        picture = render_scene(scene, task.config.image_size, _generator(task, index, _PICTURE))
        picture.save(folder / f"{image_id(task.split, index)}.png")


class TaskRunner(Protocol):
    """Applies a module-level function to tasks and yields the results in the order of the tasks."""

    def __call__(
        self, function: Callable[[Task], Result], tasks: Iterable[Task], /
    ) -> Iterator[Result]: ...


@contextmanager
def task_runner(workers: int) -> Iterator[TaskRunner]:
    """A runner on ``workers`` processes; with 1 it runs everything here.

    The processes are started afresh (not forked, which is unsafe once libraries have started
    threads), so a script that asks for several must guard its main part with
    ``if __name__ == "__main__":``.
    """
    if workers == 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:

        def run(function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
            waiting: deque[Future[Result]] = deque()
            for task in tasks:
                waiting.append(pool.submit(function, task))
                if len(waiting) >= _AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

        yield run
