"""Generating the whole data set into a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from goal_kernels.data.files import new_folder, write_lines, write_text
from goal_kernels.data.goalworld.blocks import (
    BlockTask,
    TaskRunner,
    TruthTask,
    find_truth,
    image_id,
    make_block,
    scene_record,
    task_runner,
)
from goal_kernels.data.goalworld.captions import CAPTIONS_PER_IMAGE
from goal_kernels.data.goalworld.config import SPLITS, GoalWorldConfig, make_config
from goal_kernels.data.goalworld.manifest import (
    MANIFEST,
    PICTURES,
    Manifest,
    file_table,
    foreign_entries,
)
from goal_kernels.data.goalworld.oracle import OracleFigures, oracle_recalls
from goal_kernels.data.goalworld.scenes import Scene
from goal_kernels.data.goalworld.statements import Statement
from goal_kernels.data.goalworld.truth import PackedScenes
from goal_kernels.data.progress import Progress, no_progress
from goal_kernels.data.truth_relation import TruthRelation
from goal_kernels.data.vocabulary import Vocabulary

_FAMILIES_PER_TASK = 64
_CAPTIONS_PER_TASK = 2000
_SAMPLES = 3
_EVALUATED = ("dev", "test")


@dataclass(frozen=True)
class DatasetSummary:
    """What a folder holds.

    Attributes:
        folder: where the files are.
        created: False when the folder was there already and was left as it is.
        preset, seed: as asked for.
        counts: for each split ``images``, ``captions`` and ``true_pairs``.
        vocabulary: words, the four special ones included.
        oracle: the expected recalls of somebody who knows the truth, for dev and test.
        samples: a few test captions.
        size: bytes of all files.
    """

    folder: Path
    created: bool
    preset: str
    seed: int
    counts: dict[str, dict[str, int]]
    vocabulary: int
    oracle: dict[str, OracleFigures]
    samples: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class _Job:
    """What is generated, where to, by whom."""

    config: GoalWorldConfig
    seed: int
    folder: Path
    run: TaskRunner
    progress: Progress


def generate_goalworld(
    folder: str | Path,
    *,
    preset: str = "demo",
    seed: int = 0,
    overwrite: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
    **parameters: Any,
) -> DatasetSummary:
    """Generate a GoalWorld data set in the precomputed-feature layout.

    Equal arguments give equal files, byte for byte, whatever ``workers`` is (on one machine:
    another processor or numpy may round features differently in the last bit). A folder that
    already holds the data set asked for is left untouched. The files are made beside the folder
    and moved there when all are complete.

    Args:
        folder: where to.
        preset: ``"tiny"``, ``"demo"`` or ``"medium"``.
        seed: 0 or more.
        overwrite: replace another or a damaged data set in ``folder``.
        workers: processes; with more than one, call this under ``if __name__ == "__main__":``.
        progress: called with (stage, done, total) as the work goes on.
        **parameters: any field of :class:`~goal_kernels.data.goalworld.config.GoalWorldConfig`,
            to change it from its value in the preset.

    Raises:
        FileExistsError: ``folder`` holds something else and ``overwrite`` is not given, or holds
            files that no data set of this kind has (these are never deleted).
        ValueError, TypeError: an argument is unknown or out of its range.
        ImportError: pictures are asked for and Pillow is not installed.
    """
    config = make_config(preset, parameters)
    if workers < 1 or seed < 0:
        raise ValueError(f"expected workers >= 1 and seed >= 0, got {workers=}, {seed=}")
    target = Path(folder).resolve()
    if _holds(target, config, seed, overwrite):
        return _summarise(target, created=False)
    with new_folder(target) as staging, task_runner(workers) as run:
        job = _Job(config, seed, staging, run, progress or no_progress)
        _generate(job, preset)
    return _summarise(target, created=True)


def _holds(folder: Path, config: GoalWorldConfig, seed: int, overwrite: bool) -> bool:
    """Whether the folder holds the data set asked for; raises when it may not be replaced."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; choose another folder")
    foreign = foreign_entries(folder)
    if foreign:
        raise FileExistsError(
            f"{folder} holds files that GoalWorld does not write ({', '.join(foreign[:5])}); "
            "choose another folder"
        )
    reason = _unfit(folder, config, seed)
    if reason is None:
        return True
    if not overwrite:
        raise FileExistsError(
            f"{folder} holds another or an incomplete data set: {reason}; "
            "choose another folder, or replace it with --overwrite (overwrite=True)"
        )
    return False


def _unfit(folder: Path, config: GoalWorldConfig, seed: int) -> str | None:
    """In words, why the folder is not the data set asked for; None when it is."""
    if not (folder / MANIFEST).is_file():
        return f"{MANIFEST} is missing"
    try:
        manifest = Manifest.load(folder)
    except (ValueError, TypeError) as error:
        return str(error)
    return manifest.difference(config, seed) or manifest.damage(folder)


def _generate(job: _Job, preset: str) -> None:
    """Write all files; the manifest last."""
    config = job.config
    counts: dict[str, dict[str, int]] = {}
    oracle: dict[str, OracleFigures] = {}
    names: dict[str, str] = {}
    words = 0
    for split in SPLITS:
        texts, truth = _generate_split(job, split)
        if split == "train":
            vocabulary = Vocabulary.from_captions(texts)
            vocabulary.save(job.folder / "vocab.json")
            words = len(vocabulary)
        if split in _EVALUATED:
            images = np.arange(len(texts)) // CAPTIONS_PER_IMAGE
            oracle[split] = oracle_recalls(truth, images)
        ids = [image_id(split, index) for index in range(config.images_in(split))]
        names |= {str(identifier): f"{split}/{identifier}.png" for identifier in ids}
        write_lines(job.folder / f"{split}_ids.txt", [str(identifier) for identifier in ids])
        counts[split] = {
            "images": len(ids),
            "captions": len(texts),
            "true_pairs": len(truth.indices),
        }
    write_text(job.folder / "id_mapping.json", json.dumps(names) + "\n")
    write_text(job.folder / "oracle.json", json.dumps(oracle, indent=2) + "\n")
    files = file_table(job.folder)
    Manifest(preset, job.seed, asdict(config), counts, words, files).save(job.folder)


def _generate_split(job: _Job, split: str) -> tuple[list[str], TruthRelation]:
    """Write the features, captions, scenes and truth of a split; give captions and truth."""
    config = job.config
    images = config.images_in(split)
    features = np.lib.format.open_memmap(
        job.folder / f"{split}_ims.npy",
        mode="w+",
        dtype=np.dtype(config.dtype),
        shape=(images, config.regions, config.dim),
    )
    scenes: list[Scene] = []
    texts: list[str] = []
    statements: list[Statement] = []
    with (job.folder / f"{split}_scenes.jsonl").open("w", encoding="utf-8", newline="\n") as lines:
        for block in job.run(make_block, _block_tasks(job, split)):
            rows = range(block.start, block.start + len(block.scenes))
            features[rows.start : rows.stop] = block.features
            for index in rows:
                record = scene_record(split, index, block, config.siblings)
                lines.write(json.dumps(record, separators=(",", ":")) + "\n")
            scenes += block.scenes
            captions = [caption for row in block.captions for caption in row]  # image by image
            texts += [caption.text for caption in captions]
            statements += [caption.statement for caption in captions]
            job.progress(f"{split} images", rows.stop, images)
    features.flush()
    write_lines(job.folder / f"{split}_caps.txt", texts)
    truth = _find_truth(job, split, statements, scenes)
    truth.save(job.folder / f"{split}_truth.npz")
    return texts, truth


def _block_tasks(job: _Job, split: str) -> Iterator[BlockTask]:
    """The stretches of whole families that make up a split."""
    images = job.config.images_in(split)
    step = _FAMILIES_PER_TASK * (1 + job.config.siblings)
    pictures = job.folder / PICTURES / split if job.config.images else None
    for start in range(0, images, step):
        stop = min(start + step, images)
        yield BlockTask(job.config, job.seed, split, start, stop, pictures)


def _find_truth(
    job: _Job, split: str, statements: list[Statement], scenes: list[Scene]
) -> TruthRelation:
    """Which captions of the split are true of which of its images."""
    packed = PackedScenes.pack(scenes)
    tasks = (
        TruthTask(statements[start : start + _CAPTIONS_PER_TASK], packed)
        for start in range(0, len(statements), _CAPTIONS_PER_TASK)
    )
    rows: list[Any] = []
    for part in job.run(find_truth, tasks):
        rows += part
        job.progress(f"{split} truth", len(rows), len(statements))
    return TruthRelation.from_rows(rows, len(scenes))


def _summarise(folder: Path, *, created: bool) -> DatasetSummary:
    """The summary of a complete folder, read back from its files."""
    manifest = Manifest.load(folder)
    oracle = json.loads((folder / "oracle.json").read_text(encoding="utf-8"))
    lines = (folder / "test_caps.txt").read_text(encoding="utf-8").split("\n")
    step = max(1, manifest.counts["test"]["captions"] // _SAMPLES)
    return DatasetSummary(
        folder=folder,
        created=created,
        preset=manifest.preset,
        seed=manifest.seed,
        counts=manifest.counts,
        vocabulary=manifest.vocabulary,
        oracle=oracle,
        samples=tuple(lines[: step * _SAMPLES : step]),
        size=sum(entry["bytes"] for entry in manifest.files.values()),
    )
