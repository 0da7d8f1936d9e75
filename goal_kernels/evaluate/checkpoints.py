"""A checkpoint made into embeddings of a split. Needs the training extra."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from goal_kernels.data.layout import VOCABULARY
from goal_kernels.data.split import Split
from goal_kernels.evaluate.inputs import choose_device
from goal_kernels.training.checkpoints import CheckpointError, check_tokenizer, load_checkpoint
from goal_kernels.training.data_module import RetrievalDataModule
from goal_kernels.training.evaluation import joined
from goal_kernels.training.lightning_module import RetrievalModule
from goal_kernels.training.local_weights import checkpoint_loading
from goal_kernels.training.rankings import PairScores

RUN_CHECKPOINT = Path("checkpoints") / "best.ckpt"


@dataclass(frozen=True)
class Encoded:
    """An encoded split.

    Attributes:
        image_embeddings: [N, D] float32; text_embeddings: [M, D] float32.
        split: what was encoded.
        pairs: what ranks pairs, as `VSE.pair_scores` gives it.
    """

    image_embeddings: Tensor
    text_embeddings: Tensor
    split: Split
    pairs: dict[str, PairScores] = field(default_factory=dict)


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that an input names: itself, or the best one of a run folder.

    Raises: FileNotFoundError.
    """
    if not path.is_dir():
        if path.is_file():
            return path
        raise FileNotFoundError(f"{path}: no such file or run folder")
    if not (path / RUN_CHECKPOINT).is_file():
        raise FileNotFoundError(
            f"{path}: expected a run folder with {RUN_CHECKPOINT}, which is not there; give a "
            "checkpoint itself, or train with `goal-kernels fit`"
        )
    return path / RUN_CHECKPOINT


class OpenRun(NamedTuple):
    """A trained model in evaluation mode, on its device, and the data of its run, not yet read."""

    module: RetrievalModule
    data: RetrievalDataModule


def open_run(path: Path, options: Mapping[str, str], device: str = "auto") -> OpenRun:
    """The model of a checkpoint with its data.

    Args:
        path: a checkpoint of `goal-kernels fit`, or its run folder.
        options: of the data module that replace those of the run, as text by name; `test_split`
            chooses the split.
        device: "auto", "cpu", "cuda", or as torch names it.
    Raises: FileNotFoundError, ValueError, CheckpointError.
    """
    file = find_checkpoint(path)
    stored = load_checkpoint(file)
    if not {"state_dict", "hyper_parameters"} <= set(stored):
        raise CheckpointError(
            f"{file}: no checkpoint of `goal-kernels fit`: it has no hyper-parameters"
        )
    module = _build_module(file, stored)
    data = build_data(_recorded_data(file, stored), options)
    check_tokenizer(data.tokenizer.identity, stored)
    if data.sizes != module.model.sizes:
        raise ValueError(
            f"{file}: its model was made for data of other sizes: {module.model.sizes}, the data "
            f"here has {data.sizes}; give the vocabulary and features of its training"
        )
    return OpenRun(module.to(choose_device(device)).eval(), data)


def encode_split(run: OpenRun) -> Encoded:
    """Encode every image and every caption of the test split once. Raises: as `open_run`."""
    data, model = run.data, run.module.model
    images, texts = data.test_dataloader()
    image = _encode(run.module, model.image_side, images, "images")
    text = _encode(run.module, model.text_side, texts, "captions")
    embeddings = image[0].float().cpu(), text[0].float().cpu()
    return Encoded(*embeddings, data.split(data.test_split), model.pair_scores(image, text))


def _recorded_data(file: Path, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the data that a checkpoint was trained on, with the words its run has kept."""
    recorded = dict(stored.get(RetrievalDataModule.CHECKPOINT_HYPER_PARAMS_KEY, {}))
    kept = file.parent.parent / VOCABULARY
    if recorded.get("vocabulary") is None and kept.is_file():
        recorded["vocabulary"] = str(kept)
    return recorded


def _known(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the given values that `kind` takes; Lightning adds some of its own."""
    return {name: value for name, value in given.items() if name in signature(kind).parameters}


def _build_module(file: Path, stored: Mapping[str, Any]) -> RetrievalModule:
    """The trained model."""
    try:
        with checkpoint_loading():
            module = RetrievalModule(**_known(RetrievalModule, stored["hyper_parameters"]))
        module.load_state_dict(stored["state_dict"])
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"{file}: its model cannot be built by this version of goal_kernels: "
            f"{' '.join(str(error).split())}"
        ) from error
    return module


def build_data(recorded: Mapping[str, Any], options: Mapping[str, str]) -> RetrievalDataModule:
    """The data module of a run, with the options that replace its own, read as in a configuration.

    Raises: ValueError naming the option.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(RetrievalDataModule, "data")
    values = {f"data.{name}": v for name, v in _known(RetrievalDataModule, recorded).items()}
    try:
        parser.set_defaults(values)
        parsed = parser.parse_args([f"--data.{name}={value}" for name, value in options.items()])
        return parser.instantiate_classes(parsed).data
    except (ArgumentError, TypeError, KeyError) as error:
        raise ValueError(f"--data: {' '.join(str(error).split())}") from error


@torch.no_grad()
def _encode(
    module: RetrievalModule,
    encode: Callable[[Any], tuple[Tensor, ...]],
    batches: Iterable[Any],
    what: str,
) -> list[Tensor]:
    """What a model makes of all batches in order, on its device: embeddings, tokens if any."""
    parts, done, watched = [], 0, sys.stderr.isatty()
    for batch in batches:
        parts.append(encode(module.transfer_batch_to_device(batch, module.device, 0)))
        done += len(parts[-1][0])
        if watched:
            print(f"\r{what}: {done:,}", end="", file=sys.stderr, flush=True)
    if watched:
        print(file=sys.stderr)
    return joined(parts)
