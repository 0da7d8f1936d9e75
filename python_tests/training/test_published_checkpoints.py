"""Published checkpoints: what they hold is computed here as the papers' code computes it."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from goal_kernels.cli import main
from goal_kernels.data import Vocabulary, write_split
from goal_kernels.data.vocabulary import SPECIAL_WORDS
from goal_kernels.training.data import ImageBatch, TextBatch
from goal_kernels.training.model import VSE, build_model
from goal_kernels.training.options import DataSizes, ImageOptions, TextOptions
from goal_kernels.training.published_checkpoints import load_published
from goal_kernels.training.tokenizers import WordTokenizer

REGION_DIM, EMBED_DIM, WORD_DIM = 6, 8, 5
TOKENIZER = WordTokenizer(Vocabulary([f"word{index}" for index in range(10)]))


def linear(width: int, out: int, bias: bool = True) -> dict[str, Tensor]:
    return {f"{name}": v for name, v in nn.Linear(width, out, bias=bias).state_dict().items()}


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in state.items()}


def gpool() -> dict[str, Tensor]:
    gru = nn.GRU(32, 32, batch_first=True, bidirectional=True).state_dict()
    return under("gpool.gru", gru) | under("gpool.linear", linear(32, 1, bias=False))


def region_state() -> dict[str, Tensor]:
    norm = nn.BatchNorm1d(EMBED_DIM // 2)
    norm(torch.randn(20, EMBED_DIM // 2) * 3 + 1)
    return (
        under("fc", linear(REGION_DIM, EMBED_DIM))
        | under("mlp.layers.0", linear(REGION_DIM, EMBED_DIM // 2))
        | under("mlp.layers.1", linear(EMBED_DIM // 2, EMBED_DIM))
        | under("mlp.bns.0", norm.state_dict())
        | under("mlp.bns.1", nn.BatchNorm1d(EMBED_DIM).state_dict())
        | gpool()
    )


def gru_state(ids: int, directions: int) -> dict[str, Tensor]:
    gru = nn.GRU(WORD_DIM, EMBED_DIM, batch_first=True, bidirectional=directions == 2)
    return {"embed.weight": torch.randn(ids, WORD_DIM)} | under("rnn", gru.state_dict())


def save(path: Path, image: dict, text: dict, **options) -> Path:
    torch.save(
        {
            "epoch": 24,
            "model": [image, text],
            "best_rsum": np.float64(500.5),
            "opt": argparse.Namespace(data_name="f30k_precomp", lr=5e-4, **options),
            "Eiters": 1000,
        },
        path,
    )
    return path


def run_gru(state: dict[str, Tensor], prefix: str, sequence: Tensor) -> Tensor:
    """[L, C] to [L, H]: states, of two directions their mean."""
    own = {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}
    both = any(name.endswith("_reverse") for name in own)
    hidden = own["weight_hh_l0"].shape[1]
    gru = nn.GRU(sequence.shape[1], hidden, batch_first=True, bidirectional=both)
    gru.load_state_dict(own)
    states = gru(sequence[None])[0][0]
    return (states[:, :hidden] + states[:, hidden:]) / 2 if both else states


def published_gpo(state: dict[str, Tensor], rows: Tensor) -> Tensor:
    """[n, D] to [D], as the paper writes it."""
    count = len(rows)
    code = torch.zeros(count, 32)
    for position in range(count):
        for channel in range(0, 32, 2):
            angle = position / 10000 ** (channel / 32)
            code[position, channel] = math.sin(angle)
            code[position, channel + 1] = math.cos(angle)
    scores = run_gru(state, "gpool.gru.", code) @ state["gpool.linear.weight"].T
    theta = torch.softmax(scores / 0.1, dim=0)  # [n, 1]
    return (rows.sort(dim=0, descending=True).values * theta).sum(dim=0)


def unit(vector: Tensor) -> Tensor:
    return vector / (vector.norm() + 1e-8)


def published_image(state: dict[str, Tensor], regions: Tensor) -> Tensor:
    norm = nn.BatchNorm1d(EMBED_DIM // 2).eval()
    norm.load_state_dict({n: state[f"mlp.bns.0.{n}"] for n in norm.state_dict()})
    hidden = norm(regions @ state["mlp.layers.0.weight"].T + state["mlp.layers.0.bias"]).relu()
    rows = hidden @ state["mlp.layers.1.weight"].T + state["mlp.layers.1.bias"]
    rows = rows + regions @ state["fc.weight"].T + state["fc.bias"]
    return unit(published_gpo(state, rows))


def captions() -> TextBatch:
    tokens = torch.tensor([[1, 4, 5, 6, 2], [1, 13, 2, 0, 0]])
    return TextBatch(tokens, torch.tensor([5, 3]), torch.full_like(tokens, -1), torch.arange(2))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def check_texts(model: VSE, expected: list[Tensor]) -> None:
    with torch.no_grad():
        torch.testing.assert_close(model.encode_texts(captions()), torch.stack(expected))


@torch.no_grad()
def test_vse_infinity_on_regions(tmp_path: Path) -> None:
    image, text = region_state(), gru_state(len(TOKENIZER) + 1, 2) | gpool()
    wrapped = {f"module.{name}": value for name, value in image.items()}
    model = load_published(save(tmp_path / "best.pth", wrapped, text), TOKENIZER)
    assert not model.training
    regions = torch.randn(3, 4, REGION_DIM)
    got = model.encode_images(ImageBatch(regions, None))
    expected = torch.stack([published_image(image, rows) for rows in regions])
    torch.testing.assert_close(got, expected)
    vectors = [text["embed.weight"][ids] for ids in ([1, 4, 5, 6, 2], [1, 13, 2])]
    states = [run_gru(text, "rnn.", sequence) for sequence in vectors]
    check_texts(model, [unit(published_gpo(text, rows)) for rows in states])


@torch.no_grad()
def test_vsepp_on_precomputed_vectors(tmp_path: Path) -> None:
    image, text = under("fc", linear(REGION_DIM, EMBED_DIM)), gru_state(len(TOKENIZER), 1)
    path = save(tmp_path / "best.pth.tar", image, text, no_imgnorm=True, measure="cosine")
    model = load_published(path, TOKENIZER)
    features = torch.randn(3, 1, REGION_DIM)
    got = model.encode_images(ImageBatch(features, None))
    torch.testing.assert_close(got, features[:, 0] @ image["fc.weight"].T + image["fc.bias"])
    vectors = [text["embed.weight"][ids] for ids in ([1, 4, 5, 6, 2], [1, 13, 2])]
    check_texts(model, [unit(run_gru(text, "rnn.", sequence)[-1]) for sequence in vectors])


def test_names_of_grids(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The backbone's tensors arrive under the names that torchvision gives them."""
    from goal_kernels.training import backbones
    from goal_kernels.training.backbones.base import Backbone, flattened

    def convolution() -> nn.Module:
        return nn.Conv2d(3, 3, 1)

    def network() -> nn.Module:
        names = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
        return nn.ModuleDict({name: convolution() for name in names})

    made = []

    def make(name: str, weights: str | None, pretrained: bool) -> Backbone:
        made.append((name, pretrained))
        return Backbone(network(), 3, lambda body, images: flattened(body["conv1"](images)))

    monkeypatch.setitem(backbones.BACKBONES, "detector", make)
    parts = {"base.0": "conv1", "base.1": "bn1", "base.4": "layer1", "base.5": "layer2"}
    parts |= {"base.6": "layer3", "top.0": "layer4"}
    source = {theirs: convolution().state_dict() for theirs in parts}
    state = {}
    for theirs, values in source.items():
        state |= under(f"backbone.{theirs}", values) | under("backbone.resnet.some", values)
    state |= under("image_encoder.fc", linear(3, EMBED_DIM)) | under("image_encoder", gpool())
    path = save(
        tmp_path / "b.pth", state, gru_state(14, 2) | gpool(), backbone_source="imagenet_res50"
    )
    model = load_published(path, TOKENIZER)
    assert made == [("resnet50", False)]
    for theirs, ours in parts.items():
        weight = model.image_encoder.backbone.body[ours].weight
        assert torch.equal(weight, source[theirs]["weight"])


def test_a_bert(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=14,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=10,
    )
    config.save_pretrained(tmp_path)
    state = under("bert", transformers.BertModel(config).state_dict())
    state["bert.embeddings.position_ids"] = torch.arange(10)[None]
    text = state | under("linear", linear(8, EMBED_DIM)) | gpool()
    path = save(tmp_path / "best.pth", region_state(), text)
    model = load_published(path, TOKENIZER, str(tmp_path))
    key = "embeddings.word_embeddings.weight"
    assert torch.equal(model.text_encoder.bert.state_dict()[key], text[f"bert.{key}"])


class Surprise:
    """What a file must not be able to make us run."""

    def __reduce__(self) -> tuple:
        return print, ("ran",)


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path, image, text = tmp_path / "b.pth", region_state(), gru_state(14, 2) | gpool()

    def refused(words: str) -> None:
        with pytest.raises(ValueError, match=words):
            load_published(path, TOKENIZER)

    with pytest.raises(FileNotFoundError, match="no such file"):
        load_published(path, TOKENIZER)
    torch.save({"model": [image, text], "opt": Surprise()}, path)
    refused("cannot be read safely")
    assert capsys.readouterr().out == ""
    torch.save({"state_dict": image}, path)
    refused("expected 'model' with the states")
    save(path, image, gru_state(20, 2) | gpool())
    refused("has 20 token ids, the tokenizer 14")
    save(path, image | {"extra.weight": torch.zeros(1)}, text)
    refused("extra.weight belongs to no encoder")
    save(path, {n: v for n, v in image.items() if "bns.0.weight" not in n}, text)
    refused(r"do not fit .*missing: image_encoder.mlp.1.weight")
    save(path, under("cnn", linear(2, 2)) | under("fc", linear(2, 2)), text)
    refused("none of regions, grids or precomputed")
    save(path, image, text | {"rnn.weight_ih_l1": torch.zeros(1)})
    refused("neither a BERT nor a GRU of one layer")
    save(path, image, text, measure="order")
    refused("order embeddings")


def test_the_command_writes_a_checkpoint_of_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = save(tmp_path / "best.pth", region_state(), gru_state(14, 2) | gpool())
    TOKENIZER.vocabulary.save(tmp_path / "vocab.json")
    given = [str(path), str(tmp_path / "new.ckpt"), "--vocabulary", str(tmp_path / "vocab.json")]
    assert main(["import-checkpoint", *given]) == 0
    assert "region images, bigru captions" in capsys.readouterr().out
    stored = torch.load(tmp_path / "new.ckpt", weights_only=True)
    options = stored["hyper_parameters"]
    rebuilt = build_model(
        ImageOptions(**options["image"]),
        TextOptions(**options["text"]),
        DataSizes(**options["sizes"]),
        options["embed_dim"],
    )
    state = {name.removeprefix("model."): value for name, value in stored["state_dict"].items()}
    rebuilt.load_state_dict(state)
    original = load_published(path, TOKENIZER)
    assert torch.equal(rebuilt.eval().encode_texts(captions()), original.encode_texts(captions()))
    assert main(["import-checkpoint", *given]) == 2
    assert "exists" in capsys.readouterr().err
    given[1] = str(tmp_path / "other.ckpt")
    (tmp_path / "best.pth").write_bytes(b"torn")
    assert main(["import-checkpoint", *given]) == 2
    assert "cannot be read safely" in capsys.readouterr().err
    assert not (tmp_path / "other.ckpt").exists()


def test_an_imported_model_reads_captions_as_the_published_code_did(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Punctuation and clitics are words, with the vocabulary written beside the checkpoint."""
    words = ["a", "man", "is", "n't", "t-shirt", ",", ".", "in", "'s", "red"]
    table = {"word2idx": {w: i for i, w in enumerate((*SPECIAL_WORDS, *words))}, "idx": 14}
    (tmp_path / "f30k_precomp_vocab.json").write_text(json.dumps(table))
    path = save(tmp_path / "best.pth", region_state(), gru_state(15, 2) | gpool())
    given = [str(path), str(tmp_path / "new.ckpt")]
    given += ["--vocabulary", str(tmp_path / "f30k_precomp_vocab.json")]
    assert main(["import-checkpoint", *given]) == 0
    assert "treebank words (14 ids)" in capsys.readouterr().out
    stored = torch.load(tmp_path / "new.ckpt", weights_only=True)
    kept = Vocabulary.load(stored["datamodule_hyper_parameters"]["vocabulary"])
    assert kept.split("A man's T-shirt, isn't in.") == [
        *("a", "man", "'s", "t-shirt", ",", "is", "n't", "in", ".")
    ]
    folder = tmp_path / "data"
    caption = "A man isn't in a red T-shirt, is a man."
    for split in ("train", "dev", "test"):
        write_split(folder, split, np.ones((3, 2, REGION_DIM), np.float32), [caption] * 3)
    given = ["eval", str(tmp_path / "new.ckpt"), "--data.folder", str(folder)]
    assert main([*given, "--json", str(tmp_path / "record.json")]) == 0
    assert json.loads((tmp_path / "record.json").read_text())["captions"] == 3
    capsys.readouterr()
    Vocabulary(words, "letters").save(tmp_path / "letters.json")
    assert main([*given, "--data", f"vocabulary={tmp_path / 'letters.json'}"]) != 0
    told = capsys.readouterr().err
    assert "expected those of the checkpoint, treebank words (14 ids), got words (14 ids)" in told
