"""Recipes of models that look at both sides at once train on made-up pictures, made small."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

pytest.importorskip("pytorch_lightning")
pytest.importorskip("PIL")
transformers = pytest.importorskip("transformers")

from strangers import karpathy, put_picture  # noqa: E402

from goal_kernels.cli import main  # noqa: E402

BODY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
BODIES = {
    "vit": BODY | {"patch_size": 8, "image_size": 32},
    "swin": {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2}
    | {"patch_size": 4, "image_size": 32},
}
SMALL = {
    "data.tokenizer": "words",
    "data.batch_size": 8,
    "data.pictures.size": 32,
    "model.embed_dim": 8,
    "model.text.bert": "random:tiny",
    "trainer.max_epochs": 1,
    "trainer.accelerator": "cpu",
    "trainer.limit_train_batches": 10,
    "run.threads": 1,
    "run.loggers": "null",
}
FUSION = {"model.fusion.layers": 1, "model.fusion.width": 8, "model.fusion.heads": 2}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    content = karpathy("f30k", {"train": 20, "val": 4, "test": 4})
    (folder / "dataset_f30k.json").write_text(json.dumps(content))
    for number, entry in enumerate(content["images"]):
        put_picture(folder / "images" / entry["filename"], number)
    return folder


@pytest.mark.parametrize(
    ("recipe", "family", "options"),
    [
        ("albef_like_f30k", "vit", FUSION),
        ("xvlm_like_f30k", "swin", FUSION),
        ("laps_like_f30k", "swin", {"model.scores.width": 8}),
    ],
)
def test_ten_steps(
    pictures: Path, tmp_path: Path, recipe: str, family: str, options: dict[str, object]
) -> None:
    transformers.AutoConfig.for_model(family, **BODIES[family]).save_pretrained(tmp_path / family)
    given = SMALL | options
    given |= {
        "data.folder": pictures / "dataset_f30k.json",
        "data.image_root": pictures / "images",
        "model.image.backbone": f"transformers:{tmp_path / family}",
        "run.root": tmp_path,
    }
    arguments = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    assert main(["fit", "--config", recipe, *arguments]) == 0
    rows = list(csv.DictReader((tmp_path / recipe / "metrics.csv").open()))
    assert max(int(row["step"]) for row in rows) == 9  # counted from 0
    assert json.loads((tmp_path / recipe / "metrics.json").read_text())["rsum"] >= 0
