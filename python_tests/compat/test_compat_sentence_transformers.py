"""`GOALLoss` for sentence-transformers: columns, labels, configuration, and its real losses."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import pytest
import torch
from compat_cases import assert_same, outcome, unit_rows
from real_packages import real_package
from torch import Tensor, nn

from goal_kernels import goal_loss
from goal_kernels.compat.sentence_transformers import GOALLoss

LOSSES = "sentence_transformers.sentence_transformer.losses"


class Table(nn.Module):
    """Embeds row numbers, in the form of a SentenceTransformer."""

    def __init__(self, rows: int = 40, width: int = 6) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(rows, width, dtype=torch.float64))

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": self.rows[features["input_ids"]]}


def columns(count: int, rows: int = 5) -> list[dict[str, Tensor]]:
    numbers = torch.arange(count * rows).view(count, rows)
    return [{"input_ids": column} for column in numbers]


def test_two_columns_are_pairs() -> None:
    model, labels = Table(), torch.tensor([0, 0, 1, 2, 2])
    embeddings = [model(column)["sentence_embedding"] for column in columns(2)]
    options: Any = {"normalize": True, "reduction": "mean"}
    got = GOALLoss(model)(iter(columns(2)), None)
    assert torch.equal(got, goal_loss(*embeddings, "nca/sigmoid_ms", **options))
    labelled = GOALLoss(model)(columns(2), labels)
    wanted = goal_loss(*embeddings, "nca/sigmoid_ms", image_ids=labels, **options)
    assert torch.equal(labelled, wanted)
    assert not torch.equal(labelled, got)


def test_further_columns_are_extra_texts() -> None:
    """The limits of false negatives spare them, labels hide none of them."""
    model, labels = Table(), torch.tensor([0, 0, 1, 2, 2])
    anchors, *texts = (model(column)["sentence_embedding"] for column in columns(4))
    owner = torch.tensor([0, 1, 2, 3, 4, *[-1] * 10])
    options: Any = {"false_negative_margin": 0.0, "margin": 0.3}
    got = GOALLoss(model, "hinge/linear", **options)(columns(4), labels)
    wanted = goal_loss(
        anchors,
        torch.cat(texts),
        "hinge/linear",
        text_to_image=owner,
        image_ids=labels,
        exempt_texts=owner < 0,
        normalize=True,
        reduction="mean",
        **options,
    )
    assert torch.equal(got, wanted)


@pytest.mark.filterwarnings("ignore:goal_loss")
def test_one_pair_gives_a_zero_with_a_graph() -> None:
    model = Table()
    value = GOALLoss(model)(columns(2, 1), None)
    value.backward()
    assert value == 0
    assert model.rows.grad is not None
    assert model.rows.grad.eq(0).all()


def test_what_is_no_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="sentence_features: expected the columns"):
        GOALLoss(Table())(columns(1), torch.arange(5))
    with pytest.raises(TypeError, match="labels: expected integers"):
        GOALLoss(Table())(columns(2), torch.rand(5))


def test_configuration_says_how_to_make_it_again() -> None:
    given: Any = {"tau": 5.0, "direction": "i2t", "negatives": "semi_hard"}
    loss = GOALLoss(Table(), "nca/sig", **given)
    config = json.loads(json.dumps(loss.get_config_dict()))
    assert config["objective"] == "nca/sigmoid"
    assert {name: config[name] for name in given} == given
    assert (config["normalize"], config["reduction"]) == (True, "mean")
    assert config["gather_across_devices"] is False
    assert loss.citation.strip().startswith("@inproceedings{xuan2023dissecting,")


def both(real: nn.Module, goal: GOALLoss, embeddings: list[Tensor]) -> tuple[Any, Any]:
    """Loss and gradients of both."""

    def run(loss: Any) -> tuple[Tensor, ...]:
        return outcome(lambda *x: loss.compute_loss_from_embeddings(list(x), None), *embeddings)

    return run(real), run(goal)


def test_two_pairs_have_the_gradient_of_the_symmetric_ranking_loss() -> None:
    """With one negative an anchor: nca/constant with tau = scale is 2 / scale of it."""
    losses = real_package(LOSSES)
    model = Table()
    real = losses.MultipleNegativesRankingLoss(
        model,
        scale=20.0,
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
    )
    goal = GOALLoss(model, "nca/constant", tau=20.0)
    wanted, got = both(real, goal, [unit_rows(2, 6), unit_rows(2, 6, seed=1)])
    assert_same(got[1:], wanted[1:], 2.0 / 20.0)


def test_one_explicit_negative_is_the_triplet_loss() -> None:
    """hinge/constant of one triplet: value and gradients of TripletLoss with cosine distance."""
    losses = real_package(LOSSES)
    model = Table()
    distance = losses.TripletDistanceMetric.COSINE
    real = losses.TripletLoss(model, distance_metric=distance, triplet_margin=0.7)
    goal = GOALLoss(model, "hinge/constant", margin=0.7, direction="i2t")
    columns = [(3 * unit_rows(1, 6, seed=seed).detach()).requires_grad_() for seed in range(3)]
    wanted, got = both(real, goal, columns)
    assert wanted[0] > 0
    assert_same(got, wanted)


def static_model() -> nn.Module:
    """A real SentenceTransformer, made without a download."""
    package = real_package("sentence_transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = {f"w{number}": number for number in range(30)} | {"[UNK]": 30}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    modules = import_module("sentence_transformers.sentence_transformer.modules")
    return package.SentenceTransformer(
        modules=[modules.StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu"
    )


def test_real_model_trains() -> None:
    model = static_model()
    loss = GOALLoss(model, "nca/sigmoid")
    texts = [[f"w{10 * column + row} w{row}" for row in range(5)] for column in range(3)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    values = []
    for _ in range(20):
        value = loss([model.preprocess(column) for column in texts], None)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0]


def test_trainer_and_model_card_take_it() -> None:
    """The trainer puts its wrapped model into the loss; the card cites the paper."""
    package = real_package("sentence_transformers")
    model, wrapped = static_model(), static_model()
    loss = GOALLoss(model)
    trainer = object.__new__(package.SentenceTransformerTrainer)
    assert trainer.override_model_in_loss(loss, wrapped) is loss
    assert loss.model is wrapped
    model.model_card_data.set_losses([loss])
    assert model.model_card_data.citations["GOALLoss"] == loss.citation


def test_wrappers_take_it() -> None:
    """MatryoshkaLoss calls it with embeddings cut to each width."""
    losses = real_package(LOSSES)
    model = static_model()
    inner = GOALLoss(model)
    features = [model.preprocess(["w1 w2", "w3", "w4 w5"]), model.preprocess(["w6", "w7", "w8"])]
    wide = inner(features, None)
    value = losses.MatryoshkaLoss(model, inner, [8, 4])(features, None)
    value.backward()
    narrow = goal_loss(
        *(model(column)["sentence_embedding"][:, :4] for column in features),
        "nca/sigmoid_ms",
        normalize=True,
        reduction="mean",
    )
    torch.testing.assert_close(value, wide + narrow)
