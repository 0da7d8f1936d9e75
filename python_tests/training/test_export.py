"""`goal-kernels export`: files that torch alone runs, with the embeddings of the run's model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fresh_process import run_fresh
from safetensors.torch import load_file

pytest.importorskip("pytorch_lightning")

from goal_kernels.cli import main
from goal_kernels.evaluate import checkpoints
from goal_kernels.evaluate.checkpoints import OpenRun, encode_split
from goal_kernels.export import traceable
from goal_kernels.training.data_module import RetrievalDataModule
from goal_kernels.training.lightning_module import RetrievalModule
from goal_kernels.training.options import ImageOptions, TextOptions
from goal_kernels.training.scoring import lengthened

MODELS = {
    "gpo, bigru": (
        ImageOptions(pooling="gpo"),
        TextOptions(kind="bigru", pooling="gpo", word_dim=4),
    ),
    "max, gru": (ImageOptions(pooling="max"), TextOptions(kind="gru", pooling="last", word_dim=4)),
    "mean, conv": (
        ImageOptions(pooling="mean"),
        TextOptions(kind="conv", pooling="mean", word_dim=4),
    ),
}
USE = """
import json, sys
import torch
folder, captions = sys.argv[1], json.loads(sys.argv[2])
from goal_encoder import load
model = load(folder)
features = torch.load(folder + "/features.pt")
images = model.embed_images(features["images"], features["mask"])
torch.save({"images": images, "texts": model.embed_texts(captions)}, folder + "/made.pt")
for module in ("goal_kernels", "pytorch_lightning", "numpy.testing"):
    assert module not in sys.modules, module
"""


def opened(folder: Path, name: str) -> OpenRun:
    """A model with random weights; statistics of BatchNorm as after some training."""
    image, text = MODELS[name]
    data = RetrievalDataModule(str(folder), batch_size=4)
    torch.manual_seed(0)
    module = RetrievalModule(data.sizes, image=image, text=text, embed_dim=8)
    with torch.no_grad():
        for buffer in module.buffers():
            if buffer.is_floating_point() and buffer.ndim == 1:
                buffer.uniform_(0.5, 1.5)
    return OpenRun(module.eval(), data)


def test_a_process_with_torch_alone_makes_the_same_embeddings(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run = opened(folder, "gpo, bigru")
    monkeypatch.setattr(checkpoints, "open_run", lambda *_: run)
    made = tmp_path / "exported"
    assert main(["export", "run", "--output", str(made)]) == 0
    assert "embeddings differ from the run's by" in capsys.readouterr().out
    images, texts = (list(loader) for loader in run.data.test_dataloader())
    parts = {"images": images[0].images, "mask": images[0].image_mask}
    torch.save(parts, made / "features.pt")
    captions = [*run.data.split("test").captions, "", "a red xyzzy disc"]
    done = run_fresh(USE, made, json.dumps(captions), folder=made)
    assert done.returncode == 0, done.stderr
    found, wanted = torch.load(made / "made.pt"), encode_split(run)
    torch.testing.assert_close(found["images"], wanted.image_embeddings, atol=1e-6, rtol=0)
    torch.testing.assert_close(found["texts"][:-2], wanted.text_embeddings, atol=1e-6, rtol=0)
    assert found["texts"].isfinite().all()
    assert len(texts[0].lengths) == len(captions) - 2
    weights, state = load_file(made / "weights.safetensors"), run.module.model.state_dict()
    assert set(weights) == set(state)
    assert all(torch.equal(weights[name], state[name]) for name in state)
    assert main(["export", "run", "--output", str(made)]) == 2
    assert "is there already; give a new folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["max, gru", "mean, conv"])
def test_what_is_traced_equals_the_encoders(folder: Path, name: str) -> None:
    """Without padding and with, for one row and several."""
    run = opened(folder, name)
    images, texts = (next(iter(loader)) for loader in run.data.test_dataloader())
    tokens = lengthened(texts.tokens[:, :, None], 16)[:, :, 0]
    model = run.module.model
    with torch.no_grad():
        wanted = model.encode_images(images), model.encode_texts(texts)
        for made, given, whole in (
            (
                traceable.ImageSide(model, [3, 10]).eval(),
                (images.images, images.image_mask),
                wanted[0],
            ),
            (traceable.TextSide(model, 16).eval(), (tokens, texts.lengths), wanted[1]),
        ):
            for rows in (1, 5):
                found = made(*(part[:rows] for part in given))
                torch.testing.assert_close(found, whole[:rows], atol=1e-6, rtol=0)


def test_an_export_that_differs_is_not_left_behind(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    class Zeros(torch.nn.Module):
        def forward(self, given: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
            return given.flatten(1).sum(dim=1, keepdim=True).expand(-1, 8) * 0.0

    run = opened(folder, "mean, conv")
    monkeypatch.setattr(checkpoints, "open_run", lambda *_: run)
    for side in ("ImageSide", "TextSide"):
        monkeypatch.setattr(traceable, side, lambda *_: Zeros())
    assert main(["export", "run", "--output", str(tmp_path / "new")]) == 2
    assert "the exported model computes other embeddings" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
