"""What a few captions and images of dev are confused with, epoch by epoch: `hardest.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from goal_kernels.data.files import read_json, write_text
from goal_kernels.training.evaluation import Evaluation

QUERIES = 4  # captions, and as many images


class HardestExamples(Callback):
    """Records the hardest negatives after each validation.

    Give it before what saves resume points, whose state is that after the validation.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.epochs: dict[int, dict[str, Any]] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epochs so far."""
        evaluation = getattr(pl_module, "evaluation", None)
        if evaluation is None or trainer.sanity_checking:
            return
        epoch = trainer.current_epoch + 1
        self.epochs[epoch] = {"epoch": epoch, **hardest_examples(evaluation)}
        if trainer.is_global_zero:
            record = {"epochs": list(self.epochs.values())}
            write_text(self.path, json.dumps(record, separators=(",", ":")) + "\n")

    def state_dict(self) -> dict[str, Any]:
        """For resume points."""
        return {"epochs": list(self.epochs.values())}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Of a resume point."""
        self.epochs = {row["epoch"]: row for row in state_dict["epochs"]}


def hardest_examples(evaluation: Evaluation) -> dict[str, list[dict[str, Any]]]:
    """Hardest negatives of QUERIES captions and images, the same ones each time.

    Returns: "captions" and "images", a record each: the row of the query as "caption" or "image",
        "positive", its similarity to its image or to the best of its captions, "negative", the row
        of the candidate that is none of its own, or its group's, with the highest similarity, and
        that "score". Empty where there is no negative.
    """
    of_images, owner = evaluation.groups, evaluation.image_of_caption
    if of_images is None:
        of_images = torch.arange(len(evaluation.image_embeddings), device=owner.device)
    of_captions = of_images[owner]
    captions = [
        {"caption": c, **_pair(evaluation.scores_of_caption(c), of_images == of_captions[c])}
        for c in _drawn(len(of_captions))
    ]
    images = [
        {"image": i, **_pair(evaluation.scores_of_image(i), of_captions == of_images[i])}
        for i in _drawn(len(of_images))
        if (of_captions == of_images[i]).any()
    ]
    return {
        name: [record for record in records if "negative" in record]
        for name, records in (("captions", captions), ("images", images))
    }


def _drawn(size: int) -> list[int]:
    order = torch.randperm(size, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    return order[:QUERIES].tolist()


def _pair(scores: Tensor, own: Tensor) -> dict[str, Any]:
    """Positive and hardest negative among scores [N]; own: bool [N], the positives."""
    if bool(own.all()):
        return {}
    others = scores.masked_fill(own, -torch.inf)
    hardest = int(others.argmax())
    return {
        "positive": float(scores[own].max()),
        "negative": hardest,
        "score": float(others[hardest]),
    }


def read_hardest(path: Path) -> list[dict[str, Any]]:
    """The epochs of a `hardest.json`, [] where there is none. Raises: ValueError naming it."""
    if not path.is_file():
        return []
    record = read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get("epochs"), list):
        raise ValueError(f"{path}: expected the epochs that `goal-kernels fit` writes")
    return record["epochs"]
