"""BERT text encoders and image backbones of transformers, from local folders and random."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

transformers = pytest.importorskip("transformers")

from goal_kernels.training.backbones import make_backbone  # noqa: E402
from goal_kernels.training.backbones.from_transformers import FAMILIES  # noqa: E402
from goal_kernels.training.data import TextBatch  # noqa: E402
from goal_kernels.training.encoders.bert import BertEncoder  # noqa: E402
from goal_kernels.training.model import build_model  # noqa: E402
from goal_kernels.training.options import DataSizes, ImageOptions, TextOptions  # noqa: E402
from goal_kernels.training.tokenizers import WordPieceTokenizer  # noqa: E402

VOCABULARY = 60
LENGTHS = (3, 9, 5)
WIDTH = 16


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small BERT with its weights, as `save_pretrained` writes it."""
    path = tmp_path_factory.mktemp("bert")
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
    )
    transformers.BertModel(config).save_pretrained(path)
    return str(path)


def make(bert: str | None, ids: int = VOCABULARY, pretrained: bool = True, **given) -> BertEncoder:
    options = TextOptions(kind="bert", bert=bert, **given)
    return BertEncoder(options, DataSizes(0, ids), 8, pretrained)


def captions(length: int = 9) -> TextBatch:
    tokens = torch.randint(1, VOCABULARY, (3, length))
    lengths = torch.tensor(LENGTHS)
    tokens = tokens.where(torch.arange(length) < lengths[:, None], 0)
    return TextBatch(tokens, lengths, torch.full_like(tokens, -1), torch.arange(3))


@pytest.mark.parametrize("pooling", ["gpo", "mean", "max", "first"])
def test_caption_alone_equals_caption_in_a_padded_batch(bert_folder: str, pooling: str) -> None:
    encoder = make(bert_folder, pooling=pooling).eval()
    batch = captions()
    together = encoder(batch)
    for row, length in enumerate(LENGTHS):
        own = batch.tokens[row : row + 1, :length]
        alone = encoder(TextBatch(own, batch.lengths[row : row + 1], own, own[:, 0]))
        torch.testing.assert_close(together[row : row + 1], alone)


def test_the_published_encoder(bert_folder: str) -> None:
    encoder = make(bert_folder, pooling="mean").eval()
    batch = captions()
    attended = (batch.tokens != 0).float()
    states = encoder.bert(batch.tokens, attended)[0]
    rows = encoder.linear(states) * attended[:, :, None]
    expected = F.normalize(rows.sum(dim=1) / attended.sum(dim=1, keepdim=True), dim=1)
    torch.testing.assert_close(encoder(batch), expected)


def test_weights_come_from_the_folder(bert_folder: str) -> None:
    saved = transformers.BertModel.from_pretrained(bert_folder, local_files_only=True)
    ours = make(bert_folder).bert
    assert all(torch.equal(p, saved.state_dict()[n]) for n, p in ours.state_dict().items())
    later = make(bert_folder, pretrained=False).bert.embeddings.word_embeddings.weight
    assert not torch.equal(later, saved.embeddings.word_embeddings.weight)


def test_a_model_from_a_folder_is_in_training_mode(bert_folder: str) -> None:
    assert all(module.training for module in make(bert_folder).modules())


def test_every_parameter_of_a_bert_learns_at_its_rate(bert_folder: str) -> None:
    model = build_model(
        ImageOptions(), TextOptions(kind="bert", bert=bert_folder), DataSizes(10, VOCABULARY), 8
    )
    model.encode_texts(captions()).sum().backward()
    text = model.text_encoder
    assert all(p.grad is not None and p.grad.isfinite().all() for p in text.parameters())
    assert all(p.grad.any() for name, p in text.named_parameters() if not name.endswith("key.bias"))
    rates = {group["name"]: group["lr"] for group in model.parameter_groups(0.5, 0.1)}
    assert rates == {"rest": 0.5, "text_encoder.bert": pytest.approx(0.05)}


def test_a_rate_of_zero_freezes_a_bert(bert_folder: str) -> None:
    encoder, batch = make(bert_folder, lr_scale=0.0).train(), captions()
    assert encoder.training
    assert not any(module.training for module in encoder.bert.modules())
    torch.testing.assert_close(encoder(batch), encoder(batch), rtol=0, atol=0)  # no dropout
    encoder(batch).sum().backward()
    assert all(parameter.grad is None for parameter in encoder.bert.parameters())
    assert encoder.linear.weight.grad.any()


def test_autocast_gives_finite_float32(bert_folder: str) -> None:
    encoder = make(bert_folder).eval()
    batch = captions()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embeddings = encoder(batch)
    assert embeddings.dtype == torch.float32
    assert (embeddings - encoder(batch)).abs().max() < 0.1


def test_random_weights_by_size() -> None:
    encoder = make("random:tiny", ids=77)
    assert encoder.bert.config.num_hidden_layers == 2
    assert encoder.bert.embeddings.word_embeddings.weight.shape == (77, 128)
    assert encoder.bert.pooler is None


def test_captions_longer_than_a_bert_reads(bert_folder: str) -> None:
    with pytest.raises(ValueError, match="tokens: expected at most 12 a caption"):
        make(bert_folder)(captions(13))


@pytest.mark.parametrize(
    ("bert", "words"),
    [
        (None, "expected a local folder with config.json and weights, or random:SIZE"),
        (
            "bert-base-uncased",
            "expected a local folder with config.json and the weights, got bert-base-uncased "
            "(no such folder); nothing is downloaded",
        ),
        ("random:huge", "expected 'tiny', 'mini', 'small', 'medium', 'base' or 'large'"),
    ],
)
def test_bad_names_of_berts(bert: str | None, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"model.text.bert: {words}")):
        make(bert)


def test_bad_folders_of_berts(bert_folder: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config.json in it"):
        make(str(tmp_path))
    with pytest.raises(
        ValueError, match=rf"knows 60 token ids and .* 61; .*--data.tokenizer {bert_folder}"
    ):
        make(bert_folder, ids=61)
    with pytest.raises(ValueError, match=r"model.text.word_vectors: expected null"):
        make(bert_folder, word_vectors="glove.txt")
    config = Path(bert_folder, "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match=r"expected weights beside .*config.json"):
        make(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="are unusable"):
        make(str(tmp_path))
    three_layers = config.replace('"num_hidden_layers": 2', '"num_hidden_layers": 3')
    (tmp_path / "config.json").write_text(three_layers)
    weights = Path(bert_folder, "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match=r"lack 16 of .* such as encoder.layer.2"):
        make(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is unusable"):
        make(str(tmp_path))
    transformers.ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"expected the folder of a BERT, got .* with a vit"):
        make(str(tmp_path))


def test_wordpieces_are_those_of_transformers(tmp_path: Path) -> None:
    pieces = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "!", "'", "don", "t", "cafe", "##s")
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path, local_files_only=True)
    ours = WordPieceTokenizer(tmp_path)
    for caption in ("Don't!", "CAFÉS cafés", "  two\tun known  ", "", "中don"):
        assert ours.encode(caption).ids == theirs(caption)["input_ids"]
    theirs.save_pretrained(tmp_path / "saved")
    assert WordPieceTokenizer(tmp_path / "saved").identity == ours.identity


PYRAMID = {"hidden_sizes": [4, 4, 6, 8], "depths": [1, 1, 1, 1]}
PATCHES = {
    "hidden_size": 8,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "image_size": 16,
    "patch_size": 8,
}
WINDOWS = {"embed_dim": 4, "depths": [1] * 4, "num_heads": [1] * 4, "window_size": 2}
TINY = {
    "resnet": PYRAMID | {"embedding_size": 4, "layer_type": "basic"},
    "convnext": PYRAMID,
    "convnextv2": PYRAMID,
    "vit": PATCHES,
    "deit": PATCHES,
    "dinov2": PATCHES,
    "swin": WINDOWS | {"image_size": 64},
    "swinv2": WINDOWS | {"image_size": 64},
}


def backbone_folder(folder: Path, family: str) -> str:
    """config.json of a tiny member of the family."""
    transformers.AutoConfig.for_model(family, **TINY[family]).save_pretrained(folder)
    return str(folder)


def backbone(folder: str, pretrained: bool = False, **given):
    options = ImageOptions(kind="grid", backbone=f"transformers:{folder}", **given)
    return make_backbone(options, pretrained)


@pytest.mark.parametrize("family", FAMILIES)
def test_backbones_give_cells_and_every_parameter_learns(tmp_path: Path, family: str) -> None:
    body = backbone(backbone_folder(tmp_path, family)).train()
    side = 8 if family in ("vit", "deit", "dinov2") else 32  # pixels of a cell
    images = torch.randn(2, 3, 96, 64)
    cells = body(images)
    assert cells.shape == (2, (96 // side) * (64 // side), body.channels)
    assert body.count_cells(96, 64) == cells.shape[1]
    cells.square().sum().backward()
    trained = {name for name, p in body.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in body.named_parameters() if p.grad is not None}
    body.set_fixed_blocks(3)
    partly = {name for name, p in body.named_parameters() if p.requires_grad}
    assert 0 < len(partly) < len(trained) / 2
    body.set_fixed_blocks(4)
    assert not any(p.requires_grad for p in body.parameters())


def test_cells_of_a_vit_are_its_patches(tmp_path: Path) -> None:
    body = backbone(backbone_folder(tmp_path, "vit")).eval()
    images = torch.randn(1, 3, 16, 16)
    states = body.body(images).last_hidden_state
    torch.testing.assert_close(body(images), states[:, 1:])


def test_weights_of_a_backbone_folder(tmp_path: Path) -> None:
    folder = backbone_folder(tmp_path, "resnet")
    with pytest.warns(UserWarning, match="random weights"):
        source = backbone(folder, pretrained=True).body
    torch.save({f"resnet.{n}": v for n, v in source.state_dict().items()}, tmp_path / "w.pt")
    given = backbone(folder, pretrained=True, weights=str(tmp_path / "w.pt")).body
    source.save_pretrained(tmp_path)
    found = backbone(folder, pretrained=True).body
    for name, value in source.state_dict().items():
        assert torch.equal(given.state_dict()[name], value)
        assert torch.equal(found.state_dict()[name], value)
    ignored = backbone(folder, pretrained=False).body.state_dict()
    assert any(not torch.equal(ignored[name], v) for name, v in source.state_dict().items())
    norms = torch.nn.BatchNorm2d
    modes = {isinstance(m, norms): m.training for m in backbone(folder, pretrained=True).modules()}
    assert modes == {False: True, True: False}


def test_backbones_that_are_not_there(bert_folder: str) -> None:
    with pytest.raises(ValueError, match=r"model.image.backbone: transformers: expected a local"):
        backbone("microsoft/resnet-50")
    with pytest.raises(ValueError, match=r"expected 'resnet', .* got 'bert'"):
        backbone(bert_folder)
