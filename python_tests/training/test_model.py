"""The dual encoder: everything learns, groups of parameters, what options are refused."""

from __future__ import annotations

import re

import pytest
import torch

from goal_kernels.training.data import Batch, TextBatch
from goal_kernels.training.model import VSE, build_model
from goal_kernels.training.options import DataSizes, ImageOptions, TextOptions, as_options

SIZES = DataSizes(10, 50)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def some_batch() -> Batch:
    return Batch(
        torch.randn(6, 5, 10),
        torch.ones(6, 5, dtype=torch.bool),
        torch.randint(4, 50, (6, 8)),
        torch.full((6,), 8),
        torch.tensor([-1, 0, 1, 2, 3, 4, 5, -1]).expand(6, -1),
        torch.arange(6),
    )


def some_model(probability: float = 0.2, **text) -> VSE:
    image = ImageOptions(drop_probability=probability)
    options = TextOptions(word_dim=12, drop_probability=probability, **text)
    return build_model(image, options, SIZES, 16)


@pytest.mark.parametrize("kind", ["bigru", "gru"])
def test_every_parameter_learns(kind: str) -> None:
    model = some_model(kind=kind)
    images, texts = model(some_batch())
    (images * texts).sum().backward()
    assert all((p.grad is not None and p.grad.any()) for p in model.parameters())


def test_the_default_model_starts_and_computes_as_published_figures_were_made_with() -> None:
    mask = torch.arange(6) < torch.tensor([6, 3, 1])[:, None]
    model = build_model(ImageOptions(), TextOptions(word_dim=5), DataSizes(4, 20), 8)
    images, tokens = torch.randn(3, 6, 4), torch.randint(4, 20, (3, 5))
    batch = Batch(images, mask, tokens, torch.tensor([5, 3, 2]), -tokens, torch.arange(3))
    sums = [embeddings.double().sum(dim=0)[:3] for embeddings in model(batch)]
    expected = [[1.03361180, 0.34975436, -0.96730399], [0.83752905, -0.20872907, 0.33274676]]
    torch.testing.assert_close(
        torch.stack(sums), torch.tensor(expected).double(), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("text", [{"kind": "bigru"}, {"kind": "bert", "bert": "random:tiny"}])
def test_one_long_caption_does_not_pad_the_others(text: dict) -> None:
    """Captions of very different lengths are encoded in groups, and come back in their order."""
    if text["kind"] == "bert":
        pytest.importorskip("transformers")
    model = some_model(0.0, **text).double().eval()
    lengths = torch.tensor([4, 90, 3, 5, 70, 4, 4, 3, 2, 4, 5])
    position = torch.arange(90).expand(11, -1)
    tokens = torch.randint(4, 50, (11, 90)).where(position < lengths[:, None], 0)
    batch = TextBatch(tokens, lengths, position, torch.arange(11))
    padded = []
    model.text_encoder.register_forward_pre_hook(
        lambda _, given: padded.append(given[0].tokens.numel())
    )
    together = model.encode_texts(batch)
    assert padded == [9 * 5, 2 * 90]
    alone = [model.encode_texts(batch.rows(torch.tensor([row]))) for row in range(11)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_double_precision_stays_double() -> None:
    model = some_model().double().eval()
    batch = some_batch()
    images, texts = model(batch._replace(images=batch.images.double()))
    assert images.dtype == texts.dtype == torch.float64
    torch.testing.assert_close(images.norm(dim=1), torch.ones(6).double(), rtol=0, atol=1e-15)


def test_augmentation_changes_words_and_masks_only() -> None:
    batch = some_batch()
    changed = some_model(0.5).augment(batch, torch.Generator().manual_seed(3))
    assert changed.images is batch.images
    assert torch.equal(changed.image_ids, batch.image_ids)
    assert not torch.equal(changed.tokens, batch.tokens)
    assert not torch.equal(changed.words, batch.words)
    assert not torch.equal(changed.image_mask, batch.image_mask)
    assert some_model(0).augment(batch, torch.Generator()) is batch


def test_one_group_of_parameters_at_one_rate() -> None:
    model = some_model()
    groups = model.parameter_groups(0.01, 0.1)
    assert groups == [{"params": list(model.parameters()), "lr": 0.01, "weight_decay": 0.1}]


def test_norms_and_biases_can_go_without_decay() -> None:
    model = some_model()
    groups = model.parameter_groups(0.01, 0.1, no_decay_on_norm_and_bias=True)
    decayed, spared = groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert all(parameter.ndim < 2 for parameter in spared["params"])
    together = {id(p) for group in groups for p in group["params"]}
    assert together == {id(p) for p in model.parameters()}
    assert {group["name"] for group in groups} == {"rest", "rest, no decay"}
    torch.optim.AdamW(groups)


@pytest.mark.parametrize(
    ("image", "text", "words"),
    [
        ({"kind": "regions"}, {}, "model.image.kind: expected 'region', 'grid' or 'global', got"),
        (
            {},
            {"kind": "lstm"},
            "model.text.kind: expected 'bigru', 'gru', 'bert' or 'conv', got 'lstm'",
        ),
        ({"pooling": "last"}, {}, "model.image.pooling: expected 'gpo', 'mean' or 'max', got"),
        ({}, {"pooling": "avg"}, "model.text.pooling: expected 'gpo', 'mean', 'max', 'first' or"),
        ({"drop_probability": 1.0}, {}, "model.image.drop_probability: expected a number in [0"),
        ({}, {"drop_probability": -0.1}, "model.text.drop_probability: expected a number in [0"),
        ({"initialisation": "xavier"}, {}, "model.image.initialisation: expected 'torch' or"),
        ({"fixed_blocks": 5}, {}, "model.image.fixed_blocks: expected 0 (everything trains) to 4"),
        ({}, {"lr_scale": float("nan")}, "model.text.lr_scale: expected a number >= 0, got nan"),
        ({}, {"word_dim": 0}, "model.text.word_dim: expected at least 1, got 0"),
        ({"kind": "grid"}, {}, "model.image.kind: 'grid' needs raw images"),
    ],
)
def test_bad_options_name_themselves(image: dict, text: dict, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        build_model(ImageOptions(**image), TextOptions(**text), SIZES, 16)


def test_embed_dim_is_positive() -> None:
    with pytest.raises(ValueError, match=r"model.embed_dim: expected at least 1, got 0"):
        build_model(ImageOptions(), TextOptions(), SIZES, 0)


def test_regions_have_no_backbone_to_freeze() -> None:
    with pytest.raises(ValueError, match=r"RegionEncoder, which has none; use --model.image.kind"):
        some_model().set_trainable(2)


def test_options_survive_as_plain_types() -> None:
    options = as_options(TextOptions, {"kind": "gru", "pooling": "last"})
    assert options == TextOptions(kind="gru", pooling="last")
    with pytest.raises(TypeError, match="poling"):
        as_options(ImageOptions, {"poling": "gpo"})
