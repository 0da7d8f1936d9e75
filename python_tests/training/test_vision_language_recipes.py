"""Recipes of models that look at both sides at once, made small, on made-up pictures."""

from __future__ import annotations

import csv
import json
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

pytest.importorskip("pytorch_lightning")
pytest.importorskip("PIL")
transformers = pytest.importorskip("transformers")

from strangers import karpathy, put_picture  # noqa: E402

from goal_kernels.cli import main  # noqa: E402
from goal_kernels.evaluate.checkpoints import encode_split, open_run  # noqa: E402

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
def test_ten_steps_and_the_export_of_the_dual_encoder(
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    recipe: str,
    family: str,
    options: dict[str, object],
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
    exported = tmp_path / "exported"
    assert main(["export", str(tmp_path / recipe), "--output", str(exported)]) == 0
    assert "what is exported is its dual encoder alone" in capsys.readouterr().out
    monkeypatch.syspath_prepend(exported)
    encoder = import_module("goal_encoder")
    model, run = encoder.load(exported), open_run(tmp_path / recipe, {}, "cpu")
    for module in ("goal_encoder", "goal_words"):  # the next folder has its own
        sys.modules.pop(module, None)
    names = run.data.split("test").names
    made = model.embed_images(model.read_pictures([pictures / "images" / name for name in names]))
    torch.testing.assert_close(made, encode_split(run).image_embeddings, atol=1e-6, rtol=0)
