"""Models that score pairs under Lightning: resuming, chunks, mixed precision, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

pl = pytest.importorskip("pytorch_lightning")

from lightning_cases import make_module, make_trainer, parameters  # noqa: E402

from goal_kernels.retrieval import sibling_recalls  # noqa: E402
from goal_kernels.training.data_module import RetrievalDataModule  # noqa: E402
from goal_kernels.training.finish import print_outcome  # noqa: E402
from goal_kernels.training.options import (  # noqa: E402
    FusionOptions,
    ImageOptions,
    ScoreOptions,
    TextOptions,
)

LATE = ScoreOptions(kind="late", width=4, rerank=3)
FUSION = FusionOptions(layers=1, width=4, heads=2, aligned=True, start_epochs=0.5, rerank=2)


@pytest.fixture
def data(folder: Path) -> RetrievalDataModule:
    return RetrievalDataModule(str(folder), batch_size=12)


def without_batch_norm(module) -> None:
    for part in list(module.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.BatchNorm1d):
                setattr(part, name, nn.Identity())


@pytest.mark.parametrize("fusion", [None, replace(FUSION, dropout=0.2)], ids=["scores", "fusion"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    data: RetrievalDataModule, tmp_path: Path, fusion: FusionOptions | None
) -> None:
    class Interruption(pl.Callback):
        def on_train_epoch_end(self, trainer, _) -> None:
            trainer.save_checkpoint(tmp_path / "half.ckpt")
            trainer.should_stop = True

    options = {"scores": LATE, "fusion": fusion, "warmup_steps": 3}
    whole = make_module(data, **options)
    make_trainer(2).fit(whole, datamodule=data)
    first = make_module(data, **options)
    make_trainer(2, callbacks=[Interruption()]).fit(first, datamodule=data)
    second = make_module(data, **options)
    make_trainer(2).fit(second, datamodule=data, ckpt_path=str(tmp_path / "half.ckpt"))
    assert torch.equal(parameters(whole), parameters(second))
    assert not torch.equal(parameters(whole), parameters(first))


@pytest.mark.parametrize("captions", [None, 2])
@pytest.mark.parametrize(
    ("scores", "fusion"),
    [
        (LATE, replace(FUSION, start_epochs=0.0)),
        (ScoreOptions(kind="attention", anchors="both", width=4), None),
    ],
    ids=["late-fusion", "attention"],
)
def test_chunks_and_blocks_train_as_one_pass(
    folder: Path, captions: int | None, scores: ScoreOptions, fusion: FusionOptions | None
) -> None:
    data = RetrievalDataModule(str(folder), batch_size=12, captions_per_image=captions)
    results = []
    for chunks, block in ((1, None), (3, 24)):
        module = make_module(
            data,
            scores=ScoreOptions(
                **{**vars(scores), "block": block, "objective": "nca/sigmoid_ms", "pooling": "mean"}
            ),
            fusion=fusion,
            accumulate_negatives=chunks,
            image=ImageOptions(drop_probability=0.1),
        )
        without_batch_norm(module)
        few = {"limit_train_batches": 2, "limit_val_batches": 0, "precision": "64-true"}
        make_trainer(1, **few).fit(module, data)
        results.append(parameters(module))
    assert results[0].dtype == torch.float64
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-10)


def test_scores_are_float32_in_mixed_precision(data: RetrievalDataModule) -> None:
    module = make_module(data, scores=LATE)
    seen: list[torch.dtype] = []
    assert module.score_loss is not None
    kept = module.score_loss.of_scores

    def watched(scores, *rest):
        seen.append(scores.dtype)
        return kept(scores, *rest)

    module.score_loss.of_scores = watched
    trainer = make_trainer(1, precision="bf16-mixed")
    trainer.fit(module, datamodule=data)
    assert set(seen) == {torch.float32}
    assert module.evaluation is not None
    assert module.evaluation.similarity.dtype == torch.float32
    assert trainer.callback_metrics["val/rsum"] == pytest.approx(
        module.evaluation.rankings["full"]["rsum"]
    )
    logged = set(trainer.callback_metrics)
    assert {"train/embedding_loss", "val_dual/t2i_R@1", "val_reranked/i2t_R@1"} <= logged


def test_the_outcome_shows_every_ranking_and_warns(
    data: RetrievalDataModule, capsys: pytest.CaptureFixture
) -> None:
    module = make_module(data, scores=LATE)
    families = np.arange(12) // 3
    vars(data.split("dev"))["families"] = families
    trainer = make_trainer(1)
    trainer.validate(module, datamodule=data, verbose=False)
    found = module.evaluation
    assert found is not None
    assert list(found.siblings) == ["dual", "reranked", "full", "chance"]
    facts = found.similarity, found.image_of_caption, families
    wanted = sibling_recalls({"full": facts[0]}, *facts[1:])["full"]
    assert found.siblings["full"] == wanted
    logged = trainer.callback_metrics["val_full/t2i_R@1_among_siblings"]
    assert logged == pytest.approx(wanted["t2i"])
    found.rankings["dual"]["t2i"]["R@1"] = 99.0
    known = {"oracle": None, "ridge": None, "objective": None}
    outcome = SimpleNamespace(evaluation=found, where="here", **known)
    capsys.readouterr()
    print_outcome(outcome)  # type: ignore[arg-type]
    said = capsys.readouterr()
    assert all(name in said.out for name in ("dual", "reranked", "full", "chance"))
    assert "t2i R@1 among siblings" in said.out
    assert f"{12 * 24 + 3 * (12 + 24)} pairs scored in" in said.out
    assert "WARNING: re-ranking is worse than the ranking it began with" in said.err


def test_a_matching_head_without_scores_reranks_the_embeddings(data: RetrievalDataModule) -> None:
    """Trained on negatives drawn by similarity, in mixed precision."""
    module = make_module(
        data,
        objective="info_nce",
        negatives="sampled:0.1",
        fusion=FusionOptions(layers=1, width=8, heads=2, pooling="mean", rerank=4, pairs=10),
    )
    before = module.model.fusion.head.weight.detach().clone()
    trainer = make_trainer(1, limit_train_batches=2, precision="bf16-mixed")
    trainer.fit(module, datamodule=data)
    assert trainer.callback_metrics["train/matching_loss"].isfinite()
    assert 0 <= trainer.callback_metrics["matching/negatives_below"] <= 1
    assert not torch.equal(module.model.fusion.head.weight, before)
    assert module.evaluation is not None
    assert list(module.evaluation.rankings) == ["dual", "matched"]
    assert module.evaluation.metrics is module.evaluation.rankings["matched"]
    assert module.evaluation.scoring["matching"]["pairs"] == 4 * (12 + 24)


def test_a_matching_head_reranks_the_scores(data: RetrievalDataModule) -> None:
    module = make_module(data, scores=LATE, fusion=replace(FUSION, start_epochs=0.0))
    make_trainer(1).validate(module, datamodule=data, verbose=False)
    found = module.evaluation
    assert found is not None
    assert list(found.rankings) == ["dual", "reranked", "full", "matched"]
    for direction in ("i2t", "t2i"):  # a new head leaves the order of the scores as it was
        assert found.rankings["matched"][direction] == found.rankings["full"][direction]


def test_scores_learn_what_embeddings_are_not_asked_for(data: RetrievalDataModule) -> None:
    """A loss of embeddings that is next to nothing leaves the scores to do the work."""
    torch.manual_seed(0)
    module = make_module(
        data,
        scores=ScoreOptions(kind="late", width=8, embedding_weight=1e-9, pooling="mean"),
        text=TextOptions(word_dim=8, drop_probability=0.0),
        image=ImageOptions(drop_probability=0.0),
    )
    make_trainer(12, limit_val_batches=0).fit(module, datamodule=data)
    make_trainer(1).validate(module, datamodule=data, verbose=False)
    assert module.evaluation is not None
    full, dual = (module.evaluation.rankings[name]["rsum"] for name in ("full", "dual"))
    assert full > dual + 40


def test_an_encoder_of_one_vector_is_refused(data: RetrievalDataModule) -> None:
    from goal_kernels.training.encoders.base import ImageEncoder

    with pytest.raises(ValueError, match=r"model\.scores: .*expected encoders of regions"):
        ImageEncoder().rows(next(iter(data.train_dataloader())).image_part)


def test_an_objective_of_rows_is_refused(data: RetrievalDataModule) -> None:
    with pytest.raises(ValueError, match=r"model\.scores\.objective: expected the direction 'dot'"):
        make_module(data, scores=ScoreOptions(kind="late", objective="hinge/constant/euclidean"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"negatives": "bogus"}, "negatives: expected hardest, semi_hard"),
        ({"negatives": "semi_hard"}, "negatives: expected defaults.* another model.scores.objec"),
        ({"objective": "foo"}, "objective: expected 'triplet/pair'.* got 'foo'"),
        ({"objective": "foo/constant"}, "objective: triplet: unknown element 'foo'"),
        (
            {"objective_parameters": {"tauu": 3.0}},
            r"objective_parameters: .* info_nce \(tau, alpha.* got tauu=3.0; did you mean 'tau'",
        ),
        ({"objective_parameters": {"tau": -3.0}}, r"objective_parameters\.tau: expected a finite"),
    ],
)
def test_errors_name_the_option_of_the_scores(
    data: RetrievalDataModule, given: dict, said: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"^model\.scores\.{said}"):
        make_module(data, scores=ScoreOptions(kind="late", **given))
